"""Data sets made by hand, byte by byte, for the tests of archive/dicom."""

from struct import pack

LONG_VRS = frozenset(["OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"])
UNDEFINED = 0xFFFFFFFF


def element(tag: int, vr: str, value: bytes, *, explicit: bool = True, little: bool = True, length: int | None = None) -> bytes:
    """One element; `length` in place of the value's own, for lies and undefined lengths."""
    order = "<" if little else ">"
    length = len(value) if length is None else length
    head = pack(order + "HH", tag >> 16, tag & 0xFFFF)
    if not explicit:
        return head + pack(order + "I", length) + value
    if vr in LONG_VRS:
        return head + vr.encode() + b"\0\0" + pack(order + "I", length) + value
    return head + vr.encode() + pack(order + "H", length) + value


def item(content: bytes, *, defined: bool = True, little: bool = True) -> bytes:
    """One item of a sequence."""
    order = "<" if little else ">"
    if defined:
        return pack(order + "HHI", 0xFFFE, 0xE000, len(content)) + content
    return pack(order + "HHI", 0xFFFE, 0xE000, UNDEFINED) + content + pack(order + "HHI", 0xFFFE, 0xE00D, 0)


def delimited(content: bytes, *, little: bool = True) -> bytes:
    """The value of a sequence of undefined length."""
    return content + pack(("<" if little else ">") + "HHI", 0xFFFE, 0xE0DD, 0)


def identity(**encoding: bool) -> bytes:
    """The four UIDs that every object has."""
    return b"".join(
        (
            element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0", **encoding),
            element(0x00080018, "UI", b"1.2.3.4.5\0", **encoding),
            element(0x0020000D, "UI", b"1.2.3\0", **encoding),
            element(0x0020000E, "UI", b"1.2.3.4\0", **encoding),
        )
    )
