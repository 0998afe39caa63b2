"""The tail locator: the last 256 bytes of every pack, which are also the ZIP file's comment. Fixed columns of ASCII."""

import re
from dataclasses import dataclass

from archive.errors import Damaged, UnknownFormat
from archive.pack.checksum import Bytes, crc32

LOCATOR_BYTES = 256
FORMAT_VERSION = 1
CRC_OFFSET = LOCATOR_BYTES - 9
"""Of the eight hex digits; this place, the total length and the version's place hold for every version to come."""
_START = re.compile(rb"^dicom-archive-pack (\d{4}) flags ([0-9a-f]{8}) ")
_FIELDS = re.compile(rb"length (\d{20}) index (\d{20}) (\d{20}) ([0-9a-f]{8}) blocks (\d{20}) (\d{20}) (\d{12}) tail ([0-9a-f]{8}) *$")


@dataclass(frozen=True, slots=True)
class Locator:
    """Where a pack's tail lies.

    Attributes
    ----------
    length : int
        Of the whole file, in bytes.
    index_offset, index_length, index_crc : int
        The gzipped content index and its CRC-32.
    covered : int
        The block CRCs cover bytes 0 to here; here their entry's local header starts.
    blocks_offset, blocks : int
        The block CRCs, four bytes each, little endian.
    tail_crc : int
        CRC-32 of the bytes from `covered` to the locator.
    """

    length: int
    index_offset: int
    index_length: int
    index_crc: int
    covered: int
    blocks_offset: int
    blocks: int
    tail_crc: int

    def pack(self) -> bytes:
        text = (
            (
                f"dicom-archive-pack {FORMAT_VERSION:04d} flags {0:08x} length {self.length:020d}"
                f" index {self.index_offset:020d} {self.index_length:020d} {self.index_crc:08x}"
                f" blocks {self.covered:020d} {self.blocks_offset:020d} {self.blocks:012d} tail {self.tail_crc:08x}"
            )
            .encode()
            .ljust(CRC_OFFSET)
        )
        return text + f"{crc32(text):08x}\n".encode()

    @classmethod
    def unpack(cls, data: Bytes) -> "Locator":
        """
        Raises
        ------
        Damaged
            The bytes are no locator, or its CRC does not hold.
        UnknownFormat
            Written by a newer version.
        """
        raw = bytes(data)
        start = _START.match(raw)
        if start is None or len(raw) != LOCATOR_BYTES:
            raise Damaged("the pack does not end with a tail locator: cut short, damaged, or no pack")
        if f"{crc32(raw[:CRC_OFFSET]):08x}\n".encode() != raw[CRC_OFFSET:]:
            raise Damaged("the pack's tail locator does not match its CRC")
        version, flags = int(start[1]), int(start[2], 16)
        fields = _FIELDS.match(raw[start.end() : CRC_OFFSET])
        if version > FORMAT_VERSION or flags:
            raise UnknownFormat(f"the pack has format version {version}, flags {flags:#x}; this program knows version {FORMAT_VERSION}")
        if fields is None:
            raise Damaged("the pack's tail locator lacks fields of its version")
        return cls(*(int(fields[i], 16 if i in (4, 8) else 10) for i in range(1, 9)))
