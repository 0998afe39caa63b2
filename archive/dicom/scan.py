"""The walk over the elements of a data set, without decoding values (DICOM PS3.5 chapter 7).

What devices send is walked as leniently as it can be without guessing: wrong or missing value representations, delimiters
left out, odd lengths, a last element that was cut off. Values are never copied, only located.
"""

from collections.abc import Iterator
from mmap import mmap
from struct import Struct
from typing import NamedTuple

from archive.dicom.syntax import Encoding, encoding_of
from archive.errors import NotUnderstood

Buffer = bytes | bytearray | memoryview | mmap

UNDEFINED = 0xFFFFFFFF
DEPTH_MAX = 64
"""Levels that are walked at once: every sequence of undefined length is one, and every such item in it."""

ITEM = 0xFFFEE000
ITEM_DELIMITATION = 0xFFFEE00D
SEQUENCE_DELIMITATION = 0xFFFEE0DD
SPECIFIC_CHARACTER_SET = 0x00080005
PIXEL_DATA = 0x7FE00010
PIXEL_DATA_TAGS = frozenset((0x7FE00008, 0x7FE00009, PIXEL_DATA))

_SHORT_NAMES = "AEASATCSDADSDTFDFLISLOLTPNSHSLSSSTTMUIULUS"
_LONG_NAMES = "OBODOFOLOVOWSQSVUCUNURUTUV"
_SHORT_VRS = {_SHORT_NAMES[i : i + 2].encode(): _SHORT_NAMES[i : i + 2] for i in range(0, len(_SHORT_NAMES), 2)}
_LONG_VRS = {_LONG_NAMES[i : i + 2].encode(): _LONG_NAMES[i : i + 2] for i in range(0, len(_LONG_NAMES), 2)}
_VRS = _SHORT_VRS | _LONG_VRS
SHORT_VRS, LONG_VRS = frozenset(_SHORT_VRS.values()), frozenset(_LONG_VRS.values())
"""Value representations with explicit lengths of 16 and of 32 bits: the header of an element has 8 or 12 bytes (DICOM PS3.5 7.1.2)."""


class RawElement(NamedTuple):
    """Where one element lies.

    Parameters
    ----------
    tag : int
        0xGGGGEEEE.
    vr : str
        As written; empty where the element has none (implicit VR).
    offset : int
        First byte of the value.
    length : int
        Bytes of the value that are there; with undefined length up to, without, the delimitation item.
    undefined : bool
        The length was undefined: the value is a sequence, or pixel data in fragments.
    end : int
        First byte after the element.
    truncated : bool
        The data ends before the element does.
    """

    tag: int
    vr: str
    offset: int
    length: int
    undefined: bool
    end: int
    truncated: bool = False


class Item(NamedTuple):
    """Where the content of one item of a sequence lies, and how its elements are written."""

    offset: int
    length: int
    encoding: Encoding


class _Order:
    """The readers of one byte order."""

    def __init__(self, sign: str) -> None:
        self.implicit = Struct(sign + "HHI").unpack_from
        self.explicit = Struct(sign + "HH2sH").unpack_from
        self.length = Struct(sign + "I").unpack_from


_LITTLE, _BIG = _Order("<"), _Order(">")


def sniff_encoding(data_set: Buffer, transfer_syntax_uid: str) -> Encoding:
    """How the data set is really written: the claim of its transfer syntax, checked against the first elements.

    Parameters
    ----------
    data_set : Buffer
        The data set; the inflated one where the transfer syntax is deflated.
    transfer_syntax_uid : str
        The claim.
    """
    claim = encoding_of(transfer_syntax_uid)
    if len(data_set) < 8:
        return claim
    named = bytes(data_set[4:6]) in _VRS
    readings = [(True, claim.little), (True, not claim.little)] if named else []
    if not (named and claim.explicit):
        readings.append((False, True))
    for explicit, little in readings:
        if _begins_with_elements(data_set, explicit, _LITTLE if little else _BIG):
            break
    else:
        explicit, little = claim.explicit or named, claim.little
    if (explicit, little) == (claim.explicit, claim.little):
        return claim
    return Encoding(explicit, little, claim.deflated, claim.encapsulated)


