"""One segment: what is durable when, one sync for all who wait, and what stays after a failure."""

import errno
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.errors import Exhausted
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.frame import HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind
from archive.pack.journal_reader import Found, scan_segment
from archive.pack.segment import LargeRecord, Segment, Syncer
from tests.pack.build import NODE, RecordingDisk, flipped, whole_sequences, without_repeats

CAPACITY = 16 * 1024


def start(folder: Path, disk: RecordingDisk) -> Segment:
    return Segment.start(disk, folder / "1.part", folder / "1.seg", 1, NODE, CAPACITY)


def append(segment: Segment, sequence: int, payload: bytes) -> int | None:
    return segment.append(Kind.INSTANCE, 0, sequence, [payload[:10], payload[10:]], crc32(payload), b"{}")


def seconds_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_segment_has_its_header_and_its_blocks_before_its_name(tmp_path: Path) -> None:
    disk = RecordingDisk()
    start(tmp_path, disk)
    assert disk.calls == [
        "create 1.part",
        "allocate 1.part",
        "write 1.part",
        "sync 1.part",
        "rename 1.part to 1.seg",
        f"sync_folder {tmp_path.name}",
    ]
    assert (tmp_path / "1.seg").stat().st_size == CAPACITY


@pytest.mark.parametrize("step", ["allocate", "write", "sync", "rename"])
def test_a_segment_that_cannot_be_started_leaves_nothing(tmp_path: Path, step: str) -> None:
    with pytest.raises(Exhausted, match="No space"):
        start(tmp_path, RecordingDisk(fail=step, error=errno.ENOSPC))
    assert list(tmp_path.iterdir()) == []


def test_records_lie_one_behind_the_other(tmp_path: Path) -> None:
    segment = start(tmp_path, RecordingDisk())
    payloads = {1: b"x" * 300, 2: b"y" * 1, 3: b"z" * 5000}
    offsets = [append(segment, sequence, payload) for sequence, payload in payloads.items()]
    found = [f for f in scan_segment(1, segment.path, lambda _: True) if isinstance(f, Found)]
    assert {f.header.sequence: f.payload for f in found} == payloads
    assert [f.location.offset for f in found] == offsets
    assert all(f.descriptor == b"{}" and not f.damage for f in found)
    assert [f.location.offset % 64 for f in found] == [0, 0, 0]


def test_what_does_not_fit_is_not_begun(tmp_path: Path) -> None:
    segment = start(tmp_path, RecordingDisk())
    exactly = CAPACITY - SEGMENT_HEADER_BYTES - HEADER_BYTES - 2
    assert append(segment, 1, b"x" * (exactly + 1)) is None
    assert segment.end == SEGMENT_HEADER_BYTES
    assert append(segment, 1, b"x" * exactly) == SEGMENT_HEADER_BYTES
    assert append(segment, 2, b"") is None
    assert segment.path.stat().st_size == CAPACITY
    assert whole_sequences(segment.path) == [1]


def test_the_rest_of_the_page_is_zeros_in_a_recycled_file(tmp_path: Path) -> None:
    """So that the kernel need not read it first; and an earlier life ends where this one does."""
    segment = start(tmp_path, RecordingDisk())
    with segment.path.open("r+b") as file:
        file.seek(SEGMENT_HEADER_BYTES)
        file.write(b"\xaa" * (CAPACITY - SEGMENT_HEADER_BYTES))
    append(segment, 1, b"x" * 300)
    data = segment.path.read_bytes()
    assert set(data[SEGMENT_HEADER_BYTES + HEADER_BYTES + 302 : 8192]) == {0}
    assert set(data[8192:]) == {0xAA}


class SlowSync(RecordingDisk):
    """A disk whose syncs wait to be let through."""

    def __init__(self) -> None:
        super().__init__()
        self.syncs = 0
        self.let_through = threading.Semaphore(0)

    def sync(self, fd: int) -> None:
        self.syncs += 1
        assert self.let_through.acquire(timeout=10)
        super().sync(fd)


def test_one_sync_serves_all_who_came_before_it_began(tmp_path: Path) -> None:
    disk = SlowSync()
    fd = disk.create(tmp_path / "file")
    syncer = Syncer(disk, fd)
    done: list[int] = []

    def write_and_sync(number: int) -> None:
        syncer.sync()
        done.append(number)

    first = threading.Thread(target=write_and_sync, args=(0,))
    first.start()
    seconds_until(lambda: disk.syncs == 1)
    others = [threading.Thread(target=write_and_sync, args=(n,)) for n in range(1, 9)]
    for thread in others:
        thread.start()
    time.sleep(0.05)
    assert disk.syncs == 1 and done == []
    disk.let_through.release()
    first.join(10)
    seconds_until(lambda: disk.syncs == 2)
    time.sleep(0.02)
    assert done == [0]  # who came while a sync ran is not served by it
    disk.let_through.release()
    for thread in others:
        thread.join(10)
    assert disk.syncs == 2
    assert sorted(done) == list(range(9))


