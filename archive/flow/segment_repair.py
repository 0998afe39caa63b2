"""A damaged journal segment: each record as it was, where it can be had, and back into the journal under its revision id."""

import contextlib
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from archive.dicom.json import loads
from archive.disk import Bytes
from archive.errors import BadInput, Damaged
from archive.flow.copies import PIECE_BYTES, describe_again, journal_again
from archive.flow.home import Home
from archive.flow.mirroring import twin_of, whole_records
from archive.flow.voiding import void_sequences
from archive.pack.bit_flip import without_flip
from archive.pack.checksum import BLOCK_BYTES, crc32, digest_of
from archive.pack.descriptor import Deletion, InstanceDescriptor, Plan, Revision, Void
from archive.pack.frame import FLAG_MUST_UNDERSTAND, HEADER_BYTES, RECORD_MAGIC, SEGMENT_HEADER_BYTES, Kind, RecordHeader
from archive.pack.journal_reader import Found, Gap, scan_segment

ONE_BIT_BYTES_MAX = 64 << 20


@dataclass(frozen=True, slots=True)
class Record:
    """One record that can be had.

    Attributes
    ----------
    mended : str
        How; empty where it was whole.
    payload : bytes or None
        None where it is whole in the segment, from `start` on.
    """

    kind: int
    sequence: int
    descriptor: InstanceDescriptor | None
    start: int
    payload: bytes | None
    mended: str = ""


@dataclass(slots=True)
class Salvage:
    """What of a segment can be had, and names of what cannot."""

    records: list[Record] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    @property
    def mended(self) -> list[Record]:
        return [record for record in self.records if record.mended]