def _begins_with_elements(data: Buffer, explicit: bool, order: _Order) -> bool:
    """Whether the data, read so, begins with an element that fits, and after an explicit one comes another."""
    end = len(data)
    _, _, name, length = order.explicit(data, 0)
    offset = 8
    if not explicit:
        length = order.length(data, 4)[0]
    elif name in _LONG_VRS:
        if end < 12:
            return False
        offset, length = 12, order.length(data, 8)[0]
    if length == UNDEFINED:
        return True
    position: int = offset + length
    if position > end - 8 or not explicit:
        return position <= end
    return bytes(data[position + 4 : position + 6]) in _VRS


def scan_elements(
    data_set: Buffer,
    encoding: Encoding,
    start: int = 0,
    end: int | None = None,
    stop_tag: int | None = None,
    wanted: frozenset[int] | None = None,
) -> Iterator[RawElement]:
    """The elements of one level in the order of the bytes; the content of sequences is stepped over.

    Fewer than eight bytes after the last element are padding. The last element may be cut off: then it is `truncated`.

    Parameters
    ----------
    data_set : Buffer
        The data set, inflated.
    encoding : Encoding
        How it is written, as `sniff_encoding` found it or an `Item` says.
    start, end : int
        Bytes to walk, offsets in the data set.
    stop_tag : int, optional
        The walk ends before the first element with this tag or a higher one.
    wanted : frozenset of int, optional
        Only elements with these tags are given out.

    Raises
    ------
    NotUnderstood
        The bytes make no sense from here on; what was good has been given out.
    """
    end = len(data_set) if end is None else min(end, len(data_set))
    order = _LITTLE if encoding.little else _BIG
    explicit, read_explicit, read_implicit = encoding.explicit, order.explicit, order.implicit
    stop = 0xFFFE0000 if stop_tag is None else min(stop_tag, 0xFFFE0000)
    position, last = start, end - 8
    while position <= last:
        if explicit:
            group, element, name, length = read_explicit(data_set, position)
            tag = group << 16 | element
            vr = _SHORT_VRS.get(name)
            if vr is not None:
                offset = position + 8
            else:
                vr, offset, length = _read_unusual(data_set, position, end, tag, name, length, order)
        else:
            group, element, length = read_implicit(data_set, position)
            tag = group << 16 | element
            vr, offset = "", position + 8
        if tag >= stop:
            if tag in (ITEM_DELIMITATION, SEQUENCE_DELIMITATION):  # a stray one: some writers close what they never opened
                position += 8
                continue
            if group < 0xFFFE:
                return
            raise NotUnderstood(f"no element at offset {position} of the data set")
        if length == UNDEFINED:
            content_end, position, truncated = _skip(data_set, offset, end, encoding, in_item=False)
            if wanted is None or tag in wanted:
                yield RawElement(tag, vr, offset, content_end - offset, True, position, truncated)
            continue
        position = offset + length
        if position > end:
            if wanted is None or tag in wanted:
                yield RawElement(tag, vr, offset, end - offset, False, end, True)
            return
        if wanted is None or tag in wanted:
            yield RawElement(tag, vr, offset, length, False, position)


def scan_items(data_set: Buffer, element: RawElement, encoding: Encoding) -> Iterator[Item]:
    """The items of a sequence, in order.

    Parameters
    ----------
    data_set : Buffer
        The data set, inflated.
    element : RawElement
        A sequence, or an element of unknown representation that holds one.
    encoding : Encoding
        How the level of the element is written.

    Raises
    ------
    NotUnderstood
        The value is not a sequence of items; those that were good have been given out.
    """
    position, end = element.offset, element.offset + element.length
    encoding = _content_encoding(data_set, position, end, encoding)
    order = _LITTLE if encoding.little else _BIG
    while end - position >= 8:
        group, number, length = order.implicit(data_set, position)
        tag = group << 16 | number
        position += 8
        if tag == SEQUENCE_DELIMITATION:
            return
        if tag != ITEM:
            raise NotUnderstood(f"no item at offset {position - 8} of the data set")
        inside = _item_encoding(data_set, position, end, encoding)
        if length == UNDEFINED:
            content_end, after, _ = _skip(data_set, position, end, inside, in_item=True)
        else:
            content_end = after = min(position + length, end)
        yield Item(position, content_end - position, inside)
        position = after


