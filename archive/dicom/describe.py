"""What the archive wants to know of an instance when it comes: its identity, what searches ask for, where its frames lie."""

import logging
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from archive.dicom.attributes import INSTANCE_ATTRIBUTES, PATIENT_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, vr_of
from archive.dicom.charset import DEFAULT_ENCODINGS, encodings_of
from archive.dicom.frames import PixelData
from archive.dicom.image import IMAGE_TAGS, locate_pixel_data
from archive.dicom.inflate import inflate
from archive.dicom.repeating import Layout, Layouts
from archive.dicom.scan import (
    PIXEL_DATA,
    PIXEL_DATA_TAGS,
    SPECIFIC_CHARACTER_SET,
    Buffer,
    RawElement,
    scan_elements,
    scan_items,
    sniff_encoding,
)
from archive.dicom.syntax import Encoding, encoding_of
from archive.dicom.uid import check_uid
from archive.dicom.values import BINARY_VRS, VRS, decode_attribute
from archive.errors import BadInput, NotUnderstood

INFLATED_BYTES_MAX = 512 << 20
VALUE_BYTES_MAX = 64 << 10
"""Longest value, or sequence, that is kept for searches; a longer one is left out."""
DEPTH_MAX = 8

_IDENTITY = {
    0x0020000D: "StudyInstanceUID",
    0x0020000E: "SeriesInstanceUID",
    0x00080018: "SOPInstanceUID",
    0x00080016: "SOPClassUID",
}

_ATTRIBUTES = {
    int(tag, 16): (tag, vr_of(tag)) for tag in sorted(PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES + SERIES_ATTRIBUTES + INSTANCE_ATTRIBUTES)
}
_WANTED = frozenset(_ATTRIBUTES) | IMAGE_TAGS | PIXEL_DATA_TAGS
_TEXT_VRS = frozenset(("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT"))

_log = logging.getLogger(__name__)
_encodings_of = lru_cache(maxsize=256)(encodings_of)
# The instances of a series repeat most values. What comes out is shared: nobody may change it.
_REPEATED_BYTES_MAX = 128
_decode_repeated = lru_cache(maxsize=8192)(decode_attribute)
THREADS = threading.local()
"""Each thread remembers the data sets that it met last: those of one association resemble each other."""


