"""Rows R of the crash table in docs/recovery.md: what was refused stays refused, whatever of it reached the disk."""

import errno
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from archive.disk import Bytes
from archive.errors import ArchiveError, Exhausted, NotFound
from archive.flow import ingest
from archive.flow.check import verify
from archive.flow.deletion import Deleter
from archive.flow.recovery import recover
from archive.flow.repair import How, repair
from archive.index.located import SeriesKey
from archive.index.packed_writer import PackedWriter
from archive.index.pending import PendingIndex
from archive.pack.descriptor import Void
from archive.pack.frame import Kind
from archive.pack.journal_reader import Found, scan_segment
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.doomed import Doomed, restarted
from tests.crash.rows import LARGE, SERIES, SMALL, assert_sent_again, flip
from tests.flow.objects import Life, Object, begin_at_once

ALLOWED = {"deletion": {"allowed": True}}
OPEN = "(sync|write) .*/open/.*seg"


class FailingDisk(CuttingDisk):
    """Calls fail by what they are; what a write or a sync that fails should have done is done all the same."""

    def __init__(self) -> None:
        super().__init__()
        self._pattern_to_fail: re.Pattern[str] | None = None
        self._times = 0

    def fail(self, pattern: str, times: int = 1) -> None:
        self._pattern_to_fail, self._times = re.compile(pattern), times

    def _count(self, what: str) -> None:
        super()._count(what)
        if self._times and self._pattern_to_fail and self._pattern_to_fail.search(what):
            self._times -= 1
            raise OSError(errno.EIO, "Input/output error", what)

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        try:
            return super().write(fd, parts, offset)
        except OSError:
            super(CuttingDisk, self).write(fd, parts, offset)
            raise

    def sync(self, fd: int) -> None:
        try:
            super().sync(fd)
        except OSError:
            self._synced[self._open[fd]] = self.read(fd, self.size(fd), 0)
            raise


@pytest.fixture
def doomed(tmp_path: Path) -> Doomed:
    return Doomed(tmp_path / "data", FailingDisk(), **ALLOWED)


def fail(doomed: Doomed, pattern: str, times: int = 1) -> None:
    assert isinstance(doomed.disk, FailingDisk)
    doomed.disk.fail(pattern, times)


def refuse(doomed: Doomed, one: Object, pattern: str, times: int = 1) -> None:
    fail(doomed, pattern, times)
    with pytest.raises((ArchiveError, OSError)):
        doomed.life.send(one)


def delete(life: Life, one: Object) -> None:
    Deleter(life.home).delete([one.sop_instance_uid], "test")


def voids(doomed: Doomed) -> list[Void]:
    found = [i for n, path in doomed.life.home.journal.segments() for i in scan_segment(n, path, lambda _: True, only=(Kind.VOID,))]
    return [Void.from_bytes(item.payload) for item in found if isinstance(item, Found)]


@pytest.mark.parametrize("loss", ["nothing", "unsynced", "unsynced bytes"])
@pytest.mark.parametrize(
    ("one", "call"),
    [(SMALL, "write .*/open/"), (SMALL, "sync .*/open/.*seg"), (LARGE, "sync folder .*/open")],
    ids=["written", "synced", "named"],
)
def test_R3_of_two_records_of_one_object_a_deletion_names_the_acknowledged_one(doomed: Doomed, one: Object, call: str, loss: Loss) -> None:
    doomed.life.send(*SERIES)
    refuse(doomed, one, call)
    assert_sent_again(doomed.life, one, "new")
    delete(doomed.life, one)
    doomed.die(loss)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        with pytest.raises(NotFound):
            life.received(one)
        life.assert_served(SERIES)
        assert_sent_again(life, one, "new")
        life.packer.pack_now()
    assert verify(doomed.settings) == []


