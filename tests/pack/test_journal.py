"""The journal's folder: numbers, sealing, release and recycling, by one process and by several."""

import errno
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from archive.disk import Disk
from archive.errors import Exhausted, NotFound
from archive.pack.checksum import crc32
from archive.pack.frame import SEGMENT_HEADER_BYTES, Kind
from archive.pack.journal import Journal, Location
from archive.pack.journal_reader import open_record
from tests.kit import ROOT
from tests.pack.build import NODE, SEGMENT_BYTES, RecordingDisk, append_instance, make_instance, whole_sequences

Open = Callable[..., Journal]
FIRST_RECORD = Location(1, SEGMENT_HEADER_BYTES)


@pytest.fixture
def open_journal(tmp_path: Path) -> Iterator[Open]:
    """Journals over `tmp_path/journal`, of 64 KiB segments; all are closed at the end."""
    opened: list[Journal] = []

    def open_one(slot: str = "a", **options: object) -> Journal:
        opened.append(Journal(tmp_path / "journal", NODE, slot, **{"segment_bytes": SEGMENT_BYTES, **options}))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for journal in opened:
        journal.close()


def names(journal: Journal) -> dict[str, list[str]]:
    return {folder: sorted(p.name for p in (journal.folder / folder).iterdir()) for folder in ("open", "sealed", "spare", "incoming")}


def fill(journal: Journal, *sequences: int, length: int = 18_000) -> list[int]:
    """Segments in which the instances came to lie; three of them fill one."""
    return [append_instance(journal, make_instance(s, bytes([s]) * length)).segment for s in sequences]


# --- numbers