@dataclass(frozen=True, slots=True)
class Description:
    """What `describe` finds.

    Parameters
    ----------
    study_instance_uid, series_instance_uid, sop_instance_uid, sop_class_uid : str
        The identity; every object has it.
    attributes : dict
        The attributes of `archive.dicom.attributes` that are present, by tag, in the DICOM JSON model (PS3.18 annex F). The
        attribute objects may be shared between instances: replace one, never change it.
    pixel_data : PixelData, optional
        Where the frames lie, if there are any.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    attributes: dict[str, dict[str, Any]]
    pixel_data: PixelData | None


def describe(data_set: Buffer, transfer_syntax_uid: str, inflated_bytes_max: int = INFLATED_BYTES_MAX) -> Description:
    """Read what the archive wants to know from a data set.

    Text is decoded by the object's own Specific Character Set. Attributes have the value representation of PS3.6 where what is
    written is also text, so that searches find one kind of value. What cannot be decoded, or is cut off, is left out with a warning;
    so is everything after a place where the bytes stop making sense.

    Parameters
    ----------
    data_set : Buffer
        As it came, without preamble and file meta information.
    transfer_syntax_uid : str
        The transfer syntax that it came in.
    inflated_bytes_max : int
        Largest size that a deflated data set may inflate to.

    Raises
    ------
    NotUnderstood
        One of the four UIDs of the identity is missing or none; or the data set cannot be inflated.
    """
    if encoding_of(transfer_syntax_uid).deflated:
        data_set = inflate(data_set, inflated_bytes_max)
    encoding = sniff_encoding(data_set, transfer_syntax_uid)
    layouts: Layouts = THREADS.__dict__.setdefault("layouts", Layouts())
    match = layouts.find(data_set, encoding)
    if match is not None and (repeated := _describe_repeated(data_set, *match, encoding)) is not None:
        return repeated
    learning = layouts.wants
    elements: list[RawElement] = []
    damage: NotUnderstood | None = None
    try:
        elements.extend(scan_elements(data_set, encoding, stop_tag=PIXEL_DATA + 1, wanted=None if learning else _WANTED))
    except NotUnderstood as error:
        damage = error
    found = {element.tag: element for element in elements}
    study, series, sop_instance, sop_class = (_identity(data_set, found, tag, keyword, damage) for tag, keyword in _IDENTITY.items())
    if damage is not None:
        _log.warning("instance %s: what follows is not searched: %s", sop_instance, damage)
    encodings = _encodings(data_set, found, DEFAULT_ENCODINGS)
    attributes: dict[str, dict[str, Any]] = {}
    wanted = [number for number in _ATTRIBUTES if number in found]
    for number in wanted:
        _add_attribute(attributes, data_set, number, found[number], encoding, encodings, sop_instance)
    description = Description(study, series, sop_instance, sop_class, attributes, locate_pixel_data(data_set, found, encoding))
    if learning and damage is None and len(attributes) == len(wanted):
        native = _native(description.pixel_data, elements[-1], encoding)
        facts = (study, series, sop_instance, sop_class), attributes, encodings, native
        layouts.learn(data_set, encoding, elements, IMAGE_TAGS, facts, alone=native is not None)
    return description


def describe_begun(data_set: Buffer, transfer_syntax_uid: str) -> tuple[Description, int] | None:
    """What `describe` will find of a data set whose rest is still to come, where it is like one before and has native pixel data.

    Returns
    -------
    tuple of Description and int, or None
        It holds once so many bytes are there. None: nothing can be said yet.
    """
    if encoding_of(transfer_syntax_uid).deflated:
        return None
    encoding = sniff_encoding(data_set, transfer_syntax_uid)
    layouts: Layouts = THREADS.__dict__.setdefault("layouts", Layouts())
    match = layouts.find(data_set, encoding, begun=True)
    if match is None or match[0].facts[3] is None or match[0].kept:
        return None
    try:
        description = _describe_repeated(data_set, *match, encoding)
    except NotUnderstood:
        return None  # Let it be told when all of it is there.
    return (
        None
        if description is None or description.pixel_data is None
        else (description, description.pixel_data.offset + description.pixel_data.length)
    )


def _describe_repeated(data_set: Buffer, layout: Layout, found: dict[int, RawElement], encoding: Encoding) -> Description | None:
    """As `describe`, of a data set that is known but for the elements that are found; None where that is not enough."""
    known, attributes, encodings, native = layout.facts
    if native is None or layout.kept:
        pixel_data = locate_pixel_data(data_set, found, encoding)
    else:
        element = found[int(native.tag, 16)]
        if element.undefined or element.length != native.length:
            return None
        pixel_data = PixelData(native.tag, native.number_of_frames, element.offset, native.length, native.frame_bits)
    study, series, sop_instance, sop_class = (
        _identity(data_set, found, tag, keyword, None) if tag in layout.differing else value
        for (tag, keyword), value in zip(_IDENTITY.items(), known, strict=True)
    )
    attributes = attributes.copy()
    for number in layout.differing:
        if number in found and number in _ATTRIBUTES:
            _add_attribute(attributes, data_set, number, found[number], encoding, encodings, sop_instance)
    return Description(study, series, sop_instance, sop_class, attributes, pixel_data)


def _native(pixel_data: PixelData | None, element: RawElement, encoding: Encoding) -> PixelData | None:
    """Pixel data of which nothing but the offset can differ while the image is described by the same elements."""
    if pixel_data is None or not pixel_data.frame_bits or encoding.encapsulated:
        return None
    return pixel_data if (pixel_data.offset, pixel_data.length) == (element.offset, element.length) else None


def _identity(data_set: Buffer, found: dict[int, RawElement], tag: int, keyword: str, damage: NotUnderstood | None) -> str:
    element = found.get(tag)
    if element is None:
        raise NotUnderstood(f"the data set has no {keyword}" + (f": {damage}" if damage else "")) from damage
    if element.truncated:
        raise NotUnderstood(f"the data set ends within {keyword}")
    raw = bytes(data_set[element.offset : element.offset + min(element.length, 256)])
    try:
        return check_uid(raw.decode("latin_1").strip("\0 "), keyword)
    except BadInput as error:
        raise NotUnderstood(str(error)) from error


def _attributes(data_set: Buffer, found: dict[int, RawElement], encoding: Encoding, sop_instance_uid: str) -> dict[str, dict[str, Any]]:
    encodings = _encodings(data_set, found, DEFAULT_ENCODINGS)
    attributes: dict[str, dict[str, Any]] = {}
    for number in _ATTRIBUTES:
        element = found.get(number)
        if element is not None:
            _add_attribute(attributes, data_set, number, element, encoding, encodings, sop_instance_uid)
    return attributes


def _add_attribute(
    attributes: dict[str, dict[str, Any]],
    data_set: Buffer,
    number: int,
    element: RawElement,
    encoding: Encoding,
    encodings: tuple[str, ...],
    sop_instance_uid: str,
) -> None:
    tag, usual = _ATTRIBUTES[number]
    vr = element.vr
    if vr != usual and (vr not in VRS or vr in BINARY_VRS or (vr in _TEXT_VRS and usual in _TEXT_VRS)):
        vr = usual
    try:
        attributes[tag] = _attribute(data_set, element, vr, encoding, encodings, encoding.little)
    except ValueError as error:
        attributes.pop(tag, None)
        _log.warning("instance %s: attribute %s is not searched: %s", sop_instance_uid, tag, error)


def _attribute(
    data_set: Buffer, element: RawElement, vr: str, encoding: Encoding, encodings: tuple[str, ...], little: bool, depth: int = 0
) -> dict[str, Any]:
    if element.truncated:
        raise ValueError("cut off")
    offset, length = element.offset, element.length
    if length > VALUE_BYTES_MAX:
        raise ValueError(f"{length} bytes are more than {VALUE_BYTES_MAX}")
    if vr == "SQ" or element.undefined:
        items = _items(data_set, element, encoding, encodings, depth)
        return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
    decode = _decode_repeated if length <= _REPEATED_BYTES_MAX else decode_attribute
    return decode(vr, bytes(data_set[offset : offset + length]), encodings, little)


def _items(
    data_set: Buffer, sequence: RawElement, encoding: Encoding, encodings: tuple[str, ...], depth: int
) -> list[dict[str, dict[str, Any]]]:
    """Items of a sequence with their standard attributes; binary values, private attributes and group lengths are left out."""
    if depth >= DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    try:
        items = []
        for item in scan_items(data_set, sequence, encoding):
            found = {e.tag: e for e in scan_elements(data_set, item.encoding, item.offset, item.offset + item.length)}
            inner = _encodings(data_set, found, encodings)
            content = {}
            for number in sorted(found):
                element, tag = found[number], f"{number:08X}"
                vr = element.vr if element.vr in VRS and element.vr != "UN" else vr_of(tag)
                if number >> 16 & 1 or not number & 0xFFFF or vr not in VRS or vr in BINARY_VRS:
                    continue
                content[tag] = _attribute(data_set, element, vr, item.encoding, inner, item.encoding.little, depth + 1)
            items.append(content)
    except NotUnderstood as error:
        raise ValueError(str(error)) from error
    return items


def _encodings(data_set: Buffer, found: dict[int, RawElement], inherited: tuple[str, ...]) -> tuple[str, ...]:
    element = found.get(SPECIFIC_CHARACTER_SET)
    if element is None or element.undefined:
        return inherited
    return _encodings_of(bytes(data_set[element.offset : element.offset + min(element.length, 1024)]))
