"""Rows C of the crash table in docs/recovery.md."""

import shutil
from pathlib import Path
from unittest import mock

import pytest

from archive.errors import Damaged, NotFound
from archive.flow.check import verify
from archive.flow.compaction import Compactor
from archive.flow.deletion import Deleter
from archive.flow.pack_steps import PackSteps
from archive.flow.recovery import rebuild_index
from archive.flow.superseded import delete_superseded
from archive.index.packed_writer import PackedWriter
from tests.crash.cutting import Loss
from tests.crash.doomed import Doomed, restarted
from tests.crash.rows import cut
from tests.flow.objects import NAME, Life, living, make_object, pack_files

SENT = [make_object(1, 1 + number % 2, number) for number in range(4)]
GONE = SENT[2]
LEFT = [one for one in SENT if one is not GONE]


@pytest.fixture
def doomed(tmp_path: Path) -> Doomed:
    """Two packs of instances, one of which is deleted, and one of the deletion."""
    one = Doomed(tmp_path / "data", None, deletion={"allowed": True}, compaction={"grace_seconds": 0})
    for part in SENT[:2], SENT[2:]:
        one.life.send(*part)
        one.life.packer.pack_now()
    Deleter(one.life.home).delete([GONE.sop_instance_uid], "test")
    one.life.packer.pack_now()
    return one


def compact(life: Life) -> None:
    Compactor(life.home, life.packer).compact()


def numbers(life: Life) -> list[int]:
    return [entry.name.sequence for entry in life.home.tier.list_packs(NAME)]


def assert_content(life: Life) -> None:
    life.assert_served(LEFT)
    assert len(life.retrieval.instances("1.2.1")) == len(LEFT)
    with pytest.raises(NotFound):
        life.received(GONE)
    for one in LEFT:
        assert len(life.home.index.revisions(one.sop_instance_uid)) == 1


def assert_all_is_well(doomed: Doomed, last: list[int]) -> None:
    """With a new index, after one more compaction, and with a new index again."""
    shutil.copytree(doomed.data / "packs", doomed.data.parent / "packs")
    for _ in range(2):
        rebuild_index(doomed.settings)
        assert [f for f in verify(doomed.settings) if f.severity == "damage"] == []
        with living(doomed.settings) as life:
            assert_content(life)
            compact(life)
            assert numbers(life) == last
            assert_content(life)
            assert life.send(GONE)[0].outcome == "new"
            Deleter(life.home).delete([GONE.sop_instance_uid], "test")
    assert verify(doomed.settings) == []


@pytest.mark.parametrize("torn", [False, True])
@pytest.mark.parametrize("call", ["create .*inflight", "write .*inflight", "sync .*inflight", "rename .*inflight"])
def test_C1_part_of_it_is_streamed(doomed: Doomed, call: str, torn: bool) -> None:
    doomed.die_before(call, lambda: compact(doomed.life), "nothing" if torn else "unsynced bytes", torn=torn)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        assert numbers(life) == [1, 2, 3]
        assert doomed.files("packs/.inflight") == []
        assert_content(life)
    assert_all_is_well(doomed, [4])


