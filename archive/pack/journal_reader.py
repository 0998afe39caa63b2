"""Reading the journal: one record by its place, or all records of a segment, stepping over what is damaged."""

import contextlib
import mmap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.disk import LOCAL_DISK, Disk, populate
from archive.errors import Damaged, NotFound
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.frame import ALIGNMENT, HEADER_BYTES, RECORD_MAGIC, SEGMENT_HEADER_BYTES, RecordHeader, SegmentHeader
from archive.pack.journal import Journal, Location


class OpenSegment:
    """A segment, open under a shared lock so that the file is not recycled meanwhile.

    Raises
    ------
    NotFound
        It is released or lives another life: look the instance up again.
    Damaged
        Its header does not hold.
    """

    def __init__(self, journal: Journal, number: int) -> None:
        self.disk, self.number = journal.disk, number
        self._mapped: mmap.mmap | None = None
        try:
            self.fd = journal.open_segment(number)
        except FileNotFoundError:
            raise NotFound(f"journal segment {number} is released") from None
        try:
            self.disk.lock(self.fd, shared=True)
            segment = SegmentHeader.unpack(self.disk.read(self.fd, SEGMENT_HEADER_BYTES, 0))
            if segment is None:
                raise Damaged(f"journal segment {number}: its header is damaged")
            if segment.number != number:
                raise NotFound(f"journal segment {number} is released")
        except BaseException:
            self.close()
            raise
        self._epoch = segment.epoch

    def close(self) -> None:
        """Give descriptor and lock back; what is mapped stays as long as somebody looks at it."""
        self.disk.close(self.fd)

    def record(self, offset: int, sequence: int, block_crcs: list[int] | None = None) -> "OpenRecord":
        """A record by its place; `Damaged` where its header is not there."""
        header = RecordHeader.unpack(self.disk.read(self.fd, HEADER_BYTES, offset), self._epoch)
        if header is None or header.sequence != sequence:
            raise Damaged(f"journal segment {self.number}: no record {sequence} at {offset}")
        return OpenRecord(self, offset, header, block_crcs)

    def mapped(self, end: int) -> mmap.mmap:
        """The segment's bytes up to `end` at least."""
        if self._mapped is None or len(self._mapped) < end:
            size = self.disk.size(self.fd)
            if size < end:
                raise Damaged(f"journal segment {self.number}: file ends at {size}, wanted bytes up to {end}")
            self._mapped = self.disk.map_read(self.fd, size)
        return self._mapped


class OpenRecord:
    """A record's payload in an open segment.

    Small payloads are read and checked whole, once; large ones by the CRCs of their 256 KiB blocks, as they are asked for.
    """

    def __init__(self, segment: OpenSegment, offset: int, header: RecordHeader, block_crcs: list[int] | None) -> None:
        self._segment, self._start, self.header = segment, offset + HEADER_BYTES, header
        self._disk, self._fd = segment.disk, segment.fd
        self._block_crcs = block_crcs
        self._whole: memoryview | None = None

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes of the payload, which are the caller's.

        Raises
        ------
        Damaged
            They do not match their CRC.
        """
        return self._checked(offset, length, self._copy)

    def view_in_place(self, offset: int, length: int) -> memoryview:
        """The same without a copy: where they lie in the segment, which must not be released as long as somebody looks at them."""
        return self._checked(offset, length, self._in_place)

    def _copy(self, begin: int, end: int) -> memoryview:
        return memoryview(self._disk.read(self._fd, end - begin, self._start + begin))

    def _in_place(self, begin: int, end: int) -> memoryview:
        mapped = self._segment.mapped(self._start + self.header.payload_length)
        populate(mapped, self._start + begin, end - begin)
        return memoryview(mapped)[self._start + begin : self._start + end]

    def _checked(self, offset: int, length: int, read: Callable[[int, int], memoryview]) -> memoryview:
        if offset < 0 or length < 0 or offset + length > self.header.payload_length:
            raise Damaged(f"bytes {offset}..{offset + length} lie outside of a payload of {self.header.payload_length}")
        if self._block_crcs is None:
            return self._read_whole(read)[offset : offset + length]
        first, last = offset // BLOCK_BYTES, (offset + length - 1) // BLOCK_BYTES
        begin = first * BLOCK_BYTES
        data = read(begin, min((last + 1) * BLOCK_BYTES, self.header.payload_length))
        for number in range(first, last + 1):
            at = number * BLOCK_BYTES - begin
            if crc32(data[at : at + BLOCK_BYTES]) != self._block_crcs[number]:
                raise Damaged(f"journal record {self.header.sequence}: block {number} does not match its CRC")
        return data[offset - begin : offset - begin + length]

    def views(self, offset: int, length: int) -> list[memoryview]:
        """The same, in pieces: one."""
        return [self.view(offset, length)]

    def _read_whole(self, read: Callable[[int, int], memoryview]) -> memoryview:
        if self._whole is None:
            data = read(0, self.header.payload_length)
            if crc32(data) != self.header.payload_crc:
                raise Damaged(f"journal record {self.header.sequence}: payload does not match its CRC")
            self._whole = data
        return self._whole

    def raw(self) -> tuple[bytes, bytes]:
        """Payload and descriptor, for the record to be copied: a damaged payload is given as it is.

        Raises
        ------
        Damaged
            The descriptor does not match its CRC.
        """
        payload = self._disk.read(self._fd, self.header.payload_length, self._start)
        descriptor = self._disk.read(self._fd, self.header.descriptor_length, self._start + self.header.payload_length)
        if crc32(descriptor) != self.header.descriptor_crc:
            raise Damaged(f"journal record {self.header.sequence}: descriptor does not match its CRC")
        return payload, descriptor

    def whole(self) -> memoryview:
        """The whole payload, checked; a large one mapped."""
        if self._block_crcs is not None:
            for offset in range(0, self.header.payload_length, BLOCK_BYTES):
                self.view(offset, min(BLOCK_BYTES, self.header.payload_length - offset))
        return self.mapped()

    def mapped(self) -> memoryview:
        """The whole payload; a small one checked, a large one mapped and not checked: for parsers, which stand any bytes."""
        if self._block_crcs is None:
            return self._read_whole(self._copy)
        end = self._start + self.header.payload_length
        return memoryview(self._segment.mapped(end))[self._start : end]


@contextlib.contextmanager
def open_record(journal: Journal, location: Location, sequence: int, block_crcs: list[int] | None = None) -> Iterator[OpenRecord]:
    """A record by its place, its segment open as long; raises as `OpenSegment` and `OpenSegment.record`."""
    with contextlib.closing(OpenSegment(journal, location.segment)) as segment:
        yield segment.record(location.offset, sequence, block_crcs)


@dataclass(frozen=True, slots=True)
class Found:
    """One record that a scan came by.

    Attributes
    ----------
    damage : str
        Empty where header, descriptor and payload hold; else what does not.
    payload : bytes
        Of small kinds (plans, deletions); empty for instances.
    """

    location: Location
    header: RecordHeader
    descriptor: bytes
    payload: bytes
    damage: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Bytes between two records of one life that belong to none: a damaged or torn record lay there."""

    location: Location
    length: int


