"""The same data set in another, uncompressed transfer syntax (DICOM PS3.5 chapters 7 and 8, annex A).

Values stay what they are, byte for byte where both syntaxes have one byte order; headers are written anew, lengths of sequences and
items too. Group lengths are left out (PS3.5 7.2). Compressed pixel data is decoded, that of icons too, and what describes it is
put right; everything that cannot be done is an error before a byte goes out.
"""

from collections.abc import Callable, Mapping
from itertools import chain

from archive.dicom.context import SHARED_BYTES_MAX, Context, is_shared
from archive.dicom.decoding import Picture
from archive.dicom.encode import LENGTH_MAX, encode_element, encode_item
from archive.dicom.image import locate_pixel_data
from archive.dicom.scan import DEPTH_MAX, PIXEL_DATA, Buffer, RawElement, scan_elements, scan_items, sniff_encoding
from archive.dicom.syntax import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Encoding,
    encoding_of,
)
from archive.errors import NotUnderstood

TARGETS = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN)
"""What can be written, the best first: what names value representations loses none."""

Decode = Callable[[str, Picture, bytes], tuple[Buffer, str]]
Memory = Callable[[int], memoryview]
"""Writable memory of so many bytes, wherever it lies."""

_BITS_ALLOCATED = 0x00280100
_PHOTOMETRIC_INTERPRETATION, _PLANAR_CONFIGURATION, _LOSSY = 0x00280004, 0x00280006, 0x00282110
_EXTENDED_OFFSET_TABLE = frozenset((0x7FE00001, 0x7FE00002))
_ALWAYS_LOSSY = frozenset(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51))
_UNITS = {
    **dict.fromkeys(("AT", "OW", "SS", "US"), 2),
    **dict.fromkeys(("FL", "OF", "OL", "SL", "UL"), 4),
    **dict.fromkeys(("FD", "OD", "OV", "SV", "UV"), 8),
}
"""Bytes of one number, by value representation."""

_TWO_ORDERS = "pixels larger than the words that they lie in come in two orders in big endian data sets, and nothing tells which"

Element = tuple[int, list[Buffer]]


def recode(data_set: Buffer, transfer_syntax_uid: str, target_uid: str, decode: Decode, memory: Memory) -> list[Buffer]:
    """The data set in another transfer syntax, in pieces of which the large ones are the source's own bytes.

    Parameters
    ----------
    data_set : Buffer
        Inflated where it is deflated.
    transfer_syntax_uid : str
        What it claims to be written in; its bytes are believed over that.
    target_uid : str
        One of `TARGETS`.
    decode : callable
        Decodes one frame, as `archive.dicom.decoding.decode_frame` does.
    memory : callable
        Gives memory for decoded pixel data.

    Raises
    ------
    NotUnderstood
        It is cut off, makes no sense somewhere, or has pixel data that cannot be decoded.
    """
    encoding = sniff_encoding(data_set, transfer_syntax_uid)
    writer = _Writer(data_set, transfer_syntax_uid, encoding_of(target_uid), decode, memory)
    return list(chain.from_iterable(parts for _, parts in writer.level(0, len(data_set), Context(encoding), encoding, 0)))


