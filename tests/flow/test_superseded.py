"""Packs whose content went on in others: how long they stay, what must be proved first, what a second node sees."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from archive.disk import Bytes
from archive.errors import Damaged, Exhausted, Unavailable, UnknownFormat
from archive.flow import following, housekeeping, packing
from archive.flow.check import verify
from archive.flow.compaction import Compactor
from archive.flow.following import Followed, adopt_packs
from archive.flow.housekeeping import Housekeeping
from archive.flow.recovery import recover
from archive.flow.superseded import Superseded, delete_superseded
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, TailBytes, parse_tail
from archive.tier.directory import DirectoryTier
from tests.flow.compacting import allowed, compact, delete, pack_each
from tests.flow.objects import NAME, Life, living, make_object, pack_files
from tests.flow.test_packing import wait_for

TARGET = {"pack_bytes_target": 1 << 20}


def test_old_packs_rest_until_their_grace_is_over(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        assert compact(life, 3600).packs_waiting == 2
        assert len(pack_files(data)) == 3
        assert delete_superseded(life.home, 3600) == []
        assert len(pack_files(data)) == 3
    assert verify(settings) == []
    recover(settings)
    with living(settings) as life:
        assert delete_superseded(life.home, 0) == []
        assert len(pack_files(data)) == 1
        life.assert_served([make_object(1, 1, 1), make_object(1, 1, 2)])


def damage(path: Path, needle: bytes) -> None:
    path.chmod(0o640)
    data = bytearray(path.read_bytes())
    data[data.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_pack_is_left_as_it_is_and_the_others_are_joined(data: Path) -> None:
    with living(allowed(data)) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
    damage(pack_files(data)[1], sent[1].data_set)
    with living(allowed(data)) as life:
        report = compact(life)
        assert (report.packs_read, report.packs_written) == (2, 1)
        assert len(report.kept) == 1 and "000000000002" in report.kept[0]
        life.assert_served([sent[0], sent[2]])
        with pytest.raises(Damaged):
            life.received(sent[1])
        assert [entry.name.sequence for entry in life.home.tier.list_packs(NAME)] == [2, 4]


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_the_old_packs_stay_where_the_new_one_is_not_whole(data: Path, harm: str) -> None:
    with living(allowed(data)) as life:
        sent = pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        compact(life, 3600)
    if harm == "flipped":
        damage(pack_files(data)[2], sent[0].data_set)
    else:
        pack_files(data)[2].unlink()
    with living(allowed(data)) as life:
        assert len(delete_superseded(life.home, 0)) == 2
        assert [entry.name.sequence for entry in life.home.tier.list_packs(NAME)][:2] == [1, 2]


def known(life: Life) -> list[int]:
    with life.home.index.packed.environment.reading() as t:
        return [info.name.sequence for info in life.home.index.packed.packs(t)]


def test_old_packs_go_although_packing_fails(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a quota is reached, which they fill."""
    monkeypatch.setattr(packing, "RETRY_SECONDS", 0.02)
    settings = allowed(data, packer={"quiet_seconds": 0, "follow_seconds": 0.05}, compaction={"grace_seconds": 0})
    with living(settings) as life:
        pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        compact(life, 3600)
        life.send(make_object(2, 1, 1))
        stop = threading.Event()
        with mock.patch.object(DirectoryTier, "put", side_effect=Exhausted("a quota is reached")):
            thread = threading.Thread(target=life.packer.run, args=(stop,))
            thread.start()
            wait_for(lambda: len(pack_files(data)) == 1)
            stop.set()
            thread.join(20)
        assert known(life) == [3]
        with life.home.index.pending.environment.reading() as t:
            assert "a quota is reached" in life.home.index.pending.problem(t)