class SegmentRepair:
    """What can be done about one damaged segment, and doing it."""

    def __init__(self, home: Home, number: int, path: Path) -> None:
        self._home, self.number, self._path = home, number, path
        self._void = void_sequences(home.journal.segments())

    def salvage(self) -> Salvage:
        out = Salvage()
        with _mapped(self._path) as view, contextlib.ExitStack() as open_files:
            twins, twin = self._twins(open_files)
            epoch = None
            try:
                items = list(scan_segment(self.number, self._path, lambda _: True, self._home.disk))
            except Damaged as error:
                epoch = _epoch_of_records(view)
                if epoch is None:
                    out.lost.append(str(error))
                    return out
                items = list(scan_segment(self.number, self._path, lambda _: True, self._home.disk, epoch=epoch))
            for position, item in enumerate(items):
                first, end = item.location.offset, item.location.offset + (item.length if isinstance(item, Gap) else 1)
                whole = [twins[at] for at in sorted(twins) if first <= at < end]
                if whole and (isinstance(item, Gap) or item.damage):
                    out.records += [_from_mirror(twin, one) for one in whole if one.header.kind != Kind.END]
                    if isinstance(item, Gap) and sum(one.header.total_length for one in whole) < item.length:
                        out.lost.append(f"some of {item.length} bytes at {first}")
                elif isinstance(item, Gap):
                    last = position == len(items) - 1
                    self._take_gap(out, view, item, epoch or bytes(view[16:32]), last)
                elif item.header.kind != Kind.END and item.header.sequence not in self._void:
                    self._take(out, view, item)
        return out

    def _twins(self, open_files: contextlib.ExitStack) -> tuple[dict[int, Found], memoryview]:
        """Whole records of the same segment in the mirror by place, and its bytes."""
        path = twin_of(self._home.settings, self._path)
        whole = whole_records(self.number, path, self._home.disk) if path is not None else []
        if path is None or not whole:
            return {}, memoryview(b"")
        return {item.location.offset: item for item in whole}, open_files.enter_context(_mapped(path))

    def _take(self, out: Salvage, view: memoryview, item: Found) -> None:
        header, start = item.header, item.location.offset + HEADER_BYTES
        if header.kind != Kind.INSTANCE:
            payload = bytes(view[start : start + header.payload_length])
            whole = without_flip(payload, header.payload_crc) if item.damage else payload
            if whole is None and header.kind == Kind.PLAN:
                return  # What it planned is planned anew.
            if whole is None:
                out.lost.append(f"record {header.sequence} of kind {header.kind}")
            else:
                out.records.append(Record(header.kind, header.sequence, None, start, whole, "by its checksum" if item.damage else ""))
            return
        descriptor, how = self._descriptor(view, item)
        if descriptor is None:
            out.lost.append(f"record {header.sequence}")
        elif not item.damage.startswith("payload"):
            out.records.append(Record(header.kind, header.sequence, descriptor, start, None, how))
        else:
            payload_mended = _payload_without_flip(view[start : start + header.payload_length], header, descriptor)
            if payload_mended is None:
                out.lost.append(f"instance {descriptor.sop_instance_uid}")
            else:
                out.records.append(Record(header.kind, header.sequence, descriptor, start, payload_mended, "by its checksum"))

    def _descriptor(self, view: memoryview, item: Found) -> tuple[InstanceDescriptor | None, str]:
        """As it was, or made anew from the object: then all but who sent it and when."""
        header = item.header
        encoded = (
            item.descriptor if crc32(item.descriptor) == header.descriptor_crc else without_flip(item.descriptor, header.descriptor_crc)
        )
        how = "" if encoded == item.descriptor else "by its checksum"
        if encoded is not None:
            try:
                return InstanceDescriptor.from_json(loads(encoded)), how
            except (BadInput, Damaged):
                pass
        start = item.location.offset + HEADER_BYTES
        payload = view[start : start + header.payload_length]
        if crc32(payload) != header.payload_crc:
            return None, ""
        revision, source = Revision(self._home.identity.node, header.sequence), f"repair:journal segment {self.number}"
        return describe_again(self._home, payload, revision, header.written_us, source), "from the object itself"

    # --- bytes that belong to no whole record

    def _take_gap(self, out: Salvage, view: memoryview, gap: Gap, epoch: bytes, last: bool) -> None:
        at, end = gap.location.offset, gap.location.offset + gap.length
        header = _mended_header(bytes(view[at : at + HEADER_BYTES]), epoch)
        if header is not None and at + header.total_length <= end:
            start, found = at + HEADER_BYTES, Salvage()
            descriptor = bytes(view[at + header.descriptor_offset : at + header.descriptor_offset + header.descriptor_length])
            payload = view[start : start + header.payload_length]
            damage = "" if crc32(payload) == header.payload_crc else "payload does not match its CRC"
            self._take(found, view, Found(gap.location, header, descriptor, b"", damage))
            out.lost += found.lost
            out.records += [replace(record, mended="its header by its checksum") for record in found.records]
            return
        record = self._by_descriptor(view, at, end)
        if record is not None:
            out.records.append(record)
        elif not last:
            out.lost.append(f"{gap.length} bytes at {at}")

    def _by_descriptor(self, view: memoryview, at: int, end: int) -> Record | None:
        """A record whose header is gone: its descriptor says how long the object before it is, and its CRC and digest prove it."""
        data = bytes(view[at : min(end, at + ONE_BIT_BYTES_MAX)])
        mark = b'{"node":"' + self._home.identity.node.encode()
        position = data.find(mark, HEADER_BYTES)
        while position >= 0:
            try:
                descriptor = InstanceDescriptor.from_json(loads(data[position:].split(b"\0", 1)[0]))
            except (BadInput, Damaged):
                descriptor = None
            start = position - descriptor.length if descriptor else -1
            if descriptor is not None and start == HEADER_BYTES and _is(memoryview(data)[start:position], descriptor):
                return Record(Kind.INSTANCE, descriptor.revision.sequence, descriptor, at + start, None, "by its descriptor")
            position = data.find(mark, position + 1)
        return None

    # --- doing it

    def put_back(self, records: list[Record]) -> None:
        """What is still needed of them, durable in other segments when this returns."""
        home = self._home
        void = self._void.union(*(Void.from_bytes(r.payload).sequences for r in records if r.kind == Kind.VOID and r.payload))
        with _mapped(self._path) as view:
            for record in records:
                if record.sequence in void or not self._is_needed(record):
                    continue
                if record.descriptor is not None:
                    journal_again(home, record.descriptor, _pieces(view, record))
                    continue
                assert record.payload is not None
                flags = FLAG_MUST_UNDERSTAND if record.kind == Kind.VOID else 0
                appended = home.journal.append(record.kind, record.sequence, [record.payload], crc32(record.payload), b"", flags)
                try:
                    home.journal.sync(appended)
                finally:
                    home.journal.done(appended)

    def _is_needed(self, record: Record) -> bool:
        packed, name = self._home.index.packed, self._home.identity.name
        with packed.environment.reading() as t:
            if record.descriptor is not None:
                found = packed.find(t, record.descriptor.sop_instance_uid)
                known = any(i.revision == record.descriptor.revision for i in found)
                return not known and not packed.is_revision_deleted(t, record.descriptor.revision)
            assert record.payload is not None
            if record.kind == Kind.PLAN:
                plan = Plan.from_bytes(record.payload)
                info = packed.find_pack(t, name, plan.pack_sequence)
                return info is None or info.plan_id != plan.plan_id
            if record.kind == Kind.DELETION:
                return not packed.is_deletion_known(t, Deletion.from_json(loads(record.payload)).revision)
        return True

    def move_away(self) -> Path:
        """The segment, out of the journal."""
        return self._home.journal.move_away(self.number, self._home.settings.node.data / "quarantine")


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        view = memoryview(mapped)
        try:
            yield view
        finally:
            view.release()


