"""Byte ranges of single part answers (RFC 9110 14)."""

import re
from collections.abc import Iterable, Iterator

from archive.errors import ArchiveError

_RANGE = re.compile(r"bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)

Extent = tuple[int, int]


class RangeNotSatisfiable(ArchiveError):
    """The range begins behind the last byte (416).

    Parameters
    ----------
    length : int
        How many bytes there are.
    """

    def __init__(self, length: int) -> None:
        super().__init__(f"there are {length} bytes")
        self.length = length


def parse_range(text: str, length: int) -> tuple[int, int] | None:
    """First byte and end of the range that a Range header asks for; None where the whole is to be sent.

    Several ranges, other units and what makes no sense are passed over, as RFC 9110 14.2 lets a server do.

    Raises
    ------
    RangeNotSatisfiable
        Nothing of it lies in the body.
    """
    found = _RANGE.fullmatch(text.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, length - int(found[2])), length
    else:
        start, end = int(found[1]), min(int(found[2]) + 1 if found[2] else length, length)
        if found[2] and int(found[2]) < start:
            return None
    if start >= end:
        raise RangeNotSatisfiable(length)
    return start, end


def slice_extents(extents: Iterable[Extent], start: int, end: int) -> Iterator[Extent]:
    """The part from `start` up to `end` of bytes that lie in several places, as (offset, length) of each piece."""
    position = 0
    for offset, length in extents:
        first, last = max(start - position, 0), min(end - position, length)
        if first < last:
            yield offset + first, last - first
        position += length
        if position >= end:
            return
