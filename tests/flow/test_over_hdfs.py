"""Deletion, compaction, erasing, revisions and quarantine where packs rest in a real HDFS and come near through the pool.

What each does in every case is tested over folders; here is what another tier could make of it.
"""

import itertools
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.errors import Damaged, NotFound, Unavailable
from archive.flow.check import verify
from archive.flow.erasing import erase
from archive.flow.following import adopt_packs
from archive.flow.recovery import rebuild_index, recover
from archive.flow.repair import How, repair
from archive.flow.superseded import delete_superseded
from archive.pack.naming import PackName, quarantined_name
from archive.tier.protocol import Tier
from archive.tier.webhdfs import WebHdfsTier
from tests.flow.compacting import all_rows, allowed, compact, delete, pack_each, revisions, tails, uids
from tests.flow.objects import NAME, Life, Object, living, make_object
from tests.flow.test_erasing import LARGE_SECRET, MARK, OTHERS, SECRET, fill, holding
from tests.hdfs import Hdfs

numbers = itertools.count(1)
ONE, TWO, THREE = (make_object(1, 1, number) for number in (1, 2, 3))


@pytest.fixture
def folder() -> str:
    return f"/flow/{next(numbers)}"


@pytest.fixture
def make_settings(hdfs: Hdfs, folder: str, tmp_path: Path) -> Callable[..., Settings]:
    """Settings of a node of some name over the same folder of HDFS."""

    def make(name: str = NAME, **sections: dict[str, Any]) -> Settings:
        data = tmp_path / name
        return allowed(data, node={"data": data, "name": name, "tier": hdfs.url(folder)}, **sections)

    return make


def packs(hdfs: Hdfs, folder: str) -> list[str]:
    return [name for name in hdfs.files(folder) if not name.startswith(".")]


def content(tier: Tier, name: str) -> bytes:
    parsed = PackName.parse(name)
    return tier.read(parsed, 0, tier.length(parsed))


def assert_there(life: Life, objects: list[Object]) -> None:
    """These and no others."""
    life.assert_served(objects)
    assert sorted(row["00080018"]["Value"][0] for row in all_rows(life)[2]) == sorted(one.sop_instance_uid for one in objects)