@pytest.mark.parametrize("failing", ["rewrite_held", "adopt_packs", "delete"])
def test_what_fails_ends_nothing_else(life: Life, failing: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    steps = {
        "rewrite_held": mock.Mock(return_value=0),
        "adopt_packs": mock.Mock(return_value=Followed()),
        "delete": mock.Mock(return_value=iter(())),
    }
    steps[failing].side_effect = UnknownFormat("a pack of format 9")
    for name, step in steps.items():
        monkeypatch.setattr(Superseded if name == "delete" else housekeeping, name, step)
    Housekeeping(life.home).tend_now()
    assert [step.call_count for step in steps.values()] == [1, 1, 1]
    assert "a pack of format 9" in caplog.text


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the packs that are read, from here on."""
    out: list[int] = []
    stream = DirectoryTier.stream

    def noted(self: DirectoryTier, name: PackName, offset: int, length: int) -> Iterator[Bytes]:
        out.append(name.sequence)
        return stream(self, name, offset, length)

    monkeypatch.setattr(DirectoryTier, "stream", noted)
    return out


def test_old_packs_go_one_by_one_so_that_packing_need_not_wait_for_all(data: Path, streamed: list[int]) -> None:
    with living(allowed(data, compaction={"grace_seconds": 0})) as life:
        pack_each(life, *(make_object(1, 1, number) for number in range(3)))
        compact(life, 3600)
        streamed.clear()
        tending = Housekeeping(life.home)
        tending.tend_now()
        for left in [2, 3, 4], [3, 4], [4], [4]:
            assert known(life) == [entry.name.sequence for entry in life.home.tier.list_packs(NAME)] == left
            tending.tend()
        assert streamed == [4], "what was whole a moment ago is not read for each of them"


def test_deleting_old_packs_ends_when_the_node_stops(data: Path) -> None:
    with living(allowed(data, compaction={"grace_seconds": 0})) as life:
        pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        compact(life, 3600)
        stop = threading.Event()
        stop.set()
        Housekeeping(life.home).tend_now(stop)
        assert known(life) == [1, 2, 3]


def test_a_new_pack_that_stays_bad_is_not_read_over_and_over(data: Path, streamed: list[int]) -> None:
    with living(allowed(data, compaction={"grace_seconds": 0})) as life:
        sent = pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        compact(life, 3600)
        damage(pack_files(data)[2], sent[0].data_set)
        streamed.clear()
        tending = Housekeeping(life.home)
        for _ in range(5):
            tending.tend_now()
        assert (streamed, known(life)) == ([3], [1, 2, 3])


# --- a second node


def test_a_node_with_a_newer_version_does_not_stop_others_from_being_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tier = f"file://{tmp_path}/tier"
    one, two, three = (allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": tier}) for name in ("a", "b", "c"))

    def newer(tail: TailBytes) -> PackTail:
        parsed = parse_tail(tail)
        if parsed.header["node_name"] == "a":
            raise UnknownFormat("a pack of format 9")
        return parsed

    with living(one) as first, living(two) as second, living(three) as third:
        pack_each(first, make_object(1, 1, 1))
        sent = pack_each(second, make_object(2, 1, 1))
        monkeypatch.setattr(following, "parse_tail", newer)
        assert adopt_packs(third.home, own=False).damaged == ["packs of node a are not followed: a pack of format 9"]
        third.assert_served(sent)


def test_a_second_node_follows(tmp_path: Path) -> None:
    tier = f"file://{tmp_path}/tier"
    one, two = (allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": tier}) for name in ("one", "two"))
    with living(one) as first, living(two) as second:
        sent = [make_object(1, 1, number) for number in range(4)]
        for part in sent[:2], sent[2:]:
            first.send(*part)
            first.packer.pack_now()
        adopt_packs(second.home, own=False)
        second.assert_served(sent)
        delete(first, sent[3].sop_instance_uid)
        first.packer.pack_now()
        compact(first)  # Without any grace.
        second.home.pool._packs.clear()  # What it had mapped would still do.
        with pytest.raises(Unavailable):  # It looks again soon; nothing is called damaged, or not found.
            second.received(sent[0])
        Housekeeping(second.home).tend_now()
        second.assert_served(sent[:3])
        assert len(second.retrieval.instances("1.2.1")) == 3
        with second.home.index.packed.environment.reading() as t:
            assert second.home.index.packed.superseded(t) == []
            assert second.home.index.packed.counts(t)["packs"] == 1
        assert compact(second).packs_read == 0, "packs of others are theirs"
    assert verify(two) == []


def test_what_is_found_in_no_other_pack_yet_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a pack's content went on when its mount was away for a moment."""
    one, two = (
        allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": f"file://{tmp_path}/tier"}, packer=TARGET)
        for name in ("one", "two")
    )
    with living(one) as first, living(two) as second:
        sent = [make_object(1, 1, number, pixel_bytes=400_000) for number in range(3)]
        for part in sent[:2], sent[2:]:
            first.send(*part)
            first.packer.pack_now()
        adopt_packs(second.home, own=False)
        with first.home.index.packed.environment.reading() as t:
            old = list(first.home.index.packed.packs(t))
        publish = first.packer.publish
        published: list[PackName] = []

        def once(*arguments: Any) -> PackName:
            if published:
                raise Unavailable("the tier is away after the first of two packs")
            published.append(publish(*arguments))
            return published[0]

        compactor = Compactor(first.home, first.packer)
        with monkeypatch.context() as patch:
            patch.setattr(first.packer, "publish", once)
            with pytest.raises(Unavailable):
                compactor._write(old)
        adopt_packs(second.home, own=False)
        (tmp_path / "tier").rename(tmp_path / "away")
        (tmp_path / "tier").mkdir()
        Housekeeping(second.home).tend_now()
        (tmp_path / "tier").rmdir()
        (tmp_path / "away").rename(tmp_path / "tier")
        second.home.pool._packs.clear()
        second.home.index.packed._packs.clear()  # As in another process.
        second.assert_served(sent)
        compactor.compact(grace_seconds=0.0)
        Housekeeping(second.home).tend_now()
        second.assert_served(sent)
        with second.home.index.packed.environment.reading() as t:
            assert second.home.index.packed.superseded(t) == []
    assert verify(two) == []
