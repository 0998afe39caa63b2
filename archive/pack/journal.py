"""The journal's folder: names, numbers, the writer's current segment, release and recycling.

journal/
  held                     numbers of sealed segments that hold something (`archive.pack.held`)
  counters                 next sequence and segment numbers, shared by all writers under a lock; a hint that recovery corrects
  open/<number>.<slot>.seg  the segment that the process in that slot appends to
  sealed/<number>.seg      no one writes to these any more
  spare/<number>.seg       released, kept for another life
  incoming/<number>.<slot>.part  on its way in; what a dead process left is deleted when another takes its slot
  mirror                   the mark that a mirror has too, while every change goes to both (`archive.flow.mirroring`)
"""

import contextlib
import re
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from archive.disk import LOCAL_DISK, Bytes, Disk
from archive.errors import Damaged, Exhausted
from archive.pack.checksum import crc32
from archive.pack.frame import PAGE_BYTES
from archive.pack.held import HeldSegments
from archive.pack.segment import LargeRecord, Segment

ZEROS_BYTES = 4 << 20
_COUNTERS = struct.Struct("<QQ")
_NAME = re.compile(r"^(\d{12})(?:\.([A-Za-z0-9-]+))?\.seg$")
_PART = re.compile(r"^\d{12}\.([A-Za-z0-9-]+)\.part$")


class Location(NamedTuple):
    """Where a record's header lies: segment number and byte offset in it."""

    segment: int
    offset: int


class Appended(NamedTuple):
    """A record that is written, as far as the disk took it; durable once `Journal.sync` of it has returned.

    Attributes
    ----------
    failed : Exception or None
        The write failed: all of it may be there all the same.
    """

    location: Location
    segment: Segment
    failed: Exception | None = None


