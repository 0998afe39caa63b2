"""Bulk data: values that metadata names by URI instead of holding them (DICOM PS3.18 F.2.6).

The path of a bulk datum leads from the data set to the element: a tag, or sequence tag / item index / tag, `7FE00010`,
`54000100/0/54001010`. Values are served as they are stored: those of a big endian data set in big endian order.
"""

import re
from typing import NamedTuple

from archive.dicom.context import SHARED_BYTES_MAX, Context, is_shared
from archive.dicom.scan import PIXEL_DATA_TAGS, Buffer, Item, RawElement, scan_elements, scan_items, sniff_encoding
from archive.dicom.values import BINARY_VRS
from archive.errors import NotFound, NotUnderstood

BINARY_BYTES_MAX = 1024
"""Longest binary value that metadata holds inline."""
OTHER_BYTES_MAX = 1 << 20
"""Longest value of another kind that metadata holds inline."""

# The Standard lets no other value be bulk data.
_OTHER_VRS = frozenset(("DS", "FD", "FL", "IS", "LT", "SL", "SS", "ST", "SV", "UC", "UL", "US", "UT", "UV"))
_PATH = re.compile(r"[0-9A-F]{8}(?:/[0-9]{1,9}/[0-9A-F]{8}){0,64}", re.ASCII)


class BulkData(NamedTuple):
    """Where a bulk datum lies: offset and bytes in the data set, and its value representation."""

    offset: int
    length: int
    vr: str


def is_bulk_data(tag: int, vr: str, length: int) -> bool:
    """Whether metadata names a value by URI: pixel data always, binary values above 1 KiB, others above 1 MiB."""
    if vr in BINARY_VRS:
        return length > BINARY_BYTES_MAX or (tag in PIXEL_DATA_TAGS and length > 0)
    return length > OTHER_BYTES_MAX and vr in _OTHER_VRS


def find_bulk_data(data_set: Buffer, transfer_syntax_uid: str, path: str) -> BulkData:
    """Find the value that a path names.

    Parameters
    ----------
    data_set : Buffer
        The data set; the inflated one where the transfer syntax is deflated.
    transfer_syntax_uid : str
        Its transfer syntax.
    path : str
        As in the metadata, behind `bulkdata/`.

    Returns
    -------
    BulkData
        The whole value field. Of encapsulated pixel data that is all items, the offset table included, without
        the sequence delimitation item.

    Raises
    ------
    NotFound
        The path leads nowhere, or to something that metadata holds inline.
    """
    if _PATH.fullmatch(path) is None:
        raise NotFound(f"no bulk data {path[:200]!r}: not a path of tags and item indexes")
    steps = path.split("/")
    encoding = sniff_encoding(data_set, transfer_syntax_uid)
    item, context = Item(0, len(data_set), encoding), Context(encoding)
    for tag, index in zip(steps[:-1:2], steps[1::2], strict=True):
        sequence, context = _find_element(data_set, item, context, int(tag, 16), path)
        item = _find_item(data_set, sequence, context, int(index), path)
    element, context = _find_element(data_set, item, context, int(steps[-1], 16), path)
    vr = context.vr_of(element)
    if not is_bulk_data(element.tag, vr, element.length):
        raise NotFound(f"no bulk data {path}: the value stands in the metadata")
    return BulkData(element.offset, element.length, vr)


def _find_element(data_set: Buffer, item: Item, outer: Context, tag: int, path: str) -> tuple[RawElement, Context]:
    """The last element with this tag in one level, as metadata has it, and the context that it is understood in."""
    found = None
    shared = []
    try:
        for element in scan_elements(data_set, item.encoding, item.offset, item.offset + item.length):
            if element.tag == tag:
                found = element
            if element.length <= SHARED_BYTES_MAX and is_shared(element.tag):
                shared.append((element.tag, bytes(data_set[element.offset : element.offset + element.length])))
    except NotUnderstood:
        if found is None:
            raise NotFound(f"no bulk data {path}: the data set cannot be read so far") from None
    if found is None:
        raise NotFound(f"no bulk data {path}: there is no element {tag:08X}")
    return found, outer.inside(item.encoding, shared)


def _find_item(data_set: Buffer, sequence: RawElement, context: Context, index: int, path: str) -> Item:
    if context.vr_of(sequence) == "SQ":
        try:
            for at, item in enumerate(scan_items(data_set, sequence, context.encoding)):
                if at == index:
                    return item
        except NotUnderstood as error:
            raise NotFound(f"no bulk data {path}: {error}") from error
    raise NotFound(f"no bulk data {path}: {sequence.tag:08X} has no item {index}")
