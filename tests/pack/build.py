"""Records, packs and disks made for the tests of what rests: small, and the same in every run."""

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archive.dicom.json import dumps
from archive.dicom.part10 import write_file_meta
from archive.disk import Bytes, Disk, full_or_same
from archive.pack.checksum import crc32, digest_of
from archive.pack.descriptor import Deletion, InstanceDescriptor, Revision
from archive.pack.frame import Kind
from archive.pack.journal import Journal, Location
from archive.pack.journal_reader import Found, scan_segment
from archive.pack.naming import PackName
from archive.pack.pack_writer import PackHeader, PackWriter, SeriesContent, compress

NODE = bytes(range(16))
NODE_HEX = NODE.hex()
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
SEGMENT_BYTES = 64 * 1024


@dataclass(frozen=True)
class Made:
    """An instance: its descriptor and its Part 10 object."""

    descriptor: InstanceDescriptor
    data: bytes


def make_instance(
    sequence: int,
    data_set: bytes = b"",
    *,
    study: str = "1.2.3",
    series: str = "1.2.3.4",
    uid: str = "",
    attributes: dict[str, Any] | None = None,
    node: str = NODE_HEX,
) -> Made:
    """An instance with this sequence as its revision; `data_set` stands for its data set, whatever the bytes are."""
    uid = uid or f"{series}.{sequence}"
    meta = write_file_meta(CT, uid, EXPLICIT_LITTLE)
    data_set = data_set or bytes(f"data set of {uid}; ", "ascii") * 3
    data = meta + data_set
    return Made(
        InstanceDescriptor(
            Revision(node, sequence),
            study,
            series,
            uid,
            CT,
            EXPLICIT_LITTLE,
            len(meta),
            len(data),
            crc32(data),
            digest_of(data_set),
            1_700_000_000_000_000 + sequence,
            "dimse:TEST@127.0.0.1",
            {"00100020": {"vr": "LO", "Value": ["P1"]}} if attributes is None else attributes,
        ),
        data,
    )


@dataclass(frozen=True)
class MadePack:
    """A pack: its name and all its bytes."""

    name: PackName
    data: bytes


def pack_writer(
    instances: Sequence[tuple[Made, bool]],
    deletions: Sequence[Deletion] = (),
    sequence: int = 1,
    node: str = "node",
    plan_id: str = "ab" * 16,
) -> PackWriter:
    """A writer for these instances; they are of one series where they stand side by side, the flag says a further revision."""
    series: list[SeriesContent] = []
    for made, further in instances:
        d = made.descriptor
        if not series or (series[-1].study_instance_uid, series[-1].series_instance_uid) != (d.study_instance_uid, d.series_instance_uid):
            series.append(SeriesContent(d.study_instance_uid, d.series_instance_uid, [], b""))
        series[-1].instances.append((d, further))
    for at, content in enumerate(series):
        lines = [dumps({"00080018": {"vr": "UI", "Value": [d.sop_instance_uid]}}) for d, _ in content.instances]
        metadata = compress(b"[\n" + b",\n".join(lines) + b"\n]")
        series[at] = SeriesContent(content.study_instance_uid, content.series_instance_uid, content.instances, metadata)
    header = PackHeader(node, NODE_HEX, sequence, plan_id, 1_700_000_000_000_000, 1, 1)
    return PackWriter(header, series, list(deletions))


def reader_of(instances: Sequence[tuple[Made, bool]], piece_bytes: int = 100_000) -> Callable[[InstanceDescriptor], Iterator[Bytes]]:
    """What a pack writer reads the instances by: pieces of some length."""
    by_sequence = {made.descriptor.revision.sequence: made.data for made, _ in instances}

    def read(descriptor: InstanceDescriptor) -> Iterator[Bytes]:
        data = memoryview(by_sequence[descriptor.revision.sequence])
        for at in range(0, len(data), piece_bytes):
            yield data[at : at + piece_bytes]

    return read


def make_pack(
    instances: Sequence[Made | tuple[Made, bool]],
    deletions: Sequence[Deletion] = (),
    sequence: int = 1,
    node: str = "node",
    plan_id: str = "ab" * 16,
) -> MadePack:
    """A whole pack in memory."""
    flagged = [made if isinstance(made, tuple) else (made, False) for made in instances]
    writer = pack_writer(flagged, deletions, sequence, node, plan_id)
    data = b"".join(bytes(piece) for piece in writer.stream(reader_of(flagged)))
    return MadePack(PackName(node, sequence, hashlib.sha256(data).hexdigest()), data)


def read_from(data: bytes) -> Callable[[int, int], bytes]:
    """`read(offset, length)` over bytes in memory."""
    return lambda offset, length: data[offset : offset + length]


def append_instance(journal: Journal, made: Made) -> Location:
    """Through all steps of the journal, as ingest does it."""
    d = made.descriptor
    appended = journal.append(Kind.INSTANCE, d.revision.sequence, [made.data], d.crc, dumps(d.to_json()))
    try:
        journal.sync(appended)
    finally:
        journal.done(appended)
    return appended.location


def whole_sequences(path: Path, number: int = 1) -> list[int]:
    """Sequences of the records of a segment that are whole."""
    found = [f for f in scan_segment(number, path, lambda _: True) if isinstance(f, Found) and not f.damage]
    return [f.header.sequence for f in found if f.header.kind != Kind.END]


class RecordingDisk(Disk):
    """Notes what changes files, in order, as `verb name`; `fail` makes the first call so noted an error, an I/O error by default."""

    def __init__(self, fail: str = "", error: int = errno.EIO) -> None:
        self.calls: list[str] = []
        self.fail, self.error = fail, error

    def _note(self, verb: str, what: Path | int) -> None:
        name = what.name if isinstance(what, Path) else os.path.basename(os.readlink(f"/proc/self/fd/{what}"))
        call = f"{verb} {name}"
        self.calls.append(call)
        if self.fail and call.startswith(self.fail):
            self.fail = ""
            raise full_or_same(OSError(self.error, os.strerror(self.error)))

    def create(self, path: Path) -> int:
        self._note("create", path)
        return super().create(path)

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        self._note("write", fd)
        return super().write(fd, parts, offset)

    def allocate(self, fd: int, length: int) -> None:
        self._note("allocate", fd)
        super().allocate(fd, length)

    def read(self, fd: int, length: int, offset: int) -> bytes:
        self._note("read", fd)
        return super().read(fd, length, offset)

    def sync(self, fd: int) -> None:
        self._note("sync", fd)
        super().sync(fd)

    def drop_cached(self, fd: int) -> None:
        self._note("drop_cached", fd)
        super().drop_cached(fd)

    def sync_folder(self, path: Path) -> None:
        self._note("sync_folder", path)
        super().sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self._note(f"rename {old.name} to", new)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._note("unlink", path)
        super().unlink(path)


def flipped(data: Bytes, at: int, bit: int = 0) -> bytes:
    """The bytes with one bit turned over."""
    out = bytearray(data)
    out[at] ^= 1 << bit
    return bytes(out)


def without_repeats(calls: Iterable[str]) -> list[str]:
    """Calls with runs of the same one written once."""
    out: list[str] = []
    for call in calls:
        if not out or out[-1] != call:
            out.append(call)
    return out