class Journal:
    """The journal of one node, as one process sees it.

    Parameters
    ----------
    folder : Path
        `DIR/journal`.
    node : bytes
        The node's UUID, 16 bytes.
    slot : str
        Name of the writing process's place; two live processes never share one. Empty: read only.
    segment_bytes : int
        Size of new segments.
    spare_segments_max : int
        Released segments kept for recycling.
    """

    def __init__(
        self, folder: Path, node: bytes, slot: str = "", segment_bytes: int = 64 << 20, spare_segments_max: int = 4, disk: Disk = LOCAL_DISK
    ) -> None:
        self.folder, self.node, self.slot, self.disk = folder, node, slot, disk
        self._segment_bytes, self._spare_max = segment_bytes, spare_segments_max
        self._open, self._sealed, self._spare, self._incoming = (folder / n for n in ("open", "sealed", "spare", "incoming"))
        self.held = HeldSegments(folder, disk)
        self._lock = threading.Lock()
        self._segment: Segment | None = None
        self._counters = -1
        self.left_over: list[int] = []  # segments that the process before this one in its slot left open
        if slot:
            for path in (self._open, self._sealed, self._spare, self._incoming):
                disk.make_folder(path)
            self._counters = self._open_counters()
            self.left_over = self.seal_left_over(lambda found: found == slot)
            self.delete_left_over(lambda found: found == slot)

    def close(self) -> None:
        """Seal the current segment and give the descriptors back."""
        with self._lock, contextlib.suppress(Exhausted, OSError):  # The next start seals what the disk, or its mirror, did not.
            self._seal()
        if self._counters >= 0:
            self.disk.close(self._counters)
            self._counters = -1

    # --- numbers

    def _open_counters(self) -> int:
        path = self.folder / "counters"
        with contextlib.suppress(FileExistsError):
            self.disk.close(self.disk.create(path))  # Empty: both numbers are 1.
        return self.disk.open_write(path)

    def _take(self, change: Callable[[int, int], tuple[int, int]]) -> tuple[int, int]:
        with self._lock:
            return self._take_locked(change)

    def _take_locked(self, change: Callable[[int, int], tuple[int, int]]) -> tuple[int, int]:
        with self.disk.locked(self._counters):
            data = self.disk.read_some(self._counters, _COUNTERS.size, 0)
            before: tuple[int, int] = _COUNTERS.unpack(data) if len(data) == _COUNTERS.size else (1, 1)
            self.disk.write(self._counters, [_COUNTERS.pack(*change(*before))], 0)
            return before

    def next_sequence(self) -> int:
        """A sequence number that no other record of this node has."""
        return self._take(lambda sequence, segment: (sequence + 1, segment))[0]

    def _next_segment_locked(self) -> int:
        return self._take_locked(lambda sequence, segment: (sequence, segment + 1))[1]

    def raise_counters(self, sequence: int, segment: int) -> None:
        """Go on behind numbers that were found at rest."""
        self._take(lambda a, b: (max(a, sequence + 1), max(b, segment + 1)))

    # --- writing

    def append(
        self,
        kind: int,
        sequence: int,
        payload: Sequence[Bytes],
        payload_crc: int,
        descriptor: bytes,
        flags: int = 0,
        *,
        behind: int = 0,
    ) -> Appended:
        """Write one record into the current segment, or into a new one where it does not fit.

        A write that fails is told by `sync`: of what may be on the disk somebody has to know the place.

        Parameters
        ----------
        behind : int
            Number of a segment: the record goes into this one or a later one.

        Raises
        ------
        Exhausted
            The disk is full: nothing is written.
        """
        with self._lock:
            while True:
                if self._segment is None or self._segment.syncer.failed or self._segment.header.number < behind:
                    self._seal()
                    self._segment = self._start(sum(len(p) for p in payload) + len(descriptor))
                segment, failed = self._segment, None
                location = Location(segment.header.number, segment.end)
                try:
                    fits = segment.append(kind, flags, sequence, payload, payload_crc, descriptor) is not None
                except (Exhausted, OSError) as error:
                    fits, failed = True, error
                if fits:
                    segment.hold()
                    return Appended(location, segment, failed)
                self._seal()

    def sync(self, appended: Appended) -> None:
        """Durable when this returns.

        Raises
        ------
        Exhausted
            The disk failed; a segment whose sync failed is never written to again.
        """
        if appended.failed is not None:
            raise appended.failed
        appended.segment.syncer.sync()

    def done(self, appended: Appended) -> None:
        """Say once for each `append` that its record can be found, or never will: only then may its segment be sealed."""
        appended.segment.drop(self._rename_sealed)

    def append_small(self, kind: int, sequence: int, payload: bytes) -> Appended:
        """A record of a small kind, which is all payload."""
        return self.append(kind, sequence, [payload], crc32(payload), b"")

    def stream(self) -> LargeRecord:
        """A segment of its own for one large object."""
        with self._lock:
            number = self._next_segment_locked()
        opened = self._open / f"{number:012d}.{self.slot}.seg"
        return LargeRecord(self.disk, self._part(number), opened, self._sealed / f"{number:012d}.seg", number, self.node)

    def _part(self, number: int) -> Path:
        return self._incoming / f"{number:012d}.{self.slot}.part"

    def _start(self, needed: int) -> Segment:
        number = self._next_segment_locked()
        path = self._open / f"{number:012d}.{self.slot}.seg"
        capacity = max(self._segment_bytes, needed + 3 * PAGE_BYTES)
        if capacity == self._segment_bytes:
            recycled = self._recycle(path, number)
            if recycled is not None:
                return recycled
        return Segment.start(self.disk, self._part(number), path, number, self.node, capacity)

    def _recycle(self, path: Path, number: int) -> Segment | None:
        for name in self.disk.list_folder(self._spare):
            spare = self._spare / name
            try:
                fd = self.disk.open_write(spare)
            except FileNotFoundError:
                continue
            # A reader may still stream from its last life: then it is not written over. Another writer may have been quicker.
            alone = self.disk.lock(fd, shared=False, wait=False)
            if alone and spare.exists() and self.disk.size(fd) == self._segment_bytes:
                segment = Segment.start(self.disk, spare, path, number, self.node, self._segment_bytes, fd)
                self.disk.lock(fd, shared=True)
                return segment
            if alone and self.disk.size(fd) != self._segment_bytes:
                with contextlib.suppress(FileNotFoundError):
                    self.disk.unlink(spare)  # Of a time when segments had another size.
            self.disk.close(fd)
        return None

    def make_spare(self, between: Callable[[], None] = lambda: None, enough: int = 1 << 30) -> bool:
        """One more spare, unless there are enough or as many as are kept; its blocks are written, not only reserved.

        Syncing a record into blocks that were only reserved costs a commit of the file system's own journal each time.

        Parameters
        ----------
        between : callable
            Called between pieces of it, each of them synced, so that no record waits for the disk behind all of them.
        """
        if len(self.disk.list_folder(self._spare)) >= min(self._spare_max, enough):
            return False
        with self._lock:
            number = self._next_segment_locked()
        part = self._part(number)
        fd = self.disk.create(part)
        try:
            zeros = bytes(min(ZEROS_BYTES, self._segment_bytes))
            for offset in range(0, self._segment_bytes, len(zeros)):
                self.disk.write(fd, [zeros[: self._segment_bytes - offset]], offset)
                self.disk.sync(fd)
                between()
            self.disk.rename(part, self._spare / f"{number:012d}.seg")
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(part)
            raise
        finally:
            self.disk.close(fd)
        return True

    def _seal(self) -> None:
        """Append to it no more; its name changes when its last record is done with."""
        if self._segment is not None:
            segment, self._segment = self._segment, None
            segment.drop(self._rename_sealed)

    def _rename_sealed(self, segment: Segment) -> None:
        with contextlib.suppress(OSError, Exhausted):  # Nothing is lost without it.
            if segment.syncer.failed:
                segment.retire()
            else:
                segment.end_here()
        self.disk.rename(segment.path, self._sealed / f"{segment.header.number:012d}.seg")

    def seal_left_over(self, mine: Callable[[str], bool]) -> list[int]:
        """Seal what a dead process left open; `mine` says by its slot. Returns the numbers."""
        names = [found for n in self.disk.list_folder(self._open) if (found := _NAME.match(n)) and found[2] and mine(found[2])]
        for found in names:
            self.disk.rename(self._open / found[0], self._sealed / f"{found[1]}.seg")
        return [int(found[1]) for found in names]

    def delete_left_over(self, mine: Callable[[str], bool] = lambda _: True) -> list[str]:
        """Remove what dead processes never finished; `mine` says by the slot. Returns the names."""
        names = [n for n in self.disk.list_folder(self._incoming) if mine(found[1] if (found := _PART.match(n)) else "")]
        for name in names:
            self.disk.unlink(self._incoming / name)
        return names

    # --- finding

    def path_of(self, number: int) -> Path:
        """Where the segment lies now.

        Raises
        ------
        FileNotFoundError
            It is released.
        """
        for _ in range(3):  # It may be sealed between the two looks.
            path = self._sealed / f"{number:012d}.seg"
            if path.exists():
                return path
            for name in self.disk.list_folder(self._open):
                if name.startswith(f"{number:012d}."):
                    return self._open / name
        raise FileNotFoundError(f"journal segment {number}")

    def open_segment(self, number: int) -> int:
        """Descriptor of the segment, for reading.

        Raises
        ------
        FileNotFoundError
            It is released.
        """
        try:
            return self.disk.open_read(self.path_of(number))
        except FileNotFoundError:  # It may have been sealed since it was looked for; that happens once.
            return self.disk.open_read(self.path_of(number))

    def missing(self) -> list[int]:
        """Segments that held something and are not there: neither open nor sealed nor released since."""
        while True:
            try:
                listed = self.held.read()
                there = {number for number, _ in self.segments()}
                again = self.held.read()
            except Damaged:
                return []
            if listed == again:
                return sorted(listed - there)

    def sealed(self) -> list[int]:
        """Numbers of the segments that no one writes to, in order."""
        return [int(found[1]) for name in self.disk.list_folder(self._sealed) if (found := _NAME.match(name))]

    def segments(self) -> Iterator[tuple[int, Path]]:
        """Every segment that holds records, in order of number."""
        yield from sorted(segments_below(self.folder, self.disk).items())

    def sync_released(self) -> None:
        """Segments that were released are so for certain."""
        self.disk.sync_folder(self._sealed)

    def spares(self) -> Iterator[tuple[int, Path]]:
        """Released segments; they still hold what they held until they live again."""
        for name in self.disk.list_folder(self._spare):
            if found := _NAME.match(name):
                yield int(found[1]), self._spare / name

    def remove_spares(self) -> None:
        """Remove released segments, with what they still hold; durably."""
        for _, path in list(self.spares()):
            with contextlib.suppress(FileNotFoundError):
                self.disk.unlink(path)
        self.disk.sync_folder(self._spare)

    def move_away(self, number: int, folder: Path) -> Path:
        """Take a damaged segment out of the journal, into a folder on the same disk; returns where it lies then."""
        self.disk.make_folder(folder)
        path = self.path_of(number)
        self.held.forget([number])
        away = folder / away_name(number)
        self.disk.rename(path, away)
        self.disk.sync_folder(folder)
        self.disk.sync_folder(path.parent)
        return away

    def release(self, number: int) -> None:
        """Nothing in a sealed segment is needed any more: keep the file for another life, or remove it.

        One that a reader streams from is removed, since it must not be written over.
        """
        path = self._sealed / f"{number:012d}.seg"
        fd = self.disk.open_write(path)
        try:
            alone = self.disk.lock(fd, shared=False, wait=False)
            if alone and self.disk.size(fd) == self._segment_bytes and len(self.disk.list_folder(self._spare)) < self._spare_max:
                self.disk.rename(path, self._spare / path.name)
            else:
                self.disk.unlink(path)
        finally:
            self.disk.close(fd)


def away_name(number: int) -> str:
    """Of a segment's file that is taken out of the journal, maybe not the first of this number."""
    return f"{number:012d}-{time.time_ns()}.seg"


def segments_below(folder: Path, disk: Disk) -> dict[int, Path]:
    """Every segment of a journal that holds records, by number."""
    return {
        int(m[1]): folder / where / name
        for where in ("open", "sealed")
        for name in disk.list_folder(folder / where)
        if (m := _NAME.match(name))
    }
