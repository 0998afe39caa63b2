"""The parts of a ZIP file that a pack needs (PKWARE APPNOTE 6.3.10): stored entries, aligned, ZIP64 where sizes ask for it."""

import struct
from dataclasses import dataclass

from archive.pack.frame import ALIGNMENT

LIMIT_32 = 0xFFFFFFFF
LOCAL = struct.Struct("<IHHHHHIIIHH")
LOCAL_SIGNATURE = b"PK\x03\x04"
_CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
_END_64 = struct.Struct("<IQHHIIQQQQ")
_END_64_LOCATOR = struct.Struct("<IIQI")
_END = struct.Struct("<IHHHHIIH")
END_BYTES = _END_64.size + _END_64_LOCATOR.size + _END.size

DOS_TIME, DOS_DATE = 0, 0x0021
"""1980-01-01 00:00 always, so that the same content gives the same bytes; true times stand in the content index."""
MADE_BY = 3 << 8 | 45
ZIP64_EXTRA = 0x0001
ALIGNMENT_EXTRA = 0xD935
"""The header id that Android's zipalign uses for padding: u16 alignment, then zeros."""
READ_ONLY_FILE = 0o100444 << 16


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in the ZIP.

    Attributes
    ----------
    header_offset, data_offset : int
        Of its local header and of its first byte, from the start of the file.
    """

    name: str
    length: int
    header_offset: int
    data_offset: int

    def local_header(self, crc: int) -> bytes:
        """Everything before the data, `data_offset - header_offset` bytes."""
        name = self.name.encode("ascii")
        large = self.length >= LIMIT_32
        size = LIMIT_32 if large else self.length
        extra = struct.pack("<HHQQ", ZIP64_EXTRA, 16, self.length, self.length) if large else b""
        padding = self.data_offset - self.header_offset - LOCAL.size - len(name) - len(extra)
        extra += struct.pack("<HHH", ALIGNMENT_EXTRA, padding - 4, ALIGNMENT) + bytes(padding - 6)
        return LOCAL.pack(0x04034B50, 45 if large else 20, 0, 0, DOS_TIME, DOS_DATE, crc, size, size, len(name), len(extra)) + name + extra

    def central_header(self, crc: int) -> bytes:
        name = self.name.encode("ascii")
        large, far = self.length >= LIMIT_32, self.header_offset >= LIMIT_32
        fields = ([self.length] * 2 if large else []) + ([self.header_offset] if far else [])
        extra = struct.pack(f"<HH{len(fields)}Q", ZIP64_EXTRA, 8 * len(fields), *fields) if fields else b""
        size, offset = LIMIT_32 if large else self.length, LIMIT_32 if far else self.header_offset
        return (
            _CENTRAL.pack(
                0x02014B50,
                MADE_BY,
                45 if fields else 20,
                0,
                0,
                DOS_TIME,
                DOS_DATE,
                crc,
                size,
                size,
                len(name),
                len(extra),
                0,
                0,
                0,
                READ_ONLY_FILE,
                offset,
            )
            + name
            + extra
        )


def place(name: str, length: int, at: int) -> Entry:
    """An entry whose local header starts at `at` and whose data starts on the next multiple of 64 that leaves room."""
    least = at + LOCAL.size + len(name) + (20 if length >= LIMIT_32 else 0) + 6
    return Entry(name, length, at, (least + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


def end_records(entries: int, directory_offset: int, directory_length: int, comment_length: int) -> bytes:
    """ZIP64 end record and locator, always, and the plain end record; the comment follows."""
    return (
        _END_64.pack(0x06064B50, _END_64.size - 12, MADE_BY, 45, 0, 0, entries, entries, directory_length, directory_offset)
        + _END_64_LOCATOR.pack(0x07064B50, 0, directory_offset + directory_length, 1)
        + _END.pack(
            0x06054B50,
            0,
            0,
            min(entries, 0xFFFF),
            min(entries, 0xFFFF),
            min(directory_length, LIMIT_32),
            min(directory_offset, LIMIT_32),
            comment_length,
        )
    )