def _is_name(name: bytes) -> bool:
    return 0x41 <= name[0] <= 0x5A and 0x41 <= name[1] <= 0x5A


def _read_unusual(data: Buffer, position: int, end: int, tag: int, name: bytes, length: int, order: _Order) -> tuple[str, int, int]:
    """VR, offset and length of an element of an explicit data set that has no short VR."""
    vr = _LONG_VRS.get(name)
    if vr is None:
        if not _is_name(name):  # implicit in the middle of explicit, and all items and delimiters
            return "", position + 8, order.length(data, position + 4)[0]
        vr = name.decode("ascii")
        if length or end - position < 16 or _follows(data, position + 8, tag, order):
            return vr, position + 8, length
        # What later editions add has 32-bit lengths (DICOM PS3.5 7.1.2).
    elif end - position < 12:
        return vr, position + 8, end - position  # the header itself is cut off: more than is there
    return vr, position + 12, order.length(data, position + 8)[0]


def _follows(data: Buffer, position: int, tag: int, order: _Order) -> bool:
    """Whether an explicit element with a higher tag begins here."""
    group, element, name, _ = order.explicit(data, position)
    return (group << 16 | element) > tag and name in _VRS


def _content_encoding(data: Buffer, position: int, end: int, encoding: Encoding) -> Encoding:
    """Encoding of the items of a sequence: little endian also where UN hides one in a big endian data set (DICOM PS3.5 6.2.2)."""
    if not encoding.little and end - position >= 4 and bytes(data[position : position + 4]) == b"\xfe\xff\x00\xe0":
        return Encoding(encoding.explicit, True)
    return encoding


def _item_encoding(data: Buffer, position: int, end: int, encoding: Encoding) -> Encoding:
    """Encoding of one item: implicit in an explicit data set where its first element names no VR (DICOM PS3.5 6.2.2)."""
    if encoding.explicit and end - position >= 8:
        group, _, name, _ = (_LITTLE if encoding.little else _BIG).explicit(data, position)
        if group != 0xFFFE and not _is_name(name):
            return Encoding(False, encoding.little)
    return encoding


def _skip(data: Buffer, position: int, end: int, encoding: Encoding, *, in_item: bool) -> tuple[int, int, bool]:
    """Find the end of something of undefined length: (end of its content, end of its delimiter, whether the data ended first)."""
    if not in_item:
        encoding = _content_encoding(data, position, end, encoding)
    order = _LITTLE if encoding.little else _BIG
    read_explicit, read_implicit = order.explicit, order.implicit
    # One entry for each open level: None for a sequence, for an item whether its elements are explicit.
    levels: list[bool | None] = [encoding.explicit if in_item else None]
    last = end - 8
    while position <= last:
        explicit = levels[-1]
        if explicit is None:
            group, element, length = read_implicit(data, position)
            tag = group << 16 | element
            position += 8
            if tag == ITEM:
                if length != UNDEFINED:
                    position += length
                elif len(levels) < DEPTH_MAX:
                    levels.append(_item_encoding(data, position, end, encoding).explicit)
                else:
                    raise NotUnderstood(f"sequences nested deeper than {DEPTH_MAX // 2} at offset {position} of the data set")
            elif tag == SEQUENCE_DELIMITATION:
                levels.pop()
                if not levels:
                    return position - 8, position, False
            else:
                raise NotUnderstood(f"no item at offset {position - 8} of the data set")
            continue
        if explicit:
            group, element, name, length = read_explicit(data, position)
            offset = position + 8
            if name not in _SHORT_VRS:
                _, offset, length = _read_unusual(data, position, end, group << 16 | element, name, length, order)
        else:
            group, element, length = read_implicit(data, position)
            offset = position + 8
        if group != 0xFFFE:
            if length == UNDEFINED:
                levels.append(None)
                position = offset
            else:
                position = offset + length
        elif element == 0xE00D or element == 0xE0DD:
            levels.pop()
            after = position + 8 if element == 0xE00D else position  # its own delimiter may have been forgotten
            if not levels:
                return position, after, False
            position = after
        else:
            raise NotUnderstood(f"an item outside a sequence at offset {position} of the data set")
    return end, end, True