def test_what_is_deleted_is_gone_and_can_be_sent_again(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with living(settings) as life:
        pack_each(life, ONE, TWO)
        life.send(THREE)
        life.assert_served([ONE, TWO, THREE])  # They are in the pool.
        delete(life, ONE.sop_instance_uid, THREE.sop_instance_uid)
        assert_there(life, [TWO])
    rebuild_index(settings)  # The deletion is in the journal alone.
    with living(settings) as life:
        assert_there(life, [TWO])
        life.packer.pack_now()
    rebuild_index(settings)  # It is in a pack.
    with living(settings) as life:
        assert_there(life, [TWO])
        assert [a.outcome for a in life.send(ONE, TWO)] == ["new", "same"]
        life.packer.pack_now()
    rebuild_index(settings)
    with living(settings) as life:
        assert_there(life, [ONE, TWO])
        assert len(life.home.index.revisions(ONE.sop_instance_uid)) == 1
    assert verify(settings) == []


def test_deletion_works_while_the_tier_is_away(make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    recover(settings)
    with living(settings) as life:
        pack_each(life, ONE, TWO)
    recover(settings)  # The journal lets go.
    away = settings.model_copy(update={"node": settings.node.model_copy(update={"tier": "webhdfs://127.0.0.1:1/flow"})})
    quick = away.model_copy(update={"webhdfs": away.webhdfs.model_copy(update={"read_patience_seconds": 0.1})})
    recover(quick)
    with living(quick) as life:
        delete(life, ONE.sop_instance_uid)
        with pytest.raises(NotFound):
            life.received(ONE)
        assert_there(life, [TWO])  # It is near.
    recover(settings)
    with living(settings) as life:
        life.packer.pack_now()
        assert_there(life, [TWO])
    assert verify(settings) == []


def test_compaction_joins_packs_and_leaves_deleted_bytes_out(hdfs: Hdfs, folder: str, make_settings: Callable[..., Settings]) -> None:
    settings = make_settings()
    with living(settings) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in (3, 1, 4)), make_object(2, 1, 1), make_object(1, 1, 2))
        looked = life.retrieval.instances("1.2.2")
        delete(life, sent[2].sop_instance_uid)
        life.packer.pack_now()
        left = [one for one in sent if one is not sent[2]]
        old = {name: content(life.home.tier, name) for name in packs(hdfs, folder)}
        before, rows = revisions(life, left), all_rows(life)
        report = compact(life, 3600)
        assert (report.packs_read, report.packs_written, report.packs_waiting, report.kept) == (6, 1, 6, [])
        assert len(packs(hdfs, folder)) == 7
        assert delete_superseded(life.home, 0) == []
        (name,) = packs(hdfs, folder)
        assert sent[2].data_set not in content(life.home.tier, name) and sent[0].data_set in content(life.home.tier, name)
        (tail,) = tails(life)
        assert uids(tail) == [["1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.3"], ["1.2.2.1.1"]]
        with life.retrieval.open(looked[0]) as opened:  # Who looked before reads after.
            assert bytes(opened.stored_data_set()) == sent[3].data_set
        assert_there(life, left)
        assert (revisions(life, left), all_rows(life)) == (before, rows)
    assert hdfs.files(folder) == [name]
    shutil.rmtree(settings.node.data / "pool")  # What is served comes from HDFS.
    rebuild_index(settings)
    with living(settings) as life:
        assert_there(life, left)
        assert (revisions(life, left), all_rows(life)) == (before, rows)
    assert verify(settings) == []
    for name, data in old.items():  # They come back from a backup.
        hdfs.write(f"{folder}/{name}", data)
    rebuild_index(settings)
    with living(settings) as life:
        assert_there(life, left)
        assert delete_superseded(life.home, 0) == []
    assert len(packs(hdfs, folder)) == 1
    assert verify(settings) == []


class Cut(BaseException):
    """The node stops here."""


@pytest.mark.parametrize("call", ["_publish", "_check_at_rest", "delete"])
@pytest.mark.parametrize("after", [False, True])
def test_a_compaction_that_is_cut_is_done_again(
    hdfs: Hdfs, folder: str, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch, call: str, after: bool
) -> None:
    settings = make_settings()
    with living(settings) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
        delete(life, sent[0].sop_instance_uid)
        life.packer.pack_now()
        done = getattr(WebHdfsTier, call)

        def cut(self: WebHdfsTier, *arguments: Any) -> None:
            if after:
                done(self, *arguments)
            raise Cut

        with monkeypatch.context() as patch:
            patch.setattr(WebHdfsTier, call, cut)
            patch.setattr(WebHdfsTier, "_drop", lambda self, part: None)
            with pytest.raises(Cut):
                compact(life)
    recover(settings)
    with living(settings) as life:
        assert_there(life, sent[1:])
        compact(life)
        assert delete_superseded(life.home, 0) == []
        assert_there(life, sent[1:])
    assert len(hdfs.files(folder)) == 1
    assert verify(settings) == []


def test_a_second_node_reads_on_after_a_compaction(make_settings: Callable[..., Settings]) -> None:
    one, two = make_settings("one"), make_settings("two")
    with living(one) as writer:
        sent = pack_each(writer, ONE, TWO, THREE)
    recover(two)
    with living(two) as reader, living(one) as writer:
        reader.assert_served([ONE])
        delete(writer, THREE.sop_instance_uid)
        writer.packer.pack_now()
        compact(writer)
        with pytest.raises(Unavailable):
            reader.received(TWO)  # It lay in a pack that is gone: the reader has not looked yet.
        assert adopt_packs(reader.home, own=False).damaged == []
        assert_there(reader, sent[:2])
        delete_superseded(reader.home, 0)
        assert_there(reader, sent[:2])
    for settings in (one, two):
        assert verify(settings) == []


