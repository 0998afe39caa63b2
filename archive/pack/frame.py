"""The fixed headers of the journal: one for each segment, one for each record. `docs/journal-format.md` is the page."""

import struct
from dataclasses import dataclass
from enum import IntEnum

from archive.errors import UnknownFormat
from archive.pack.checksum import Bytes, crc32

FORMAT_VERSION = 1
SEGMENT_MAGIC = b"DCMJSEG\0"
RECORD_MAGIC = b"DCMr"
SEGMENT_HEADER_BYTES = 4096
HEADER_BYTES = 128
ALIGNMENT = 64
PAGE_BYTES = 4096
FLAG_MUST_UNDERSTAND = 1

_SEGMENT = struct.Struct("<8sHHI16s16sQQ60x")
_RECORD = struct.Struct("<4sHH16sQQQQII60x")
_CRC = struct.Struct("<I")


class Kind(IntEnum):
    """What a record is. Others may come; a reader keeps what it does not know unless its flag says it must understand."""

    INSTANCE = 1
    DELETION = 2
    PLAN = 3
    VOID = 4
    END = 5


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """Identity of one life of one segment.

    Attributes
    ----------
    epoch : bytes
        16 random bytes, new for each life of the file; every record of this life carries them.
    node : bytes
        The node's UUID, 16 bytes.
    number : int
        Which segment; numbers only grow.
    created_us : int
        Microseconds since 1970 UTC.
    """

    epoch: bytes
    node: bytes
    number: int
    created_us: int

    def pack(self) -> bytes:
        body = _SEGMENT.pack(SEGMENT_MAGIC, FORMAT_VERSION, 0, 0, self.epoch, self.node, self.number, self.created_us)
        return (body + _CRC.pack(crc32(body))).ljust(SEGMENT_HEADER_BYTES, b"\0")

    @classmethod
    def unpack(cls, data: Bytes) -> "SegmentHeader | None":
        """The header, or None where there is none whose CRC holds.

        Raises
        ------
        UnknownFormat
            Written by a newer version.
        """
        if len(data) < HEADER_BYTES or bytes(data[:8]) != SEGMENT_MAGIC:
            return None
        body = data[: HEADER_BYTES - 4]
        if _CRC.unpack_from(data, HEADER_BYTES - 4)[0] != crc32(body):
            return None
        _, version, _, flags, epoch, node, number, created = _SEGMENT.unpack_from(data)
        if version > FORMAT_VERSION or flags:
            raise UnknownFormat(
                f"journal segment {number} has format version {version}, flags {flags:#x}; this program knows version {FORMAT_VERSION}"
            )
        return cls(epoch, node, number, created)


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """What stands before a record's payload; the payload follows at once, then the descriptor.

    Attributes
    ----------
    sequence : int
        With the node's UUID this is the revision id.
    payload_length, descriptor_length : int
        Bytes.
    payload_crc, descriptor_crc : int
        CRC-32.
    """

    kind: int
    flags: int
    epoch: bytes
    sequence: int
    payload_length: int
    descriptor_length: int
    written_us: int
    payload_crc: int
    descriptor_crc: int

    def pack(self) -> bytes:
        body = _RECORD.pack(
            RECORD_MAGIC,
            self.kind,
            self.flags,
            self.epoch,
            self.sequence,
            self.payload_length,
            self.descriptor_length,
            self.written_us,
            self.payload_crc,
            self.descriptor_crc,
        )
        return body + _CRC.pack(crc32(body))

    @classmethod
    def unpack(cls, data: Bytes, epoch: bytes) -> "RecordHeader | None":
        """The header, or None where its magic, epoch or CRC does not hold."""
        if len(data) < HEADER_BYTES or bytes(data[:4]) != RECORD_MAGIC or bytes(data[8:24]) != epoch:
            return None
        if _CRC.unpack_from(data, HEADER_BYTES - 4)[0] != crc32(data[: HEADER_BYTES - 4]):
            return None
        return cls(*_RECORD.unpack_from(data)[1:])

    @property
    def descriptor_offset(self) -> int:
        """From the start of the record."""
        return HEADER_BYTES + self.payload_length

    @property
    def total_length(self) -> int:
        """Header, payload, descriptor and padding, in bytes."""
        return align(HEADER_BYTES + self.payload_length + self.descriptor_length)


def align(length: int, to: int = ALIGNMENT) -> int:
    return (length + to - 1) // to * to
