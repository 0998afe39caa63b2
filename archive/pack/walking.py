"""A pack's entries by their local headers, for packs whose tail is damaged."""

import struct
from collections.abc import Callable, Iterator

from archive.errors import Damaged
from archive.pack.zip_format import LIMIT_32, LOCAL, LOCAL_SIGNATURE, Entry, place

NAME_BYTES_MAX = 512
SEARCH_BYTES = 1 << 20
Read = Callable[[int, int], bytes]


def entry_at(read: Read, at: int, end: int) -> tuple[Entry, int]:
    """The entry whose local header starts here, and its CRC-32; `Damaged` where none starts here that lies before `end`."""
    head = read(at, min(LOCAL.size + NAME_BYTES_MAX + 128, end - at))
    if len(head) < LOCAL.size or head[:4] != LOCAL_SIGNATURE:
        raise Damaged(f"no entry starts at {at}")
    fields = LOCAL.unpack_from(head)
    crc, length, name_length = fields[6], fields[7], fields[9]
    try:
        name = head[LOCAL.size : LOCAL.size + name_length].decode("ascii")
        if length == LIMIT_32:
            length = struct.unpack_from("<Q", head, LOCAL.size + name_length + 4)[0]
    except (UnicodeDecodeError, struct.error):
        raise Damaged(f"no entry starts at {at}") from None
    entry = place(name, length, at)
    if entry.data_offset + length > end or not head.startswith(entry.local_header(crc)):
        raise Damaged(f"no entry starts at {at}")
    return entry, crc


def walk(read: Read, start: int, end: int) -> Iterator[tuple[Entry, int]]:
    """Every entry from `start` to `end`, one behind the other.

    Raises
    ------
    Damaged
        One does not start where the one before ends.
    """
    at = start
    while at < end:
        entry, crc = entry_at(read, at, end)
        yield entry, crc
        at = entry.data_offset + entry.length


def search(read: Read, end: int) -> Iterator[tuple[Entry, int]]:
    """Every entry that still has its local header, whatever lies between them."""
    at = 0
    while at < end:
        try:
            entry, crc = entry_at(read, at, end)
        except Damaged:
            at = _next_header(read, at + 1, end)
            continue
        yield entry, crc
        at = entry.data_offset + entry.length


def _next_header(read: Read, at: int, end: int) -> int:
    while at < end:
        piece = read(at, min(SEARCH_BYTES, end - at))
        found = piece.find(LOCAL_SIGNATURE)
        if found >= 0:
            return at + found
        at += max(len(piece) - len(LOCAL_SIGNATURE) + 1, 1)
    return end
