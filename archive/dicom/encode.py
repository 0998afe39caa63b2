"""Elements as bytes (DICOM PS3.5 chapter 7)."""

from collections.abc import Sequence
from struct import Struct

from archive.dicom.scan import Buffer
from archive.dicom.syntax import Encoding
from archive.errors import NotUnderstood

LENGTH_MAX = 0xFFFFFFFE
"""Longest value that is even and not of undefined length."""

_SHORT_VRS = frozenset(
    ("AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI", "UL", "US")
)
_TEXT_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UR", "UT"))


class _Order:
    """Writers of headers in one byte order."""

    def __init__(self, sign: str) -> None:
        self.implicit = Struct(sign + "HHI").pack
        self.short = Struct(sign + "HH2sH").pack
        self.long = Struct(sign + "HH2sHI").pack


_LITTLE, _BIG = _Order("<"), _Order(">")


def length_of(parts: Sequence[Buffer]) -> int:
    """Bytes of all parts."""
    return sum(map(len, parts))


def encode_element(tag: int, vr: str, parts: Sequence[Buffer], encoding: Encoding) -> list[Buffer]:
    """One element of defined length: its header, its value's parts as they are, padding where the length is odd.

    Raises
    ------
    NotUnderstood
        The value is too long for an element.
    """
    length = length_of(parts)
    padding: list[Buffer] = []
    if length % 2:
        padding = [b" " if vr in _TEXT_VRS else b"\0"]
        length += 1
    if length > LENGTH_MAX:
        raise NotUnderstood(f"element {tag:08X} would be {length} bytes long")
    order = _LITTLE if encoding.little else _BIG
    group, number = tag >> 16, tag & 0xFFFF
    if not encoding.explicit:
        header = order.implicit(group, number, length)
    elif vr in _SHORT_VRS and length < 0x10000:
        header = order.short(group, number, vr.encode(), length)
    else:  # One that is too long for its value representation is UN (DICOM PS3.5 6.2.2).
        header = order.long(group, number, b"UN" if vr in _SHORT_VRS else vr.encode(), 0, length)
    return [header, *parts, *padding]


def encode_item(parts: Sequence[Buffer], encoding: Encoding) -> list[Buffer]:
    """One item of a sequence, of defined length."""
    order = _LITTLE if encoding.little else _BIG
    return [order.implicit(0xFFFE, 0xE000, length_of(parts)), *parts]
