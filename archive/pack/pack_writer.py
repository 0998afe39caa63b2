"""Writing a pack: everything is laid out first, so that its length is known, then streamed once from start to end.

Order in the file: instances (series by series), the metadata of each series, content index, block CRCs, central directory,
tail locator. `docs/pack-format.md` is the page.
"""

import gzip
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from archive import __version__
from archive.dicom.json import dumps
from archive.errors import Damaged
from archive.pack.checksum import BLOCK_BYTES, BlockCrcs, Bytes, crc32
from archive.pack.descriptor import Deletion, InstanceDescriptor
from archive.pack.locator import FORMAT_VERSION, LOCATOR_BYTES, Locator
from archive.pack.naming import BLOCK_CRCS_ENTRY, CONTENT_INDEX_ENTRY, instance_entry, metadata_entry
from archive.pack.pack_reader import PackTail, read_tail
from archive.pack.zip_format import Entry, end_records, place

Read = Callable[[InstanceDescriptor], Iterator[Bytes]]
INSTANCES_PER_PACK_MAX = 16384
"""Bounds the content index, which a reader holds in memory."""
GZIP_LEVEL = 6


def compress(data: bytes) -> bytes:
    """One gzip member whose time stamp is zero, so that the same content gives the same bytes."""
    return gzip.compress(data, GZIP_LEVEL, mtime=0)


@dataclass(frozen=True, slots=True)
class PackHeader:
    """First line of the content index.

    Attributes
    ----------
    node_name, node : str
        Name and UUID (32 hex digits) of the node that wrote the pack.
    plan_id : str
        UUID of the plan that it fulfils.
    supersedes : list of (str, int)
        Node names and sequences of packs whose content this one carries on; they may be deleted after a grace period.
    """

    node_name: str
    node: str
    pack_sequence: int
    plan_id: str
    created_us: int
    metadata_version: int
    attributes_version: int
    supersedes: list[tuple[str, int]] = field(default_factory=list)
    void_reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": "pack",
            "format_version": FORMAT_VERSION,
            "must_understand": [],
            "writer": f"dicom-archive {__version__}",
            "node_name": self.node_name,
            "node": self.node,
            "pack_sequence": self.pack_sequence,
            "plan_id": self.plan_id,
            "created_us": self.created_us,
            "metadata_version": self.metadata_version,
            "attributes_version": self.attributes_version,
            "supersedes": [list(s) for s in self.supersedes],
            "void_reason": self.void_reason,
        }


@dataclass(frozen=True, slots=True)
class SeriesContent:
    """One series of a pack.

    Attributes
    ----------
    instances : list of (InstanceDescriptor, bool)
        In the order in which they lie; the flag says a further revision, whose entry carries its revision id.
    metadata : bytes
        Gzipped JSON array, one instance a line, in the same order.
    """

    study_instance_uid: str
    series_instance_uid: str
    instances: list[tuple[InstanceDescriptor, bool]]
    metadata: bytes


