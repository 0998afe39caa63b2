"""One journal segment open for writing: records appended one behind the other, one fsync for all who wait."""

import contextlib
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from archive.disk import Bytes, Disk
from archive.errors import Exhausted
from archive.pack.checksum import BlockCrcs, crc32, crc32_of_blocks
from archive.pack.frame import HEADER_BYTES, PAGE_BYTES, SEGMENT_HEADER_BYTES, Kind, RecordHeader, SegmentHeader, align

EPOCH_BYTES = 16


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


class Syncer:
    """Durability of one file, shared: who comes while a sync runs waits for the next one, and one caller runs it for all.

    After a failed sync nothing is known of the pages that it should have written, so the file is never synced again
    (Linux drops the error and marks the pages clean).
    """

    def __init__(self, disk: Disk, fd: int) -> None:
        self._disk, self._fd = disk, fd
        self._condition = threading.Condition()
        self._started = self._done = 0
        self._running = False
        self.failed: Exception | None = None

    def sync(self) -> None:
        """What the caller has written before is durable when this returns."""
        with self._condition:
            wanted = self._started + 1
            while self._done < wanted:
                if self.failed:
                    raise Exhausted(f"the journal could not be synced: {getattr(self.failed, 'strerror', self.failed)}") from self.failed
                if self._running:
                    self._condition.wait()
                    continue
                self._running = True
                self._started += 1
                self._run(self._started)

    def _run(self, turn: int) -> None:
        self._condition.release()
        error: Exception | None = None
        try:
            self._disk.sync(self._fd)
        except (OSError, Exhausted) as raised:
            error = raised
        finally:
            self._condition.acquire()
            self._running = False
            self._condition.notify_all()
        if error:
            self.failed = error
        else:
            self._done = turn


class Segment:
    """A segment that this process appends to.

    It is not shared between processes: each writer has its own, and numbers keep them apart.
    """

    def __init__(self, disk: Disk, path: Path, fd: int, header: SegmentHeader, capacity: int) -> None:
        self._disk, self.path, self.fd, self.header, self.capacity = disk, path, fd, header, capacity
        self.end = SEGMENT_HEADER_BYTES
        self.syncer = Syncer(disk, fd)
        self._users = 1
        self._lock = threading.Lock()

    @classmethod
    def start(cls, disk: Disk, raw: Path, path: Path, number: int, node: bytes, capacity: int, fd: int | None = None) -> "Segment":
        """A new life, of a new file or of a recycled one.

        Parameters
        ----------
        raw : Path
            Where the file gets its header, durably, before it gets its name: a segment under its name always has one.
        path : Path
            Its name.
        fd : int, optional
            Of the recycled file that lies at `raw`, held locked.
        """
        header = SegmentHeader(secrets.token_bytes(EPOCH_BYTES), node, number, now_us())
        new = fd is None
        if fd is None:
            fd = disk.create(raw)
        try:
            if new:
                disk.allocate(fd, capacity)
            disk.write(fd, [header.pack()], 0)
            disk.sync(fd)
            disk.rename(raw, path)
            disk.sync_folder(path.parent)
        except BaseException:
            disk.close(fd)
            with contextlib.suppress(FileNotFoundError):
                disk.unlink(raw)
            raise
        return cls(disk, path, fd, header, capacity)

    def append(self, kind: int, flags: int, sequence: int, payload: Sequence[Bytes], payload_crc: int, descriptor: bytes) -> int | None:
        """Write one record; not durable yet. The caller serialises calls.

        Returns
        -------
        int or None
            Offset of the record, None where it does not fit any more.
        """
        length = sum(map(len, payload))
        header = RecordHeader(kind, flags, self.header.epoch, sequence, length, len(descriptor), now_us(), payload_crc, crc32(descriptor))
        offset = self.end
        if offset + header.total_length > self.capacity:
            return None
        # Zeros up to the page's end: a partly written page of a recycled file would have to be read from the disk first.
        used = HEADER_BYTES + length + len(descriptor)
        padding = min(align(offset + used, PAGE_BYTES), self.capacity) - offset - used
        self._disk.write(self.fd, [header.pack(), *payload, descriptor, bytes(padding)], offset)
        self.end = offset + header.total_length
        return offset

    def end_here(self) -> None:
        """Say that nothing follows, so that damage in the last record is not taken for one that was being written."""
        self.append(Kind.END, 0, 0, [], crc32(b""), b"")

    def retire(self) -> None:
        """Give the file a size that segments never have, so that whoever releases it removes it and does not recycle it."""
        self._disk.write(self.fd, [bytes(1)], self.capacity)

    def hold(self) -> None:
        with self._lock:
            self._users += 1

    def drop(self, seal: Callable[["Segment"], None]) -> None:
        """The last user seals and closes it: until then a record in it may be durable and not yet findable."""
        with self._lock:
            self._users -= 1
            if self._users:
                return
        try:
            seal(self)
        finally:
            self._disk.close(self.fd)


class LargeRecord:
    """One large object on its way into a segment of its own: payload first, descriptor, then the headers, then its name.

    Until `commit` the file is called `*.part` and is nothing to a reader; until `seal` it is open and not released.
    """

    def __init__(self, disk: Disk, part: Path, opened: Path, sealed: Path, number: int, node: bytes) -> None:
        self._disk, self._part, self._opened, self._sealed = disk, part, opened, sealed
        self._header = SegmentHeader(secrets.token_bytes(EPOCH_BYTES), node, number, now_us())
        self._fd = disk.create(part)
        self._crcs = BlockCrcs()
        self._committed = False
        self.number = number

    @property
    def length(self) -> int:
        """Bytes of payload so far."""
        return self._crcs.length

    @property
    def fd(self) -> int:
        return self._fd

    def write(self, data: Bytes) -> None:
        self._disk.write(self._fd, [data], SEGMENT_HEADER_BYTES + HEADER_BYTES + self._crcs.length)
        self._crcs.update(data)

    def finish(self) -> tuple[int, list[int]]:
        """No more payload: its CRC-32 and those of its blocks of 256 KiB."""
        crcs = self._crcs.finish()
        return crc32_of_blocks(crcs, self.length), crcs

    def commit(self, kind: int, sequence: int, payload_crc: int, descriptor: bytes) -> int:
        """Durable and under its name when this returns; the record's offset."""
        header = RecordHeader(kind, 0, self._header.epoch, sequence, self.length, len(descriptor), now_us(), payload_crc, crc32(descriptor))
        offset = SEGMENT_HEADER_BYTES
        padding = bytes(header.total_length - HEADER_BYTES - self.length - len(descriptor))
        end = RecordHeader(Kind.END, 0, self._header.epoch, 0, 0, 0, now_us(), crc32(b""), crc32(b""))
        self._disk.write(self._fd, [descriptor, padding, end.pack()], offset + header.descriptor_offset)
        self._disk.sync(self._fd)
        self._disk.write(self._fd, [self._header.pack(), header.pack()], 0)
        self._disk.sync(self._fd)
        self._disk.rename(self._part, self._opened)
        self._committed = True
        self._disk.sync_folder(self._opened.parent)
        return offset

    def seal(self) -> None:
        """The committed record can be found, or is void: the packer may release its segment once it is packed."""
        if self._committed:
            self._disk.rename(self._opened, self._sealed)

    def close(self) -> None:
        """Give the file back; without `commit` nothing of it stays."""
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
            if not self._committed:
                with contextlib.suppress(FileNotFoundError):  # It got its name here, and its mirror did not.
                    self._disk.unlink(self._part)