@pytest.mark.parametrize("second", [make_object(1, 1, 1, pixels=b"another picture!"), make_object(1, 2, 1, sop=ONE.sop_instance_uid)])
def test_revisions_go_through_packs_and_compaction(make_settings: Callable[..., Settings], second: Object) -> None:
    settings = make_settings()
    with living(settings) as life:
        outcomes = []
        for one in (ONE, ONE, second, second, ONE):
            outcomes += [accepted.outcome for accepted in life.send(one)]
            life.packer.pack_now()
        assert outcomes == ["new", "same", "revision", "same", "same"]
        before = revisions(life, [ONE])
        compact(life)
        life.assert_served([ONE])
    rebuild_index(settings)
    with living(settings) as life:
        life.assert_served([ONE])
        assert revisions(life, [ONE]) == before
        delete(life, ONE.sop_instance_uid)
        assert life.send(second)[0].outcome == "new"
        life.packer.pack_now()
        assert_there(life, [second])
    assert verify(settings) == []


def damage(hdfs: Hdfs, path: str, data: bytes, needle: bytes) -> None:
    """As if all replicas were wrong and their checksums too."""
    at = data.index(needle) + len(needle) // 2
    hdfs.write(path, data[:at] + bytes(64) + data[at + 64 :])


def test_a_damaged_pack_goes_into_quarantine_and_erasing_empties_it(
    hdfs: Hdfs, folder: str, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    with living(settings) as life:
        life.send(ONE, TWO)
        life.packer.pack_now()
        (entry,) = life.home.tier.list_packs(NAME)
        good = content(life.home.tier, str(entry.name))
    recover(settings)  # The journal lets go.
    for folder_with_copies in ("pool", "journal/spare"):
        shutil.rmtree(settings.node.data / folder_with_copies)
    damage(hdfs, f"{folder}/{entry.name}", good, ONE.data_set)
    assert {finding.severity for finding in verify(settings)} == {"damage"}
    with living(settings) as life, pytest.raises(Damaged):
        life.received(ONE)
    planned = repair(settings, How(apply=False, accept_loss=True))
    assert hdfs.files(folder) == [str(entry.name)] and len(planned.lost) == 1
    done = repair(settings, How(apply=True, accept_loss=True))
    assert done.left == []
    away = quarantined_name(entry.name)
    assert away in hdfs.files(folder)
    assert verify(settings) == []
    with living(settings) as life:
        assert_there(life, [TWO])
        assert life.send(ONE)[0].outcome == "new"
        life.packer.pack_now()
        assert_there(life, [ONE, TWO])
        delete(life, TWO.sop_instance_uid)
    hdfs.write(f"{folder}/.quarantine/x-{entry.name.node}-000000000009-{'0' * 64}.zip", b"of another node")
    recover(settings)
    assert ["1 files that are not of this node" in text for text in erase(settings).left] == [True]
    assert [name for name in hdfs.files(folder) if name.startswith(".")] == [f".quarantine/x-{NAME}-000000000009-{'0' * 64}.zip"]
    with living(settings) as life:
        assert_there(life, [ONE])


def test_no_byte_is_left_on_the_disks_of_the_data_nodes(hdfs: Hdfs, folder: str, make_settings: Callable[..., Settings]) -> None:
    """HDFS removes the blocks of a deleted file some seconds later."""
    settings, data_nodes = make_settings(), [hdfs.run / f"datanode-{number}/data" for number in (1, 2, 3)]
    fill(settings)
    assert holding(settings.node.data) >= {"journal", "index", "derived", "pool"}
    assert holding(*data_nodes) != set(), "this test would prove nothing"
    recover(settings)
    report = erase(settings)
    assert (report.left, report.deleted) == ([], 2)
    assert holding(settings.node.data) == set()
    until = time.monotonic() + 60
    while holding(*data_nodes):
        assert time.monotonic() < until, f"{MARK} is left in the blocks of HDFS"
        time.sleep(1)
    assert verify(settings) == []
    with living(settings) as life:
        assert_there(life, OTHERS)
        assert [a.outcome for a in life.send(SECRET, LARGE_SECRET)] == ["new", "new"]
