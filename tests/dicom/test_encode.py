"""Elements and items, byte by byte."""

import pytest

from archive.dicom.encode import encode_element, encode_item
from archive.dicom.syntax import encoding_of
from archive.errors import NotUnderstood
from tests.dicom.build import element, item

IMPLICIT, EXPLICIT, BIG = (encoding_of(f"1.2.840.10008.1.2{end}") for end in ("", ".1", ".2"))


@pytest.mark.parametrize(
    ("vr", "value", "padding"), [("UI", b"1.2", b"\0"), ("LO", b"abc", b" "), ("OB", b"\1", b"\0"), ("US", b"\1\2", b"")]
)
def test_elements(vr: str, value: bytes, padding: bytes) -> None:
    for encoding, options in ((IMPLICIT, {"explicit": False}), (EXPLICIT, {}), (BIG, {"little": False})):
        assert b"".join(encode_element(0x00091234, vr, [value], encoding)) == element(0x00091234, vr, value + padding, **options)


def test_a_value_in_parts_is_not_joined() -> None:
    large = memoryview(bytes(1000))
    _, first, second = encode_element(0x7FE00010, "OW", [large, large], EXPLICIT)
    assert first is large and second is large


def test_items() -> None:
    assert b"".join(encode_item([b"ab", b"cd"], EXPLICIT)) == item(b"abcd")
    assert b"".join(encode_item([b"ab"], BIG)) == item(b"ab", little=False)


class Endless(bytes):
    def __len__(self) -> int:
        return 0xFFFFFFFF


def test_what_no_length_can_say_is_an_error() -> None:
    with pytest.raises(NotUnderstood):
        encode_element(0x7FE00010, "OW", [Endless()], EXPLICIT)
