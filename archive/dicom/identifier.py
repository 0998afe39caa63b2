"""Identifiers of queries and of their answers: data sets that come and go with a command (DICOM PS3.4 C.4.1.1.3, C.2.2.2).

Keys are read as text, as the matching engine takes them; answers are written from the DICOM JSON model. Read strictly: a key that is
overlooked would match everything. Only what can be no key here, private and binary attributes, is asked for in vain.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from struct import pack
from typing import Any

from pydicom.valuerep import format_number_as_ds

from archive.dicom.attributes import keyword_of, vr_of
from archive.dicom.charset import decode_text
from archive.dicom.code_extensions import TextEncoder
from archive.dicom.context import Context, is_shared
from archive.dicom.encode import encode_element, encode_item
from archive.dicom.json import dumps
from archive.dicom.scan import Buffer, RawElement, scan_elements, scan_items
from archive.dicom.syntax import Encoding, encoding_of
from archive.dicom.values import BINARY_VRS, NUMBER_FORMATS, decode_attribute
from archive.errors import BadInput, NotUnderstood

Path = tuple[str, ...]
Wanted = dict[str, "Wanted | None"]
Attributes = Mapping[str, Any]

DEPTH_MAX = 8
SPECIFIC_CHARACTER_SET, QUERY_RETRIEVE_LEVEL = "00080005", "00080052"

_TEXT_VRS = frozenset(("LO", "LT", "PN", "SH", "ST", "UC", "UT"))
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")
_FALLBACKS = (b"ISO_IR 100", b"ISO_IR 192")


@dataclass(frozen=True, slots=True)
class Identifier:
    """What a query asks.

    Attributes
    ----------
    keys : dict of Path to str
        Every attribute that can be one and is no sequence, by its way through sequences, as text: several values joined by a
        backslash, the groups of a name by `=`; empty where any value matches.
    wanted : dict
        The attributes that an answer is to have: by tag, None; for a sequence what is wanted of its items, nothing named: all of it.
    specific_character_set : bytes
        As it came.
    """

    keys: dict[Path, str] = field(default_factory=dict)
    wanted: Wanted = field(default_factory=dict)
    specific_character_set: bytes = b""

    def single(self, tag: str) -> str:
        """Text of a key of the outermost level; empty where it is not there."""
        return self.keys.get((tag,), "")


def read_identifier(data: bytes, transfer_syntax_uid: str) -> Identifier:
    """Read the identifier of a request.

    Raises
    ------
    BadInput
        It is no data set, or a value in it is none of its VR. The text names the attribute.
    """
    identifier = Identifier()
    bare = Context(encoding_of(transfer_syntax_uid))
    character_set = _read_level(memoryview(data), 0, len(data), bare, (), identifier.keys, identifier.wanted)
    return Identifier(identifier.keys, identifier.wanted, character_set)


def _read_level(data: memoryview, start: int, end: int, outer: Context, above: Path, keys: dict[Path, str], wanted: Wanted) -> bytes:
    """Put the elements of a level where they belong; returns the level's own Specific Character Set."""
    elements = list(scan_elements(data, outer.encoding, start, end))
    shared = [(e.tag, bytes(data[e.offset : e.offset + e.length])) for e in elements if is_shared(e.tag)]
    context = outer.inside(outer.encoding, shared)
    character_set = b""
    for element in elements:
        tag = f"{element.tag:08X}"
        if tag.endswith("0000"):
            continue
        path = (*above, tag)
        try:
            if element.truncated:
                raise ValueError("it is cut off")
            raw = bytes(data[element.offset : element.offset + element.length])
            vr = context.vr_of(element)
            if vr == "UN" and not element.undefined:
                vr = vr_of(tag)[:2]  # A list too long for the length field of its VR goes as UN (DICOM PS3.5 6.2.2).
            if tag == SPECIFIC_CHARACTER_SET:
                character_set = raw
            elif element.tag >> 16 & 1 or vr in BINARY_VRS:
                if not above:
                    wanted[tag] = None  # No key here: it matches everything, and its asker is told so (PS3.4 C.4.1.1.3.2).
            elif vr == "SQ":
                wanted[tag] = _read_sequence(data, element, context, path, keys)
            else:
                keys[path] = _as_text(vr, raw, context)
                wanted[tag] = None
        except (ValueError, NotUnderstood) as error:
            raise BadInput(f"{'.'.join(keyword_of(t) or t for t in path)}: {error}") from error
    return character_set