@pytest.mark.parametrize("when", ["not durable", "durable"])
def test_C2_it_is_renamed(doomed: Doomed, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if when == "durable":
        with monkeypatch.context() as patch:
            patch.setattr(PackSteps, "commit", cut)
            doomed.die_in(lambda: compact(doomed.life), "unsynced")
    else:
        doomed.die_before("sync folder .*packs/.*/000000000$", lambda: compact(doomed.life))
    with restarted(doomed.settings) as (report, life):
        assert report.packs_adopted == 1
        assert numbers(life) == [1, 2, 3, 4]
        assert_content(life)
    assert_all_is_well(doomed, [4])


@pytest.mark.parametrize("how", ["it dies", "the index takes it for damaged"])
def test_C2_and_the_packer_alone_goes_on(doomed: Doomed, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    late = make_object(3, 1, 1)
    with monkeypatch.context() as patch:
        if how == "it dies":
            patch.setattr(PackSteps, "commit", cut)
            doomed.die_in(lambda: compact(doomed.life))
        else:
            patch.setattr(PackSteps, "commit", mock.Mock(side_effect=Damaged("an entry of the index")))
            with pytest.raises(Damaged):
                compact(doomed.life)
            doomed.die()
    with living(doomed.settings) as life:
        life.send(late)
        life.packer.pack_now()
        with life.home.index.packed.environment.reading() as t:
            assert [info.name.sequence for info in life.home.index.packed.packs(t)] == [1, 2, 3, 4, 5]
        compact(life)
        assert_content(life)
        life.assert_served([late])
    assert verify(doomed.settings) == []


@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
def test_C3_the_index_is_committed(doomed: Doomed, loss: Loss) -> None:
    doomed.die_before("unlink .*/packs/", lambda: compact(doomed.life), loss)
    with restarted(doomed.settings) as (report, life):
        assert report.packs_adopted == 0
        assert numbers(life) == [1, 2, 3, 4]
        assert_content(life)
        compact(life)
        assert numbers(life) == [4]
        assert_content(life)
    assert_all_is_well(doomed, [4])


@pytest.mark.parametrize("index", ["kept", "lost"])
def test_C4_an_old_pack_is_gone_from_the_tier(doomed: Doomed, index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PackedWriter, "forget_pack", cut)
        doomed.die_in(lambda: compact(doomed.life))
    if index == "lost":
        rebuild_index(doomed.settings)
    assert verify(doomed.settings) == []
    with restarted(doomed.settings) as (_, life):
        assert numbers(life) == [2, 3, 4]
        assert_content(life)
        compact(life)
        with life.home.index.packed.environment.reading() as t:
            assert [info.name.sequence for info in life.home.index.packed.packs(t)] == [4]
    assert_all_is_well(doomed, [4])


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_C5_some_old_packs_are_gone(doomed: Doomed, skip: int) -> None:
    doomed.die_before("unlink .*/packs/", lambda: compact(doomed.life), skip=skip)
    with restarted(doomed.settings) as (_, life):
        assert numbers(life) == [1, 2, 3, 4][skip:]
        assert_content(life)
    assert_all_is_well(doomed, [4])


@pytest.mark.parametrize("skip", [0, 1])
def test_C6_the_first_of_two_new_packs_is_committed(tmp_path: Path, skip: int) -> None:
    """Series that share packs with others, and are together too long for one."""
    target = {"pack_bytes_target": 1 << 20}
    doomed = Doomed(tmp_path / "data", None, packer=target, deletion={"allowed": True}, compaction={"grace_seconds": 0})
    sent = [make_object(1, series, number, pixel_bytes=130_000) for number in range(3) for series in range(1, 5)]
    for start in range(0, len(sent), 4):
        doomed.life.send(*sent[start : start + 4])
        doomed.life.packer.pack_now()
    before = len(pack_files(doomed.data))
    doomed.die_before("rename .*inflight", lambda: compact(doomed.life), skip=skip)
    with restarted(doomed.settings) as (_, life):
        life.assert_served(sent)
        assert len(life.retrieval.instances("1.2.1")) == len(sent)
        assert len(pack_files(doomed.data)) == before + skip
        if skip:
            with life.home.index.packed.environment.reading() as t:
                superseded = [info for info, _ in life.home.index.packed.superseded(t)]
            assert len(superseded) == before, "of each a part is in no other pack yet"
            assert delete_superseded(life.home, 0) == []
            assert len(pack_files(doomed.data)) == before + 1
    rebuild_index(doomed.settings)
    with living(doomed.settings) as life:
        life.assert_served(sent)
        compact(life)
        life.assert_served(sent)
        assert len(pack_files(doomed.data)) == 2
        assert len(life.retrieval.instances("1.2.1")) == len(sent)
    assert verify(doomed.settings) == []


def test_C6_a_failed_commit_is_made_good_without_a_restart(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PackSteps, "commit", lambda *_: (_ for _ in ()).throw(OSError("the index is full")))
        with pytest.raises(OSError, match="full"):
            compact(doomed.life)
    assert_content(doomed.life)
    late = make_object(3, 1, 1)
    doomed.life.send(late)
    doomed.life.packer.pack_now()
    assert numbers(doomed.life) == [1, 2, 3, 4, 5]
    with doomed.life.home.index.packed.environment.reading() as t:
        assert [info.name.sequence for info in doomed.life.home.index.packed.packs(t)] == [1, 2, 3, 4, 5]
    compact(doomed.life)
    assert_content(doomed.life)
    doomed.life.assert_served([late])
    doomed.end()
