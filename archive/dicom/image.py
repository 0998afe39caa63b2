"""The pixel data of an instance, from the elements that describe its image (DICOM PS3.3 C.7.6.3.1, C.7.6.6, PS3.5 8, A.4)."""

from collections.abc import Mapping, Sequence
from struct import unpack

from archive.dicom.frames import ITEM_HEADER_LENGTH, PixelData, encapsulated_pixel_data, native_pixel_data, scan_fragments
from archive.dicom.scan import PIXEL_DATA, PIXEL_DATA_TAGS, Buffer, RawElement
from archive.dicom.syntax import Encoding

_SAMPLES_PER_PIXEL = 0x00280002
_PHOTOMETRIC_INTERPRETATION = 0x00280004
_NUMBER_OF_FRAMES = 0x00280008
_ROWS = 0x00280010
_COLUMNS = 0x00280011
_BITS_ALLOCATED = 0x00280100
_EXTENDED_OFFSET_TABLE = 0x7FE00001
_FLOAT_PIXEL_DATA = 0x7FE00008
_DOUBLE_FLOAT_PIXEL_DATA = 0x7FE00009

IMAGE_TAGS = frozenset(
    (_SAMPLES_PER_PIXEL, _PHOTOMETRIC_INTERPRETATION, _NUMBER_OF_FRAMES, _ROWS, _COLUMNS, _BITS_ALLOCATED, _EXTENDED_OFFSET_TABLE)
)
"""What `locate_pixel_data` wants besides the pixel data itself."""

FRAMES_MAX = 1 << 31


def locate_pixel_data(data_set: Buffer, found: Mapping[int, RawElement], encoding: Encoding) -> PixelData | None:
    """Where the frames lie; None without pixel data.

    Parameters
    ----------
    data_set : Buffer
        The data set, inflated.
    found : mapping of int to RawElement
        Its elements by tag, those of `IMAGE_TAGS` and pixel data at least.
    encoding : Encoding
        How it is written.
    """
    tag = next((tag for tag in sorted(PIXEL_DATA_TAGS) if tag in found), None)
    if tag is None:
        return None
    element, little = found[tag], encoding.little
    number_of_frames = _number_of_frames(data_set, found)
    if element.undefined or (encoding.encapsulated and _holds_items(data_set, element, little)):
        items = scan_fragments(data_set, element.offset, element.offset + element.length, little)
        basic = _numbers(data_set, items[0], "I", little) if items else ()
        table = _extended_offset_table(data_set, found, little) or basic
        if number_of_frames is None and not items[1:]:
            table = ()
        after_table = items[0][0] + items[0][1] if items else element.offset
        lengths = [length for _, length in items[1:]]
        return encapsulated_pixel_data(f"{tag:08X}", data_set, after_table + ITEM_HEADER_LENGTH, lengths, number_of_frames, table)
    return native_pixel_data(f"{tag:08X}", element.offset, element.length, number_of_frames or 1, _frame_bits(data_set, found, tag, little))


def _holds_items(data_set: Buffer, element: RawElement, little: bool) -> bool:
    """Some old writers give encapsulated pixel data a defined length."""
    item = b"\xfe\xff\x00\xe0" if little else b"\xff\xfe\xe0\x00"
    return element.length >= 8 and bytes(data_set[element.offset : element.offset + 4]) == item


def _number_of_frames(data_set: Buffer, found: Mapping[int, RawElement]) -> int | None:
    element = found.get(_NUMBER_OF_FRAMES)
    if element is None or element.length > 64:
        return None
    text = bytes(data_set[element.offset : element.offset + element.length]).strip(b"\0 ")
    number = int(text) if text.isdigit() else 0
    return number if 0 < number < FRAMES_MAX else None


def _extended_offset_table(data_set: Buffer, found: Mapping[int, RawElement], little: bool) -> Sequence[int]:
    element = found.get(_EXTENDED_OFFSET_TABLE)
    return _numbers(data_set, (element.offset, element.length), "Q", little) if element is not None else ()


def _numbers(data_set: Buffer, place: tuple[int, int], letter: str, little: bool) -> Sequence[int]:
    offset, length = place
    count = length // (8 if letter == "Q" else 4)
    size = count * (8 if letter == "Q" else 4)
    return unpack(f"{'<' if little else '>'}{count}{letter}", bytes(data_set[offset : offset + size]))


def _frame_bits(data_set: Buffer, found: Mapping[int, RawElement], tag: int, little: bool) -> int:
    """Bits of a native frame as the image is described; 0 where something is missing (DICOM PS3.5 8.1.1, 8.2)."""
    rows, columns = _short(data_set, found, _ROWS, little), _short(data_set, found, _COLUMNS, little)
    if tag == _FLOAT_PIXEL_DATA:
        return rows * columns * 32
    if tag == _DOUBLE_FLOAT_PIXEL_DATA:
        return rows * columns * 64
    bits = rows * columns * (_short(data_set, found, _SAMPLES_PER_PIXEL, little) or 1) * _short(data_set, found, _BITS_ALLOCATED, little)
    element = found.get(_PHOTOMETRIC_INTERPRETATION)
    if element is not None and tag == PIXEL_DATA:
        text = bytes(data_set[element.offset : element.offset + min(element.length, 16)]).strip(b"\0 ")
        if text in (b"YBR_FULL_422", b"YBR_PARTIAL_422"):  # two chrominance values for two pixels (DICOM PS3.3 C.7.6.3.1.2)
            return bits * 2 // 3
        if text == b"YBR_PARTIAL_420":
            return bits // 2
    return bits


def _short(data_set: Buffer, found: Mapping[int, RawElement], tag: int, little: bool) -> int:
    element = found.get(tag)
    if element is None or element.length not in (2, 4):
        return 0
    return int.from_bytes(bytes(data_set[element.offset : element.offset + element.length]), "little" if little else "big")