def test_R3_what_could_not_be_published_is_refused(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(PendingIndex, "add", _full)
        for one in (SMALL, LARGE):
            with pytest.raises(Exhausted):
                doomed.life.send(one)
    doomed.die("unsynced")
    with restarted(doomed.settings) as (report, life):
        assert (report.instances_pending, report.damaged) == (0, [])
        assert_sent_again(life, SMALL, "new")
        assert_sent_again(life, LARGE, "new")


def _full(*_: object, **__: object) -> None:
    raise Exhausted("the index has reached index.map_bytes_max")


@pytest.mark.parametrize("call", ["write .*/open/", "sync .*/open/.*seg"])
def test_R3_a_deletion_that_failed_is_never_done(doomed: Doomed, call: str) -> None:
    doomed.life.send(*SERIES)
    fail(doomed, call)
    with pytest.raises((ArchiveError, OSError)):
        delete(doomed.life, SERIES[1])
    assert doomed.life.send(SERIES[1])[0].outcome == "same"
    doomed.die("unsynced")
    with restarted(doomed.settings) as (_, life):
        life.assert_served(SERIES)


def test_R3_a_deletion_that_the_index_did_not_take_is_never_done(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed.life.send(*SERIES)
    doomed.life.packer.pack_now()
    with monkeypatch.context() as patch:
        patch.setattr(PackedWriter, "delete", _full)
        with pytest.raises(Exhausted):
            delete(doomed.life, SERIES[1])
    doomed.die("unsynced")
    with restarted(doomed.settings) as (_, life):
        life.assert_served(SERIES)


def test_D7_what_a_deletion_left_behind_is_not_taken_for_the_same(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed.life.send(*SERIES)
    with monkeypatch.context() as patch:
        patch.setattr(PendingIndex, "remove", _full)
        with pytest.raises(Exhausted):
            delete(doomed.life, SERIES[1])
    assert doomed.life.send(SERIES[1])[0].outcome == "new"
    doomed.life.packer.pack_now()
    doomed.die("unsynced")
    with restarted(doomed.settings) as (_, life):
        life.assert_served(SERIES)
        delete(life, SERIES[1])
    recover(doomed.settings)
    assert verify(doomed.settings) == []
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SERIES[1])


@pytest.mark.parametrize("calls", [2, 3])
def test_R1_what_is_not_void_yet_is_so_before_anything_else(doomed: Doomed, calls: int) -> None:
    """The sync of the object fails, and that of its void record (twice: with the next object)."""
    refuse(doomed, SMALL, "sync .*/open/.*seg", times=calls)
    if calls == 3:
        with pytest.raises(Exhausted):
            doomed.life.send(SMALL)
    assert_sent_again(doomed.life, SMALL, "new")
    delete(doomed.life, SMALL)
    doomed.die("nothing")
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SMALL)


def test_R1_nothing_is_deleted_before_what_was_refused_is_void(doomed: Doomed) -> None:
    doomed.life.send(SMALL)
    refuse(doomed, LARGE, "sync folder .*/open|sync .*/open/.*seg", times=3)
    with pytest.raises(OSError, match="Input/output"):
        delete(doomed.life, SMALL)
    doomed.life.assert_served([SMALL])
    delete(doomed.life, SMALL)


@pytest.mark.parametrize("before", ["R1", "R2"])
@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
def test_R1_and_R2_cut_before_the_void_record_is_durable(doomed: Doomed, before: str, loss: Loss) -> None:
    fail(doomed, "sync .*/open/.*seg")
    # The segment whose sync failed takes no more: the void record is the first in the next one.
    doomed.die_before("rename .*/open/" if before == "R1" else "sync .*/open/.*seg", lambda: doomed.life.send(SMALL), loss, skip=1)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.send(SMALL)
        life.assert_served([SMALL])
        delete(life, SMALL)
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SMALL)


def test_R3_the_same_object_twice_at_once_is_one_record(doomed: Doomed) -> None:
    first, second = begin_at_once([doomed.life.ingest] * 2, SMALL)
    accepted = [first.commit(), second.commit()]
    assert [a.outcome for a in accepted] == ["new", "same"]
    assert accepted[0].revision == accepted[1].revision
    delete(doomed.life, SMALL)
    doomed.die("unsynced")
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SMALL)


def test_R3_a_damaged_copy_does_not_come_back_when_its_successor_is_deleted(doomed: Doomed) -> None:
    doomed.life.send(SMALL)
    (segment,) = (doomed.data / "journal/open").iterdir()
    flip(segment, SMALL.data_set)
    assert_sent_again(doomed.life, SMALL, "new")
    delete(doomed.life, SMALL)
    doomed.die("nothing")
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        assert life.home.waiting() == (0, 0)


def test_R4_void_records_go_with_what_they_name(doomed: Doomed) -> None:
    refuse(doomed, SMALL, "sync .*/open/.*seg")
    ((segment, _),) = voids(doomed)[0].voided
    doomed.life.send(*SERIES)
    doomed.life.packer.pack_now()
    assert segment not in doomed.life.home.journal.sealed()
    doomed.die("unsynced")
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.packer.pack_now()
        assert list(life.home.journal.segments()) == []
        with life.home.index.pending.environment.reading() as t:
            assert list(life.home.index.pending.voids(t)) == []


def test_R4_cut_between_the_releases(doomed: Doomed) -> None:
    """The segment of what is void goes first; where the power takes that back, the void record is there too."""
    refuse(doomed, SMALL, "sync .*/open/.*seg")
    assert_sent_again(doomed.life, SMALL, "new")
    delete(doomed.life, SMALL)
    doomed.life.packer.pack_now()
    doomed.die_before("sync folder .*/sealed", doomed.life.packer.pack_now, "unsynced")
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SMALL)