def _read_sequence(data: memoryview, element: RawElement, context: Context, path: Path, keys: dict[Path, str]) -> Wanted:
    if len(path) > DEPTH_MAX:
        raise NotUnderstood(f"nested deeper than {DEPTH_MAX}")
    items = list(scan_items(data, element, context.encoding))
    if len(items) > 1:
        raise ValueError("a sequence key has one item")
    inside: Wanted = {}
    for item in items:
        _read_level(data, item.offset, item.offset + item.length, context, path, keys, inside)
    return inside


def _as_text(vr: str, raw: bytes, context: Context) -> str:
    if vr in _TEXT_VRS:
        return decode_text(raw, context.encodings).rstrip(" \0")
    if vr in NUMBER_FORMATS or vr == "AT":
        values = decode_attribute(vr, raw, context.encodings, context.encoding.little).get("Value", [])
        return "\\".join(map(str, values))
    return raw.decode("latin-1").rstrip(" \0")


def write_identifier(attributes: Attributes, transfer_syntax_uid: str, specific_character_set: bytes) -> bytes:
    """Write an answer, with Specific Character Set where it holds text that needs one.

    Parameters
    ----------
    attributes : mapping
        In the DICOM JSON model, without bulk data.
    transfer_syntax_uid : str
        A little endian syntax that is not deflated.
    specific_character_set : bytes
        That of the request. Text that cannot be said in it goes out in ISO_IR 100 where that suffices, else in ISO_IR 192.
    """
    encoding = encoding_of(transfer_syntax_uid)
    if dumps(attributes).isascii():
        return b"".join(_write_level(attributes, encoding, None))
    for character_set in (specific_character_set, *_FALLBACKS):
        try:
            encoder = TextEncoder(character_set)
            told = {**attributes, SPECIFIC_CHARACTER_SET: {"vr": "CS", "Value": encoder.terms}}
            return b"".join(_write_level(told, encoding, encoder))
        except ValueError:
            continue
    raise ValueError("text that UTF-8 cannot say")


def _write_level(attributes: Attributes, encoding: Encoding, encoder: TextEncoder | None) -> list[Buffer]:
    parts: list[Buffer] = []
    for tag in sorted(attributes):
        vr, values = attributes[tag]["vr"], attributes[tag].get("Value", ())
        value: list[Buffer] = []
        if vr == "SQ":
            for item in values:
                value += encode_item(_write_level(item, encoding, encoder), encoding)
        elif values:
            value = [_encode(vr, values, encoder)]
        parts += encode_element(int(tag, 16), vr, value, encoding)
    return parts


def _encode(vr: str, values: list[Any], encoder: TextEncoder | None) -> bytes:
    if vr in NUMBER_FORMATS:
        return pack(f"<{len(values)}{NUMBER_FORMATS[vr]}", *values)
    if vr == "AT":
        return b"".join(pack("<HH", int(value[:4], 16), int(value[4:], 16)) for value in values)
    text = values[0] if len(values) == 1 and isinstance(values[0], str) and vr != "PN" else "\\".join(_texts(vr, values))
    if vr in _TEXT_VRS and encoder is not None:
        return encoder.encode(text, "\\^=" if vr == "PN" else "\\")
    return text.encode("latin-1", "replace")


def _texts(vr: str, values: list[Any]) -> Iterator[str]:
    for value in values:
        if value is None:
            yield ""
        elif vr == "PN" and isinstance(value, Mapping):
            yield "=".join(value.get(group, "") for group in _NAME_GROUPS).rstrip("=")
        elif vr == "DS" and isinstance(value, float):
            yield format_number_as_ds(value)
        else:
            yield str(value)
