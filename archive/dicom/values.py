"""Values of elements as the DICOM JSON model has them (DICOM PS3.18 annex F.2)."""

from base64 import b64encode
from collections.abc import Callable
from math import isfinite
from struct import calcsize, iter_unpack, unpack
from typing import Any

from archive.dicom.charset import decode_text

Attribute = dict[str, Any]

BINARY_VRS = frozenset(("OB", "OD", "OF", "OL", "OV", "OW", "UN"))
NUMBER_FORMATS = {"FD": "d", "FL": "f", "SL": "i", "SS": "h", "SV": "q", "UL": "I", "US": "H", "UV": "Q"}


def decode_attribute(vr: str, raw: bytes, encodings: tuple[str, ...], little: bool = True) -> Attribute:
    """The attribute object of one element that is no sequence.

    Empty values have no `Value`; an empty one among several is null; empty component groups of a name are left out (PS3.18 F.2.2, F.2.5).

    Parameters
    ----------
    vr : str
        Value representation; one that is not known makes the value binary.
    raw : bytes
        The value field.
    encodings : tuple of str
        Of the Specific Character Set in force, from `charset.encodings_of`.
    little : bool
        Numbers are little endian.

    Raises
    ------
    ValueError
        The bytes are no value of this VR.
    """
    decode = _DECODERS.get(vr)
    if decode is not None:
        values = decode(raw, encodings)
    elif vr in NUMBER_FORMATS:
        values = _decode_numbers(raw, NUMBER_FORMATS[vr], little)
    elif vr == "AT":
        values = _decode_tags(raw, little)
    else:
        return {"vr": vr if vr in BINARY_VRS else "UN", **({"InlineBinary": b64encode(raw).decode()} if raw else {})}
    if not values or values == [""] or values == [None]:
        return {"vr": vr}
    return {"vr": vr, "Value": [None if value == "" else value for value in values]}


def _decode_strings(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return raw.decode("iso8859").rstrip(" \0").split("\\")


def _decode_application_entities(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [value.strip(" \0") for value in raw.decode("iso8859").split("\\")]


def _decode_uri(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [raw.decode("iso8859").rstrip(" \0")]


def _decode_texts(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [value.rstrip(" \0") for value in decode_text(raw, encodings).split("\\")]


def _decode_long_text(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [decode_text(raw, encodings).rstrip(" \0")]


def _decode_names(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [_name_groups(name) for name in decode_text(raw.rstrip(b" \0"), encodings).split("\\")]


def _name_groups(name: str) -> dict[str, str] | None:
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), name.split("="), strict=False)
    return {group: text for group, text in groups if text} or None


def _decode_decimals(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [float(value) if value.strip() else None for value in raw.decode("iso8859").strip(" \0").split("\\")]


def _decode_integers(raw: bytes, encodings: tuple[str, ...]) -> list[Any]:
    return [_integer(value) if value.strip() else None for value in raw.decode("iso8859").rstrip(" \0").split("\\")]


def _integer(value: str) -> int:
    try:
        number = int(value)
    except ValueError:
        decimal = float(value)  # devices write 1.0
        if not isfinite(decimal):
            raise
        number = int(decimal)
    if not -(1 << 63) <= number < 1 << 63:
        raise ValueError("an integer of more than 64 bits")
    return number


def _decode_numbers(raw: bytes, format: str, little: bool) -> list[Any]:
    size = calcsize("=" + format)
    if len(raw) % size:
        raise ValueError(f"{len(raw)} bytes are no whole numbers of {size} bytes")
    return list(unpack(f"{'<' if little else '>'}{len(raw) // size}{format}", raw))


def _decode_tags(raw: bytes, little: bool) -> list[Any]:
    if 0 < len(raw) < 4:
        raise ValueError(f"{len(raw)} bytes are no tag")
    pairs = iter_unpack("<HH" if little else ">HH", raw[: len(raw) // 4 * 4])
    return [f"{group:04X}{element:04X}" for group, element in pairs]


_DECODERS: dict[str, Callable[[bytes, tuple[str, ...]], list[Any]]] = {
    **dict.fromkeys(("AS", "CS", "DA", "DT", "TM", "UI"), _decode_strings),
    **dict.fromkeys(("SH", "LO", "UC"), _decode_texts),
    **dict.fromkeys(("LT", "ST", "UT"), _decode_long_text),
    "AE": _decode_application_entities,
    "DS": _decode_decimals,
    "IS": _decode_integers,
    "PN": _decode_names,
    "UR": _decode_uri,
}

VRS = frozenset((*_DECODERS, *NUMBER_FORMATS, *BINARY_VRS, "AT", "SQ"))
"""Every value representation that is understood here."""