def _from_mirror(view: memoryview, item: Found) -> Record:
    header, start = item.header, item.location.offset + HEADER_BYTES
    descriptor = InstanceDescriptor.from_json(loads(item.descriptor)) if header.kind == Kind.INSTANCE else None
    return Record(header.kind, header.sequence, descriptor, start, bytes(view[start : start + header.payload_length]), "from the mirror")


def _pieces(view: memoryview, record: Record) -> Iterator[Bytes]:
    if record.payload is not None:
        yield record.payload
        return
    assert record.descriptor is not None
    for at in range(0, record.descriptor.length, PIECE_BYTES):
        yield bytes(view[record.start + at : record.start + min(at + PIECE_BYTES, record.descriptor.length)])


def _epoch_of_records(view: memoryview) -> bytes | None:
    """Of the first record, where the segment's own header is damaged."""
    at = SEGMENT_HEADER_BYTES
    if len(view) < at + HEADER_BYTES or bytes(view[at : at + 4]) != RECORD_MAGIC:
        return None
    epoch = bytes(view[at + 8 : at + 24])
    return epoch if RecordHeader.unpack(view[at : at + HEADER_BYTES], epoch) else None


def _mended_header(raw: bytes, epoch: bytes) -> RecordHeader | None:
    """The header as it was before one of its bits was flipped, its CRC's own included."""
    body, crc = raw[:-4], int.from_bytes(raw[-4:], "little")
    if (crc32(body) ^ crc).bit_count() == 1:
        return RecordHeader.unpack(body + crc32(body).to_bytes(4, "little"), epoch)
    mended = without_flip(body, crc)
    return RecordHeader.unpack(mended + raw[-4:], epoch) if mended else None


def _is(payload: memoryview, descriptor: InstanceDescriptor) -> bool:
    whole = (len(payload), crc32(payload)) == (descriptor.length, descriptor.crc)
    return whole and digest_of(payload[descriptor.data_set_offset :], descriptor.digest_kind) == descriptor.digest


def _payload_without_flip(payload: memoryview, header: RecordHeader, descriptor: InstanceDescriptor) -> bytes | None:
    """Where one bit of it was flipped, or one of each 256 KiB of a large one; the digest proves it."""
    if descriptor.block_crcs is not None:
        parts = [payload[at : at + BLOCK_BYTES] for at in range(0, len(payload), BLOCK_BYTES)]
        blocks = [without_flip(part, crc) for part, crc in zip(parts, descriptor.block_crcs, strict=True)]
        mended = None if None in blocks else b"".join(b for b in blocks if b is not None)
    else:
        mended = without_flip(payload, header.payload_crc) if len(payload) <= ONE_BIT_BYTES_MAX else None
    return mended if mended is not None and _is(memoryview(mended), descriptor) else None