POPULATE_BYTES = 4 << 20
SMALL_PAYLOAD_BYTES = 1 << 20


def scan_segment(
    number: int,
    path: Path,
    payload_wanted: Callable[[int], bool],
    disk: Disk = LOCAL_DISK,
    only: tuple[int, ...] = (),
    epoch: bytes | None = None,
) -> Iterator[Found | Gap]:
    """All records of the segment's present life, in order; damage is stepped over and named, never the end of the walk.

    Parameters
    ----------
    payload_wanted : callable
        Of the kind: whether `Found.payload` is filled (up to 1 MiB).
    only : tuple of int
        Kinds: of other records nothing but the header is read.
    epoch : bytes, optional
        Of the life that is looked for, where the segment's own header is damaged.

    Raises
    ------
    Damaged
        The segment's own header does not hold, so its epoch is not known; or it is that of another segment; or the disk does not
        give its bytes.
    UnknownFormat
        Written by a newer version.
    """
    fd = disk.open_read(path)
    mapped: mmap.mmap | None = None
    try:
        disk.lock(fd, shared=True)
        size = disk.size(fd)
        segment = SegmentHeader.unpack(disk.read(fd, SEGMENT_HEADER_BYTES, 0)) if size >= SEGMENT_HEADER_BYTES and not epoch else None
        if segment is None and not epoch:
            raise Damaged(f"journal segment {number}: its header is damaged")
        life = segment.epoch if segment else epoch
        assert life is not None
        mapped = disk.map_read(fd, size)
        for start in range(0, 0 if only else size, POPULATE_BYTES):
            populate(mapped, start, POPULATE_BYTES)
        with memoryview(mapped) as view:
            for item in _walk(number, mapped, view, life, payload_wanted, only):
                # Without records it was released and about to live again when the power took its new name.
                if segment is not None and segment.number != number:
                    raise Damaged(f"journal segment {number}: its header says that it is segment {segment.number}")
                yield item
    finally:
        if mapped is not None:
            mapped.close()
        disk.close(fd)


def _walk(
    number: int, mapped: mmap.mmap, view: memoryview, epoch: bytes, payload_wanted: Callable[[int], bool], only: tuple[int, ...]
) -> Iterator[Found | Gap]:
    at, size = SEGMENT_HEADER_BYTES, len(view)
    while at + HEADER_BYTES <= size:
        if only:
            populate(mapped, at, HEADER_BYTES)
        header = RecordHeader.unpack(view[at : at + HEADER_BYTES], epoch)
        if header is None or at + header.descriptor_offset + header.descriptor_length > size:
            found = _next_header(mapped, view, epoch, at + ALIGNMENT)
            if found is None:
                # Zeros, and whole headers of an earlier life, are the end; a header of this life or of none was torn or damaged.
                start, found_epoch = bytes(view[at : at + 4]), bytes(view[at + 8 : at + 24])
                if found_epoch == epoch or start == RECORD_MAGIC and RecordHeader.unpack(view[at : at + HEADER_BYTES], found_epoch) is None:
                    yield Gap(Location(number, at), size - at)
                return
            yield Gap(Location(number, at), found - at)
            at = found
            continue
        if only and header.kind not in only:
            at += header.total_length
            continue
        begin = at + HEADER_BYTES
        payload = view[begin : begin + header.payload_length]
        descriptor = bytes(view[at + header.descriptor_offset : at + header.descriptor_offset + header.descriptor_length])
        damage = ""
        if crc32(descriptor) != header.descriptor_crc:
            damage = "descriptor does not match its CRC"
        elif crc32(payload) != header.payload_crc:
            damage = "payload does not match its CRC"
        small = header.payload_length <= SMALL_PAYLOAD_BYTES and payload_wanted(header.kind)
        yield Found(Location(number, at), header, descriptor, bytes(payload) if small else b"", damage)
        payload.release()
        at += header.total_length


def _next_header(mapped: mmap.mmap, view: memoryview, epoch: bytes, start: int) -> int | None:
    position = start
    while True:
        position = mapped.find(epoch, position + 8)
        if position < 0:
            return None
        at = position - 8
        if at % ALIGNMENT == 0 and RecordHeader.unpack(view[at : at + HEADER_BYTES], epoch) is not None:
            return at
        position -= 7