def test_R4_a_start_that_releases_the_void_record_makes_the_earlier_release_durable(doomed: Doomed) -> None:
    doomed.life.send(*SERIES)
    fail(doomed, "sync .*/open/.*seg")
    with pytest.raises(ArchiveError):
        delete(doomed.life, SERIES[1])
    doomed.life.packer.pack_now()
    ((segment, _),) = voids(doomed)[0].voided
    assert segment not in dict(doomed.life.home.journal.segments()), "its release is not durable"
    doomed.die("nothing")
    second = Doomed(doomed.data, doomed.disk, **ALLOWED)  # Releases the segment of the void record, and writes over it.
    second.life.send(SMALL)
    second.die("unsynced")
    with restarted(doomed.settings) as (_, life):
        life.assert_served([*SERIES, SMALL])


@pytest.mark.parametrize("what", ["a refused deletion", "a refused copy of a deleted object"])
def test_R4_a_missing_segment_may_be_put_back(doomed: Doomed, what: str) -> None:
    """As rows X5 advises; the void record waits for it."""
    doomed.life.send(*SERIES)
    if what == "a refused deletion":
        fail(doomed, "sync .*/open/.*seg")
        with pytest.raises(ArchiveError):
            delete(doomed.life, SERIES[1])
    else:
        refuse(doomed, SMALL, "sync .*/open/.*seg")
    ((segment, _),) = voids(doomed)[0].voided
    if what == "a refused copy of a deleted object":
        assert_sent_again(doomed.life, SMALL, "new")
        delete(doomed.life, SMALL)
    doomed.end()
    recover(doomed.settings)
    path, away = doomed.data / "journal/sealed" / f"{segment:012d}.seg", doomed.data / "away.seg"
    path.rename(away)
    with restarted(doomed.settings) as (report, life):
        assert ["missing" in text for text in report.damaged] == [True]
        life.packer.pack_now()
    away.rename(path)
    with restarted(doomed.settings) as (_, life):
        life.assert_served(SERIES)
        with pytest.raises(NotFound):
            life.received(SMALL)


def killed(*_: object) -> None:
    raise Cut


@pytest.mark.parametrize("is_packed", [False, True])
def test_R5_the_second_record_of_an_object_is_made_void_by_the_next_start(
    doomed: Doomed, monkeypatch: pytest.MonkeyPatch, is_packed: bool
) -> None:
    first, second = begin_at_once([doomed.life.ingest] * 2, SMALL)
    doomed.life.send(*SERIES)
    first.commit()
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "refuse", killed)
        with pytest.raises(Cut):
            second.commit()
    doomed.die("nothing")
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, life.home.waiting()[0]) == ([], 4)
        if is_packed:
            with life.packer._lock:
                life.packer._pack([SeriesKey(SMALL.study_instance_uid, SMALL.series_instance_uid)], None, now=False)
        delete(life, SMALL)
    with restarted(doomed.settings) as (_, life), pytest.raises(NotFound):
        life.received(SMALL)


def test_R5_the_damaged_record_that_another_took_the_place_of_is_made_void_by_the_next_start(
    doomed: Doomed, monkeypatch: pytest.MonkeyPatch
) -> None:
    doomed.life.send(SMALL)
    (segment,) = (doomed.data / "journal/open").iterdir()
    flip(segment, SMALL.data_set)
    with monkeypatch.context() as patch:
        patch.setattr(ingest, "refuse", killed)
        with pytest.raises(Cut):
            doomed.life.send(SMALL)
    doomed.die("nothing")
    with restarted(doomed.settings) as (_, life):
        assert_sent_again(life, SMALL, "same")
        delete(life, SMALL)
    with restarted(doomed.settings) as (_, life):
        assert life.home.index.revisions(SMALL.sop_instance_uid) == []


def test_R3_repair_of_the_segment_keeps_it_void(doomed: Doomed) -> None:
    doomed.life.send(SERIES[0])
    refuse(doomed, SMALL, "write .*/open/")
    assert_sent_again(doomed.life, SMALL, "new")
    doomed.life.send(SERIES[1])
    delete(doomed.life, SMALL)
    doomed.die("nothing")
    recover(doomed.settings)
    (segment,) = (doomed.data / "journal/sealed").iterdir()
    flip(segment, SERIES[0].data_set)
    done = repair(doomed.settings, How(apply=True))
    assert (done.lost, done.left) == ([], [])
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served(SERIES[:2])
        with pytest.raises(NotFound):
            life.received(SMALL)
