"""Values of single elements in the DICOM JSON model (DICOM PS3.18 F.2)."""

from struct import pack
from typing import Any

import pytest

from archive.dicom.charset import DEFAULT_ENCODINGS, encodings_of
from archive.dicom.json import dumps
from archive.dicom.values import VRS, decode_attribute


@pytest.mark.parametrize(
    ("vr", "raw", "expected"),
    [
        ("CS", b"ORIGINAL\\PRIMARY\\AXIAL ", ["ORIGINAL", "PRIMARY", "AXIAL"]),
        ("CS", b"DERIVED\\\\AXIAL", ["DERIVED", None, "AXIAL"]),
        ("UI", b"1.2.840\0", ["1.2.840"]),
        ("AE", b" STORE \\ OTHER\0", ["STORE", "OTHER"]),
        ("DA", b"20240229", ["20240229"]),
        ("LO", b" two words \\ and more ", [" two words", " and more"]),
        ("LT", b" one\\value ", [" one\\value"]),
        ("UR", b"http://a/b\\c ", ["http://a/b\\c"]),
        ("DS", b" 1.50\\-2e3\\ ", [1.5, -2000.0, None]),
        ("DS", b"1.5 \0", [1.5]),
        ("IS", b"12\\-3 ", [12, -3]),
        ("IS", b"1.0 ", [1]),
        ("PN", b"Doe^Jane ", [{"Alphabetic": "Doe^Jane"}]),
        ("PN", b"A=B=C\\\\=D", [{"Alphabetic": "A", "Ideographic": "B", "Phonetic": "C"}, None, {"Ideographic": "D"}]),
        ("US", pack("<HH", 0, 65535), [0, 65535]),
        ("SL", pack("<i", -2), [-2]),
        ("UV", pack("<Q", 1 << 63), [1 << 63]),
        ("FD", pack("<d", 0.1), [0.1]),
        ("AT", pack("<HHHH", 0x18, 0x106A, 0x7FE0, 0x10), ["0018106A", "7FE00010"]),
    ],
)
def test_values(vr: str, raw: bytes, expected: list[Any]) -> None:
    assert decode_attribute(vr, raw, DEFAULT_ENCODINGS) == {"vr": vr, "Value": expected}


@pytest.mark.parametrize("vr", sorted(VRS - {"SQ"}))
def test_empty_values_have_nothing_but_a_vr(vr: str) -> None:
    assert decode_attribute(vr, b"", DEFAULT_ENCODINGS) == {"vr": vr}


@pytest.mark.parametrize("vr", ["AE", "CS", "DS", "IS", "LO", "PN", "UI"])
def test_padding_alone_is_no_value(vr: str) -> None:
    assert decode_attribute(vr, b"  ", DEFAULT_ENCODINGS) == {"vr": vr}


def test_binary_and_unknown() -> None:
    assert decode_attribute("OW", b"\0\1\2\3", DEFAULT_ENCODINGS) == {"vr": "OW", "InlineBinary": "AAECAw=="}
    assert decode_attribute("ZZ", b"\0", DEFAULT_ENCODINGS) == {"vr": "UN", "InlineBinary": "AA=="}


def test_big_endian_numbers() -> None:
    assert decode_attribute("US", b"\1\2", DEFAULT_ENCODINGS, little=False)["Value"] == [258]
    assert decode_attribute("AT", b"\x00\x18\x10\x6a", DEFAULT_ENCODINGS, little=False)["Value"] == ["0018106A"]


@pytest.mark.parametrize(
    ("vr", "raw"),
    [
        ("US", b"\0"),
        ("FD", b"\0" * 7),
        ("AT", b"\0\0"),
        ("IS", b"1A"),
        ("IS", b"inf"),
        ("IS", b"9" * 30),
        ("IS", b"9" * 5000),
        ("DS", b"1,5"),
    ],
)
def test_what_is_no_value(vr: str, raw: bytes) -> None:
    with pytest.raises(ValueError):
        decode_attribute(vr, raw, DEFAULT_ENCODINGS)


def test_numbers_that_json_lacks_are_null() -> None:
    assert dumps(decode_attribute("FL", pack("<ff", float("nan"), float("-inf")), DEFAULT_ENCODINGS)) == b'{"vr":"FL","Value":[null,null]}'


@pytest.mark.parametrize(
    ("character_set", "raw", "text"),
    [
        (b"ISO_IR 192", "山田".encode(), "山田"),
        (b"ISO_IR 100 ", "Müller".encode("latin_1"), "Müller"),
        (b"ISO_IR 144", "Люкceмбypг".encode("iso8859_5"), "Люкceмбypг"),
        (b"GB18030", "王^小东".encode("gb18030"), "王^小东"),
        (b"\\ISO 2022 IR 87", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", "Yamada^Tarou=山田^太郎"),
        (b"\\ISO 2022 IR 149", b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7", "Hong^Gildong=洪^吉洞"),
        (b"ISO-IR 100", b"\xe4", "ä"),
        (b"no such set", b"\xe4", "ä"),
        (b"", b"\xe4", "ä"),
        (b"ISO_IR 192\\ISO 2022 IR 87", "é".encode(), "é"),
        (b"ISO_IR 192", b"M\xfcller", "M\N{REPLACEMENT CHARACTER}ller"),
        (b"ISO 2022 IR 6", b"\x1b%odd", "\x1b%odd"),
    ],
)
def test_text_in_its_character_set(character_set: bytes, raw: bytes, text: str) -> None:
    """DICOM PS3.5 annexes H, I, J; bytes outside of the set are replaced, sets that nobody knows are taken for the default."""
    assert decode_attribute("LT", raw, encodings_of(character_set))["Value"] == [text]