def test_after_a_failed_sync_the_file_is_never_synced_again(tmp_path: Path) -> None:
    disk = RecordingDisk(fail="sync")
    segment = start(tmp_path, RecordingDisk())
    segment.syncer = Syncer(disk, segment.fd)
    for _ in range(3):
        with pytest.raises(Exhausted, match="could not be synced: Input/output error"):
            segment.syncer.sync()
    assert disk.calls == ["sync 1.seg"]


def test_a_failed_sync_fails_for_all_who_waited_for_it(tmp_path: Path) -> None:
    class Failing(SlowSync):
        def sync(self, fd: int) -> None:
            super().sync(fd)
            if self.syncs == 2:
                raise OSError(errno.EIO, "Input/output error")

    disk = Failing()
    syncer = Syncer(disk, disk.create(tmp_path / "file"))
    said: list[str] = []

    def sync() -> None:
        try:
            syncer.sync()
            said.append("synced")
        except Exhausted:
            said.append("failed")

    threads = [threading.Thread(target=sync) for _ in range(5)]
    threads[0].start()
    seconds_until(lambda: disk.syncs == 1)
    for thread in threads[1:]:
        thread.start()
    time.sleep(0.05)
    disk.let_through.release(2)
    for thread in threads:
        thread.join(10)
    assert sorted(said) == ["failed"] * 4 + ["synced"]
    assert disk.syncs == 2


# --- large objects


def large(folder: Path, disk: RecordingDisk) -> LargeRecord:
    return LargeRecord(disk, folder / "2.part", folder / "2.slot.seg", folder / "2.seg", 2, NODE)


PAYLOAD = bytes(range(256)) * 2000


def test_a_large_object_gets_its_headers_last_and_then_its_name(tmp_path: Path) -> None:
    disk = RecordingDisk()
    record = large(tmp_path, disk)
    for at in range(0, len(PAYLOAD), 100_000):
        record.write(PAYLOAD[at : at + 100_000])
    crc, blocks = record.finish()
    assert crc == crc32(PAYLOAD)
    assert blocks == [crc32(PAYLOAD[at : at + BLOCK_BYTES]) for at in range(0, len(PAYLOAD), BLOCK_BYTES)]
    assert (tmp_path / "2.part").read_bytes()[: SEGMENT_HEADER_BYTES + HEADER_BYTES] == bytes(SEGMENT_HEADER_BYTES + HEADER_BYTES)
    assert record.commit(Kind.INSTANCE, 7, crc, b'{"a":1}') == SEGMENT_HEADER_BYTES
    assert without_repeats(disk.calls) == [
        "create 2.part",
        "write 2.part",
        "sync 2.part",
        "write 2.part",
        "sync 2.part",
        "rename 2.part to 2.slot.seg",
        f"sync_folder {tmp_path.name}",
    ]
    record.seal()
    record.close()
    found, end = list(scan_segment(2, tmp_path / "2.seg", lambda _: True))
    assert isinstance(end, Found) and end.header.kind == Kind.END
    assert isinstance(found, Found)
    assert (found.header.sequence, found.payload, found.descriptor, found.damage) == (7, PAYLOAD, b'{"a":1}', "")


def test_a_large_object_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    record = large(tmp_path, RecordingDisk())
    record.write(PAYLOAD)
    record.close()
    record.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("step", ["sync", "rename"])
def test_a_large_object_whose_commit_fails_leaves_nothing(tmp_path: Path, step: str) -> None:
    record = large(tmp_path, RecordingDisk(fail=step))
    record.write(PAYLOAD)
    crc, _ = record.finish()
    with pytest.raises(OSError, match="Input/output"):
        record.commit(Kind.INSTANCE, 7, crc, b"{}")
    record.close()
    assert list(tmp_path.iterdir()) == []


def test_a_large_record_with_a_bit_turned_over_is_damaged(tmp_path: Path) -> None:
    record = large(tmp_path, RecordingDisk())
    record.write(PAYLOAD)
    crc, _ = record.finish()
    record.commit(Kind.INSTANCE, 7, crc, b"{}")
    record.seal()
    record.close()
    path = tmp_path / "2.seg"
    path.write_bytes(flipped(path.read_bytes(), SEGMENT_HEADER_BYTES + HEADER_BYTES + 300_000))
    assert whole_sequences(path, 2) == []