class PackWriter:
    """One pack. `length`, and `covered` of it by block CRCs, are exact before the first byte is streamed; `tail` holds after the last."""

    def __init__(self, header: PackHeader, series: list[SeriesContent], deletions: list[Deletion]) -> None:
        self._instances: list[tuple[Entry, InstanceDescriptor]] = []
        self._small: list[tuple[Entry, bytes]] = []
        self._at = 0
        rows: list[dict[str, Any]] = []
        for content in series:
            for descriptor, further in content.instances:
                entry = self._place(
                    instance_entry(
                        descriptor.study_instance_uid,
                        descriptor.series_instance_uid,
                        descriptor.sop_instance_uid,
                        str(descriptor.revision) if further else "",
                    ),
                    descriptor.length,
                )
                self._instances.append((entry, descriptor))
                row = {"kind": "instance", "offset": entry.data_offset, **descriptor.to_json()}
                row.pop("block_crcs", None)
                if further:
                    row["entry"] = entry.name
                rows.append(row)
        lines = [header.to_json(), *({"kind": "deletion", **d.to_json()} for d in deletions)]
        at = 0
        for content in series:
            entry = self._place(metadata_entry(content.study_instance_uid, content.series_instance_uid), len(content.metadata))
            self._small.append((entry, content.metadata))
            lines.append(
                {
                    "kind": "series",
                    "study_instance_uid": content.study_instance_uid,
                    "series_instance_uid": content.series_instance_uid,
                    "instances": len(content.instances),
                    "metadata_offset": entry.data_offset,
                    "metadata_length": len(content.metadata),
                    "metadata_crc32": f"{crc32(content.metadata):08x}",
                }
            )
            lines += rows[at : at + len(content.instances)]
            at += len(content.instances)
        index = compress(b"".join(dumps(line) + b"\n" for line in lines))
        self._small.append((self._place(CONTENT_INDEX_ENTRY, len(index)), index))
        self.covered = self._at
        blocks = (self._at + BLOCK_BYTES - 1) // BLOCK_BYTES
        self._blocks = self._place(BLOCK_CRCS_ENTRY, 4 * blocks)
        entries = [e for e, _ in self._instances] + [e for e, _ in self._small] + [self._blocks]
        self.length = self._at + sum(len(e.central_header(0)) for e in entries) + len(end_records(0, 0, 0, 0)) + LOCATOR_BYTES
        self._end = b""
        self._tail: PackTail | None = None

    def _place(self, name: str, length: int) -> Entry:
        entry = place(name, length, self._at)
        self._at = entry.data_offset + length
        return entry

    def stream(self, read: Read) -> Iterator[Bytes]:
        """The bytes of the pack, each instance read once and checked while it goes by.

        Parameters
        ----------
        read : callable
            Gives an instance's Part 10 object in pieces.

        Raises
        ------
        Damaged
            An instance has another length or CRC than its descriptor says.
        """
        blocks = BlockCrcs()

        def covered(data: Bytes) -> Bytes:
            blocks.update(data)
            return data

        for entry, descriptor in self._instances:
            yield covered(entry.local_header(descriptor.crc))
            crc = length = 0
            for piece in read(descriptor):
                crc, length = crc32(piece, crc), length + len(piece)
                yield covered(piece)
            if (crc, length) != (descriptor.crc, descriptor.length):
                raise Damaged(f"instance {descriptor.sop_instance_uid} does not match its descriptor any more")
        for entry, data in self._small:
            yield covered(entry.local_header(crc32(data)))
            yield covered(data)
        entries = [(e, d.crc) for e, d in self._instances] + [(e, crc32(data)) for e, data in self._small]
        end = b"".join(tail_of(entries, self._blocks, blocks.finish()))
        yield end
        written = blocks.length + len(end)
        if written != self.length:
            raise Damaged(f"the pack came out {written} bytes long, laid out were {self.length}")
        self._end = end

    def tail(self) -> PackTail:
        """What a reader will find in the pack that was streamed."""
        if self._tail is None:
            index, packed = self._small[-1]

            def kept(offset: int, length: int) -> bytes:
                begin, data = (self.covered, self._end) if offset >= self.covered else (index.data_offset, packed)
                return data[offset - begin : offset - begin + length]

            self._tail = read_tail(self.length, kept)
        return self._tail


def tail_of(entries: list[tuple[Entry, int]], blocks: Entry, block_crcs: list[int]) -> Iterator[bytes]:
    """What follows the bytes that block CRCs cover: their table, the central directory, the locator.

    Parameters
    ----------
    entries : list of (Entry, int)
        All before the table, each with its CRC-32; the last is the content index.
    blocks : Entry
        Of the table.
    """
    table = struct.pack(f"<{len(block_crcs)}I", *block_crcs)
    directory = b"".join(e.central_header(crc) for e, crc in [*entries, (blocks, crc32(table))])
    at = blocks.data_offset + len(table)
    tail = blocks.local_header(crc32(table)) + table + directory + end_records(len(entries) + 1, at, len(directory), LOCATOR_BYTES)
    yield tail
    index, index_crc = entries[-1]
    yield Locator(
        blocks.header_offset + len(tail) + LOCATOR_BYTES,
        index.data_offset,
        index.length,
        index_crc,
        blocks.header_offset,
        blocks.data_offset,
        len(block_crcs),
        crc32(tail),
    ).pack()