def test_no_number_is_given_twice_over_processes(tmp_path: Path) -> None:
    take = (
        "import sys; from pathlib import Path; from archive.pack.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]), bytes(16), sys.argv[2])\n"
        "print('ready', flush=True), sys.stdin.read()\n"
        "print(*[journal.next_sequence() for _ in range(3000)])\n"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", take, str(tmp_path / "journal"), f"slot-{n}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for n in range(3)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:  # all at once
        assert process.stdin is not None
        process.stdin.close()
        process.stdin = None
    each = [[int(word) for word in process.communicate(timeout=30)[0].split()] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0]
    assert all(numbers == sorted(numbers) for numbers in each)
    assert sorted(sum(each, [])) == list(range(1, 9001))


def test_numbers_are_raised_and_never_lowered(open_journal: Open) -> None:
    journal = open_journal()
    journal.raise_counters(100, 50)
    journal.raise_counters(10, 5)
    assert journal.next_sequence() == 101
    assert fill(journal, 1) == [51]


def test_counters_that_were_cut_off_begin_anew(open_journal: Open) -> None:
    """Recovery raises them above all that is at rest."""
    first = open_journal()
    first.close()
    (first.folder / "counters").write_bytes(b"\1")
    assert open_journal().next_sequence() == 1


# --- sealing


def test_a_full_segment_is_sealed(open_journal: Open) -> None:
    journal = open_journal()
    assert fill(journal, 1, 2, 3, 4) == [1, 1, 1, 2]
    assert names(journal)["open"] == ["000000000002.a.seg"]
    assert names(journal)["sealed"] == ["000000000001.seg"]
    assert journal.sealed() == [1]
    assert [number for number, _ in journal.segments()] == [1, 2]
    assert whole_sequences(journal.path_of(1)) == [1, 2, 3]


def test_a_segment_is_not_sealed_before_each_of_its_records_is_done(open_journal: Open) -> None:
    """What is durable and cannot be found yet must not be released."""
    journal = open_journal()
    waiting = [journal.append(Kind.INSTANCE, sequence, [b"x" * 25_000], crc32(b"x" * 25_000), b"{}") for sequence in (1, 2)]
    fill(journal, 3)
    assert journal.sealed() == []
    for appended in waiting:
        journal.sync(appended)
    journal.done(waiting[1])
    assert journal.sealed() == []
    journal.done(waiting[0])
    assert journal.sealed() == [1]


def test_close_seals_when_the_last_record_is_done(open_journal: Open) -> None:
    journal = open_journal()
    appended = journal.append_small(Kind.PLAN, 1, b"{}")
    journal.close()
    assert journal.sealed() == []
    journal.done(appended)
    assert journal.sealed() == [1]


def test_what_cannot_be_sealed_at_the_end_is_sealed_by_the_next(open_journal: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal()
    fill(journal, 1)
    with monkeypatch.context() as patch:
        patch.setattr(journal.disk, "rename", mock.Mock(side_effect=OSError(errno.EIO, "Input/output error")))
        journal.close()
    assert journal._counters < 0, "its descriptors are given back"
    assert names(journal)["open"] == ["000000000001.a.seg"]
    assert open_journal("a").sealed() == [1]


def test_a_process_seals_what_the_last_one_in_its_slot_left_open(open_journal: Open, tmp_path: Path) -> None:
    left = Journal(tmp_path / "journal", NODE, "a", SEGMENT_BYTES)  # as a killed process leaves it
    fill(left, 1)
    fill(open_journal("b"), 2)
    fill(open_journal("a"), 3)
    assert left.sealed() == [1]
    assert names(left)["open"] == ["000000000002.b.seg", "000000000003.a.seg"]


def test_an_object_larger_than_a_segment_gets_one_that_is_large_enough(open_journal: Open) -> None:
    journal = open_journal()
    assert fill(journal, 1, 2, 3, length=200_000) == [1, 2, 3]
    assert whole_sequences(journal.path_of(2), 2) == [2]


def test_a_process_removes_what_the_last_one_in_its_slot_never_finished(open_journal: Open, tmp_path: Path) -> None:
    left = Journal(tmp_path / "journal", NODE, "a", SEGMENT_BYTES)  # as a killed process leaves it
    left.stream().write(b"x")
    open_journal("b")
    assert names(left)["incoming"] == ["000000000001.a.part"]
    open_journal("a")
    assert names(left)["incoming"] == []


def test_left_overs_of_large_objects_are_removed_by_name(open_journal: Open) -> None:
    journal = open_journal()
    journal.stream().write(b"x")
    assert journal.delete_left_over(lambda slot: slot == "b") == []
    assert journal.delete_left_over() == ["000000000001.a.part"]
    assert names(journal)["incoming"] == []


# --- failures


class FailingSync(Disk):
    """Fails the n-th sync of a file."""

    def __init__(self, fail: int) -> None:
        self.syncs, self.fail = 0, fail

    def sync(self, fd: int) -> None:
        self.syncs += 1
        if self.syncs == self.fail:
            raise OSError(errno.EIO, "Input/output error")
        super().sync(fd)


def test_a_segment_that_could_not_be_synced_is_retired(open_journal: Open) -> None:
    disk = FailingSync(fail=3)  # the new segment's header, the first record, the second
    journal = open_journal(disk=disk)
    fill(journal, 1)
    with pytest.raises(Exhausted, match="could not be synced"):
        fill(journal, 2)
    assert disk.syncs == 3
    assert fill(journal, 3) == [2]
    assert journal.sealed() == [1]
    assert whole_sequences(journal.path_of(2), 2) == [3]
    journal.release(1)
    assert names(journal)["spare"] == [], "it is not written to in another life either"


def test_a_full_disk_is_said_and_does_not_stop_what_comes_later(open_journal: Open) -> None:
    journal = open_journal(disk=RecordingDisk(fail="allocate", error=errno.ENOSPC))
    with pytest.raises(Exhausted, match="disk is full"):
        fill(journal, 1)
    assert names(journal) == {"open": [], "sealed": [], "spare": [], "incoming": []}
    assert fill(journal, 1) == [2]


def test_a_write_that_failed_is_written_over(open_journal: Open) -> None:
    disk = RecordingDisk()
    journal = open_journal(disk=disk)
    fill(journal, 1)
    disk.fail, disk.error = "write", errno.ENOSPC
    with pytest.raises(Exhausted, match="disk is full"):
        fill(journal, 2)
    assert fill(journal, 3) == [1]
    assert whole_sequences(journal.path_of(1)) == [1, 3]


# --- release and recycling


def test_a_released_segment_lives_again_and_its_old_records_do_not(open_journal: Open) -> None:
    journal = open_journal()
    fill(journal, 1, 2, 3, 4, 5, 6)
    inode = journal.path_of(1).stat().st_ino
    journal.release(1)
    assert names(journal)["spare"] == ["000000000001.seg"]
    fill(journal, 7)
    assert names(journal)["spare"] == []
    assert journal.path_of(3).stat().st_ino == inode
    assert whole_sequences(journal.path_of(3), 3) == [7]


def test_no_more_spare_segments_are_kept_than_asked_for(open_journal: Open) -> None:
    journal = open_journal(spare_segments_max=1)
    fill(journal, *range(1, 8))
    journal.release(1)
    journal.release(2)
    assert names(journal)["spare"] == ["000000000001.seg"]
    with pytest.raises(FileNotFoundError):
        journal.path_of(2)


def test_a_segment_of_another_size_is_not_kept(open_journal: Open) -> None:
    journal = open_journal()
    fill(journal, 1, 2, length=200_000)
    journal.release(1)
    assert names(journal)["spare"] == []


def test_a_segment_that_someone_reads_is_removed_and_not_recycled(open_journal: Open) -> None:
    journal = open_journal()
    fill(journal, 1, 2, 3, 4)
    first = make_instance(1, bytes([1]) * 18_000)
    with open_record(journal, FIRST_RECORD, 1) as opened:
        journal.release(1)
        assert names(journal)["spare"] == []
        fill(journal, *range(10, 20))
        assert bytes(opened.view(0, first.descriptor.length)) == first.data
    with pytest.raises(NotFound, match="segment 1 is released"), open_record(journal, FIRST_RECORD, 1):
        pass


def test_a_spare_segment_that_someone_reads_is_not_written_over(open_journal: Open) -> None:
    """The reader opened it before it was released and locks it after."""
    journal = open_journal()
    fill(journal, 1, 2, 3, 4)
    fd = journal.disk.open_read(journal.path_of(1))
    journal.release(1)
    assert names(journal)["spare"] == ["000000000001.seg"]
    assert journal.disk.lock(fd, shared=True, wait=False)
    fill(journal, 5, 6, 7)
    assert names(journal)["spare"] == ["000000000001.seg"]
    assert whole_sequences(journal.folder / "spare" / "000000000001.seg") == [1, 2, 3]
    journal.disk.close(fd)
    fill(journal, 8, 9, 10)
    assert names(journal)["spare"] == []


class Meddling(Disk):
    """Lets another writer act right after a spare segment was opened."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act: Callable[[], object] | None = act

    def open_write(self, path: Path) -> int:
        fd = super().open_write(path)
        if path.parent.name == "spare" and self.act:
            act, self.act = self.act, None
            act()
        return fd


@pytest.mark.parametrize("done_with", [False, True])
def test_two_writers_do_not_take_one_spare_segment(open_journal: Open, done_with: bool) -> None:
    """The slower one finds it locked, or, where the quicker one has closed it by then, gone."""
    quick = open_journal("quick")
    fill(quick, 1, 2, 3)
    quick.close()
    quick.release(1)
    quick = open_journal("quick")

    def take() -> None:
        fill(quick, 4)
        if done_with:
            quick.close()

    slow = open_journal("slow", disk=Meddling(take))
    fill(slow, 5)
    segments = dict(slow.segments())
    assert len(segments) == 2
    assert len({path.stat().st_ino for path in segments.values()}) == 2
    assert sorted(sum((whole_sequences(path, number) for number, path in segments.items()), [])) == [4, 5]
    assert names(slow)["spare"] == []


# --- spares made ahead


def test_spares_are_made_ahead_up_to_a_bound_and_used(open_journal: Open) -> None:
    journal = open_journal(spare_segments_max=2)
    assert [journal.make_spare() for _ in range(3)] == [True, True, False]
    made = names(journal)["spare"]
    assert names(journal)["incoming"] == []
    for name in made:
        file = (journal.folder / "spare" / name).stat()
        assert file.st_size == SEGMENT_BYTES
        assert file.st_blocks * 512 >= SEGMENT_BYTES
    fill(journal, 1)
    assert names(journal)["spare"] == made[1:]


def test_a_spare_is_synced_piece_by_piece_with_room_for_others_between(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.pack.journal.ZEROS_BYTES", SEGMENT_BYTES // 2)
    disk = RecordingDisk()
    journal = Journal(tmp_path / "journal", NODE, "a", SEGMENT_BYTES, disk=disk)
    disk.calls.clear()
    journal.make_spare(lambda: disk.calls.append("between"))
    assert [call.split()[0] for call in disk.calls if call.endswith(".part") or call == "between"] == [
        "create",
        *("write", "sync", "between") * 2,
    ]
    journal.close()


def test_a_spare_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    class Full(Disk):
        def sync(self, fd: int) -> None:
            raise OSError(errno.EIO, "broken")

    journal = Journal(tmp_path / "journal", NODE, "a", SEGMENT_BYTES, disk=Full())
    with pytest.raises(OSError, match="broken"):
        journal.make_spare()
    assert names(journal)["spare"] == names(journal)["incoming"] == []
    journal.close()


def test_a_spare_of_another_size_is_removed(open_journal: Open) -> None:
    open_journal("a").make_spare()
    journal = open_journal("b", segment_bytes=2 * SEGMENT_BYTES)
    fill(journal, 1)
    assert names(journal)["spare"] == []
    assert len(names(journal)["open"]) == 1
