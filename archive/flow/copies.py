"""What the journal still has of objects, by length and CRC-32: places to mend a pack from, and the way back into the journal."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from archive.dicom.describe import describe
from archive.dicom.json import dumps
from archive.dicom.part10 import read_file_meta
from archive.disk import Bytes
from archive.errors import ArchiveError, BadInput, Damaged
from archive.flow.home import Home
from archive.pack.checksum import crc32, digest_of
from archive.pack.descriptor import InstanceDescriptor, Revision
from archive.pack.frame import HEADER_BYTES, Kind
from archive.pack.journal import Location
from archive.pack.journal_reader import Found, scan_segment

PIECE_BYTES = 1 << 20


class JournalCopies:
    """Every whole payload in the journal, released segments included: they hold what they held until they live again."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._found: dict[tuple[int, int], tuple[Path, int]] | None = None

    def _all(self) -> dict[tuple[int, int], tuple[Path, int]]:
        if self._found is None:
            self._found = {}
            for number, path in [*self._home.journal.segments(), *self._home.journal.spares()]:
                try:
                    for item in scan_segment(number, path, lambda _: False, self._home.disk):
                        if isinstance(item, Found) and item.header.kind == Kind.INSTANCE and not item.damage:
                            key = (item.header.payload_length, item.header.payload_crc)
                            self._found[key] = (path, item.location.offset + HEADER_BYTES)
                except (ArchiveError, OSError):
                    continue  # What cannot be read is no copy; verify names it.
        return self._found

    def has(self, length: int, crc: int) -> bool:
        return (length, crc) in self._all()

    def read(self, length: int, crc: int, offset: int, wanted: int) -> bytes | None:
        """A range of the payload of this length and CRC; None where the journal has none."""
        place = self._all().get((length, crc))
        if place is None:
            return None
        fd = self._home.disk.open_read(place[0])
        try:
            return self._home.disk.read(fd, wanted, place[1] + offset)
        finally:
            self._home.disk.close(fd)


def describe_again(home: Home, payload: Bytes, revision: Revision, received_us: int, source: str) -> InstanceDescriptor | None:
    """A descriptor made anew from a Part 10 object, all but who sent it; None where the object is none."""
    try:
        meta = read_file_meta(payload)
        data_set = memoryview(payload)[meta.length :]
        found = describe(data_set, meta.transfer_syntax_uid, home.settings.limits.inflated_bytes_max)
    except BadInput:
        return None
    return InstanceDescriptor(
        revision,
        found.study_instance_uid,
        found.series_instance_uid,
        found.sop_instance_uid,
        found.sop_class_uid,
        meta.transfer_syntax_uid,
        meta.length,
        len(payload),
        crc32(payload),
        digest_of(data_set),
        received_us,
        source,
        found.attributes,
        found.pixel_data.to_json() if found.pixel_data else None,
    )


def journal_again(home: Home, descriptor: InstanceDescriptor, payload: Iterator[Bytes]) -> None:
    """Put an object into the journal under the revision id that it has: durable and findable when this returns.

    Raises
    ------
    Damaged
        The payload is not what the descriptor says.
    """
    if descriptor.length > home.settings.journal.large_bytes:
        _stream_again(home, descriptor, payload)
        return
    data = b"".join(payload)
    if (len(data), crc32(data)) != (descriptor.length, descriptor.crc):
        raise Damaged(f"instance {descriptor.sop_instance_uid} does not match its descriptor any more")
    descriptor = dataclasses.replace(descriptor, block_crcs=None)
    encoded = dumps(descriptor.to_json())
    appended = home.journal.append(Kind.INSTANCE, descriptor.revision.sequence, [data], descriptor.crc, encoded)
    try:
        home.journal.sync(appended)
        _publish(home, appended.location, descriptor, encoded)
    finally:
        home.journal.done(appended)


def _stream_again(home: Home, descriptor: InstanceDescriptor, payload: Iterator[Bytes]) -> None:
    large = home.journal.stream()
    try:
        for piece in payload:
            large.write(piece)
        crc, block_crcs = large.finish()
        if (large.length, crc) != (descriptor.length, descriptor.crc):
            raise Damaged(f"instance {descriptor.sop_instance_uid} does not match its descriptor any more")
        descriptor = dataclasses.replace(descriptor, block_crcs=block_crcs)
        encoded = dumps(descriptor.to_json())
        offset = large.commit(Kind.INSTANCE, descriptor.revision.sequence, crc, encoded)
        _publish(home, Location(large.number, offset), descriptor, encoded)
        large.seal()
    finally:
        large.close()


def _publish(home: Home, location: Location, descriptor: InstanceDescriptor, encoded: bytes) -> None:
    """As recovery will find it: in place of what lay under its sequence before."""
    pending = home.index.pending
    with pending.environment.writing() as t:
        pending.remove(t, [descriptor.revision.sequence])
        pending.add(t, location, descriptor, encoded, further=bool(pending.find(t, descriptor.sop_instance_uid)))
