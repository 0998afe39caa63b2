"""Packs that rest in the tier and are not in the index."""

import shutil
import threading
from pathlib import Path

import pytest

from archive.config import Settings
from archive.errors import Damaged, Unavailable
from archive.flow.check import verify
from archive.flow.following import adopt_packs, next_sequence
from archive.flow.home import Home
from archive.flow.recovery import rebuild_index, recover
from archive.flow.superseded import delete_superseded
from archive.pack.naming import PackName
from archive.pack.pack_reader import TailBytes
from archive.tier.directory import DirectoryTier
from archive.tier.protocol import Tier
from archive.tier.tails import fetch_pack_tail, read_pack_tail
from tests.flow.compacting import allowed, compact, delete, pack_each
from tests.flow.objects import NAME, living, make_object, pack_files, settings_of


def test_a_damaged_last_pack_does_not_block_the_number_behind_it(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        life.send(make_object(1, 1, 1))
        life.packer.pack_now()
        life.send(make_object(2, 1, 1))
        life.packer.pack_now()
    last = pack_files(data)[-1]
    with open(last, "r+b") as file:
        file.seek(-20, 2)
        file.write(b"#")
    assert len(rebuild_index(settings).damaged) == 1
    with living(settings) as life:
        assert next_sequence(life.home) == 3
        third = make_object(3, 1, 1)
        life.send(third)
        assert life.packer.pack_now().packs == 1
        life.assert_served([make_object(1, 1, 1), make_object(2, 1, 1), third])  # The journal still had the second.
    assert [path.name[:12] for path in pack_files(data)] == ["000000000001", "000000000002", "000000000003"]
    assert len(recover(settings).damaged) == 1  # Every start looks whether it was mended.


def test_a_node_starts_while_its_tier_is_away_and_takes_its_packs_in_later(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(data)
    first, second = make_object(1, 1, 1), make_object(2, 1, 1)
    recover(settings)
    with living(settings) as life:
        life.send(first)
    before = shutil.copytree(data / "index", data.with_name("index"))
    with living(settings) as life:
        life.packer.pack_now()
    shutil.rmtree(data / "index")
    before.rename(data / "index")  # It was killed before it took its pack in.

    def away(self: DirectoryTier) -> list[str]:
        raise Unavailable("the tier is away")

    with monkeypatch.context() as patch:
        patch.setattr(DirectoryTier, "nodes", away)
        assert recover(settings).tier_away == "the tier is away"
        with pytest.raises(Unavailable):
            rebuild_index(settings)
        with living(settings) as life:
            life.send(second)
            life.assert_served([second])
            with pytest.raises(Unavailable):
                life.packer.pack_now()
    left = data / "packs" / ".inflight" / f"{settings.node.name}-000000000009.zip"
    left.write_bytes(b"of an earlier life")
    with living(settings) as life:
        with life.home.index.pending.environment.reading() as t:
            assert "the tier is away" in life.home.index.pending.problem(t)
        assert life.packer.pack_now().instances == 2  # One was taken in from its pack, one was packed: none of them twice.
        life.assert_served([first, second])
        stop = threading.Event()
        threading.Timer(0.1, stop.set).start()
        life.packer.run(stop)
        with life.home.index.pending.environment.reading() as t:
            assert life.home.index.pending.problem(t) == ""
        entries = [entry.name for entry in life.home.tier.list_packs(settings.node.name)]
        assert [len(read_pack_tail(life.home.tier, name).series) for name in entries] == [1, 1]
    assert [path.name[:12] for path in pack_files(data)] == ["000000000001", "000000000002"]
    assert not left.exists()


def test_an_index_of_another_format_is_made_anew(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        life.send(make_object(1, 1, 1))
        life.packer.pack_now()
    (data / "index" / "format").write_text("0\n")
    with pytest.raises(Damaged, match="has format 0, .* run rebuild-index"):
        Home(settings)
    assert recover(settings).packs_adopted == 1
    assert recover(settings).packs_adopted == 0
    with living(settings) as life:
        life.assert_served([make_object(1, 1, 1)])


def test_nothing_is_packed_into_a_folder_that_lost_its_disk(data: Path) -> None:
    with living(settings_of(data)) as life:
        life.send(make_object(1, 1, 1))
        life.packer.pack_now()
        (data / "packs").rename(data / "elsewhere")
        life.send(make_object(1, 1, 2))
        with pytest.raises(Unavailable, match="is it mounted"):
            life.packer.pack_now()
        assert pack_files(data) == []
        (data / "elsewhere").rename(data / "packs")
        life.packer.pack_now()
        life.assert_served([make_object(1, 1, 1), make_object(1, 1, 2)])


@pytest.mark.parametrize("ahead", [1, 100])
def test_tails_are_taken_in_whether_they_are_read_ahead_or_not(data: Path, ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One pack is gone by the time it is read, one is damaged: the others are taken in, in order."""
    monkeypatch.setattr("archive.flow.following.TAILS_AHEAD", ahead)
    objects = [make_object(number, 1, 1) for number in range(1, 7)]
    with living(settings_of(data)) as life:
        for one in objects:
            life.send(one)
            life.packer.pack_now()
    damaged, gone = pack_files(data)[1], pack_files(data)[3]
    damaged.chmod(0o640)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    read_ahead = threading.Event()

    def vanishing(tier: Tier, name: PackName) -> TailBytes:
        if threading.current_thread() is not threading.main_thread():
            read_ahead.set()
        if name.sequence == 4:
            gone.unlink(missing_ok=True)
        return fetch_pack_tail(tier, name)

    monkeypatch.setattr("archive.flow.following.fetch_pack_tail", vanishing)
    report = rebuild_index(settings_of(data))
    assert read_ahead.is_set() == (ahead == 1)
    assert report.packs_adopted == 4
    (text,) = report.damaged
    assert text.startswith(f"pack {NAME}/000000000/000000000002-")
    with living(settings_of(data)) as life:
        life.assert_served([one for number, one in enumerate(objects) if number not in (1, 3)])


def two_nodes(tmp_path: Path) -> tuple[Settings, Settings]:
    one, two = (allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": f"file://{tmp_path}/tier"}) for name in "ab")
    return one, two


def break_tail(pack: Path) -> bytes:
    """What it held before."""
    pack.chmod(0o640)
    good = pack.read_bytes()
    pack.write_bytes(good[:-40] + bytes([good[-40] ^ 1]) + good[-39:])
    return good


@pytest.mark.parametrize("how", ["start", "following"])
def test_a_pack_that_was_damaged_is_taken_in_once_it_is_mended(tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = two_nodes(tmp_path)
    recover(two)
    sent = [make_object(1, 1, 1), make_object(2, 1, 1)]
    with living(one) as first, living(two) as second:
        pack_each(first, sent[0])
        (pack,) = (tmp_path / "tier").rglob("*.zip")
        good = break_tail(pack)
        assert len(adopt_packs(second.home, own=False).damaged) == 1
        pack_each(first, sent[1])
        assert adopt_packs(second.home, own=False).adopted == 1
        pack.write_bytes(good)
        assert adopt_packs(second.home, own=False).adopted == 0, "it does not look at every pack each time"
    assert ["the next start" in finding.detail for finding in verify(two)] == [True]
    if how == "start":
        assert recover(two).packs_adopted == 1
    with living(two) as second:
        monkeypatch.setattr("archive.flow.following.LOOK_BACK_SECONDS", 0.0)
        assert adopt_packs(second.home, own=False).adopted == (how == "following")
        second.assert_served(sent)
    assert verify(two) == []


def test_a_pack_that_comes_after_the_one_that_supersedes_it_is_superseded(tmp_path: Path) -> None:
    """One with an object, and one with nothing but a deletion."""
    one, two = two_nodes(tmp_path)
    recover(two)
    with living(one) as first:
        sent = pack_each(first, *(make_object(1, 1, number) for number in range(3)))
        delete(first, sent[2].sop_instance_uid)
        first.packer.pack_now()
        packs = sorted((tmp_path / "tier").rglob("*.zip"))
        good = {pack: break_tail(pack) for pack in (packs[0], packs[3])}
        assert len(recover(two).damaged) == 2
        for pack, data in good.items():
            pack.write_bytes(data)
        compact(first, grace_seconds=3600.0)
        for pack in good:
            break_tail(pack)
        assert len(recover(two).damaged) == 2
        for pack, data in good.items():
            pack.write_bytes(data)
        assert recover(two).packs_adopted == 2
        assert verify(two) == []
        assert delete_superseded(first.home, 0.0) == []
    with living(two) as second:
        delete_superseded(second.home, 0.0)
        second.assert_served(sent[:2])
        with second.home.index.packed.environment.reading() as t:
            assert second.home.index.packed.counts(t)["packs"] == 1
    assert verify(two) == []


@pytest.mark.parametrize("comes_late", [False, True])
def test_content_that_went_on_twice_while_the_pack_between_was_damaged_is_found(tmp_path: Path, comes_late: bool) -> None:
    one, two = two_nodes(tmp_path)
    with living(one) as first:
        sent = pack_each(first, *(make_object(1, 1, number) for number in range(2)))
        recover(two)
        compact(first, grace_seconds=3600.0)
        between = max((tmp_path / "tier").rglob("*.zip"))
        good = break_tail(between)
        assert len(recover(two).damaged) == 1
        between.write_bytes(good)
        sent += pack_each(first, make_object(1, 1, 2))
        compact(first, grace_seconds=3600.0)
        break_tail(between)
        assert recover(two).packs_adopted == 2
        between.write_bytes(good)
        if comes_late:
            assert recover(two).packs_adopted == 1
        assert delete_superseded(first.home, 0.0) == []
    with living(two) as second:
        delete_superseded(second.home, 0.0)
        second.assert_served(sent)
    assert verify(two) == []