class _Writer:
    def __init__(self, data: Buffer, source_uid: str, target: Encoding, decode: Decode, memory: Memory) -> None:
        self._data, self._view = data, memoryview(data)
        self._source_uid, self._target, self._decode, self._memory = source_uid, target, decode, memory

    def level(self, start: int, end: int, outer: Context, encoding: Encoding, depth: int) -> list[Element]:
        """The elements of one level, written, in the order of tags."""
        if depth > DEPTH_MAX // 2:
            raise NotUnderstood(f"sequences nested deeper than {DEPTH_MAX // 2}")
        elements = list(scan_elements(self._data, encoding, start, end))
        shared = [(e.tag, self._bytes(e)) for e in elements if is_shared(e.tag) and e.length <= SHARED_BYTES_MAX]
        context = outer.inside(encoding, shared)
        found = {e.tag: e for e in elements}
        replaced: dict[int, list[Buffer]] = {}
        if PIXEL_DATA in found and found[PIXEL_DATA].undefined:
            replaced = self._decoded(found, context, depth)
        written = [
            (e.tag, self._element(e, context, depth))
            for e in elements
            if e.tag & 0xFFFF and e.tag not in replaced and not (replaced and e.tag in _EXTENDED_OFFSET_TABLE)
        ]
        return sorted([*written, *replaced.items()], key=lambda element: element[0])

    def _bytes(self, element: RawElement) -> bytes:
        return bytes(self._view[element.offset : element.offset + element.length])

    def _element(self, element: RawElement, context: Context, depth: int) -> list[Buffer]:
        if element.truncated:
            raise NotUnderstood(f"element {element.tag:08X} is cut off")
        vr = "UN" if element.vr == "UN" and not element.undefined else context.vr_of(element)
        if vr == "SQ":
            return self._sequence(element, context, depth)
        value = self._view[element.offset : element.offset + element.length]
        if context.encoding.little != self._target.little:
            unit = _UNITS.get(vr, 0)
            if element.tag == PIXEL_DATA and context.number(_BITS_ALLOCATED) > 8 * max(unit, 1):
                raise NotUnderstood(_TWO_ORDERS)
            value = self._swapped(value, unit, element.tag) if unit else value
        return self._written(element.tag, vr, [value])

    def _sequence(self, element: RawElement, context: Context, depth: int) -> list[Buffer]:
        items: list[Buffer] = []
        for item in scan_items(self._data, element, context.encoding):
            level = self.level(item.offset, item.offset + item.length, context, item.encoding, depth + 1)
            parts = list(chain.from_iterable(parts for _, parts in level))
            items += encode_item(parts, self._target)
        return self._written(element.tag, "SQ", items)

    def _written(self, tag: int, vr: str, parts: list[Buffer]) -> list[Buffer]:
        return encode_element(tag, vr, parts, self._target)

    def _swapped(self, value: memoryview, unit: int, tag: int) -> memoryview:
        if len(value) % unit:
            raise NotUnderstood(f"element {tag:08X} has {len(value)} bytes, no whole number of {unit}")
        target = self._memory(len(value))
        for byte in range(unit):
            target[byte::unit] = value[unit - 1 - byte :: unit]
        return target

    # --- pixel data

    def _decoded(self, found: Mapping[int, RawElement], context: Context, depth: int) -> dict[int, list[Buffer]]:
        """Native pixel data in place of encapsulated, and the elements that say otherwise than before, by tag."""
        if found[PIXEL_DATA].truncated:
            raise NotUnderstood("the compressed pixel data is cut off")
        pixels = locate_pixel_data(self._data, found, context.encoding)
        assert pixels is not None
        picture = self._picture(found, context)
        if not picture.frame_bytes or picture.bits_allocated % 8:
            raise NotUnderstood(f"pixel data of {picture.rows} x {picture.columns} x {picture.bits_allocated} bit cannot be decoded")
        if picture.bits_allocated > 16 and not self._target.little:
            raise NotUnderstood(_TWO_ORDERS)
        if picture.frame_bytes * pixels.number_of_frames > LENGTH_MAX:
            raise NotUnderstood(f"{pixels.number_of_frames} decoded frames of {picture.frame_bytes} bytes are too long for one element")
        if len(pixels.starts) != pixels.number_of_frames:
            raise NotUnderstood(f"there are {len(pixels.starts)} compressed frames, the data set says {pixels.number_of_frames}")
        target = self._memory(picture.frame_bytes * pixels.number_of_frames)
        photometrics = set()
        for n in range(pixels.number_of_frames):
            frame = b"".join(self._view[at : at + length] for at, length in pixels.frame_ranges(n + 1))
            decoded, photometric = self._decode(self._source_uid, picture, frame)
            if not self._target.little and picture.bits_allocated > 8:
                decoded = self._swapped(memoryview(decoded), picture.bits_allocated // 8, PIXEL_DATA)
            target[n * picture.frame_bytes : (n + 1) * picture.frame_bytes] = decoded
            photometrics.add(photometric)
        if len(photometrics) != 1:
            raise NotUnderstood(f"frames of one object decode to {', '.join(sorted(photometrics))}")
        vr = "OB" if picture.bits_allocated <= 8 and self._target.explicit else "OW"
        replaced = {PIXEL_DATA: self._written(PIXEL_DATA, vr, [target])}
        photometric = photometrics.pop()
        if photometric != picture.photometric_interpretation:
            replaced[_PHOTOMETRIC_INTERPRETATION] = self._written(_PHOTOMETRIC_INTERPRETATION, "CS", [photometric.encode("ascii")])
        if picture.samples_per_pixel > 1:
            replaced[_PLANAR_CONFIGURATION] = self._written(_PLANAR_CONFIGURATION, "US", [b"\0\0"])
        if self._source_uid in _ALWAYS_LOSSY and _LOSSY not in found and not depth:
            replaced[_LOSSY] = self._written(_LOSSY, "CS", [b"01"])
        return replaced

    def _picture(self, found: Mapping[int, RawElement], context: Context) -> Picture:
        order = "little" if context.encoding.little else "big"

        def number(tag: int, default: int = 0) -> int:
            element = found.get(tag)
            return int.from_bytes(self._bytes(element), order) if element and element.length == 2 else default  # type: ignore[arg-type]

        element = found.get(_PHOTOMETRIC_INTERPRETATION)
        allocated = number(_BITS_ALLOCATED)
        return Picture(
            rows=number(0x00280010),
            columns=number(0x00280011),
            samples_per_pixel=number(0x00280002, 1),
            bits_allocated=allocated,
            bits_stored=number(0x00280101, allocated),
            pixel_representation=number(0x00280103) & 1,
            photometric_interpretation=self._bytes(element).decode("latin-1").strip("\0 ") if element else "",
            planar_configuration=number(_PLANAR_CONFIGURATION),
        )
