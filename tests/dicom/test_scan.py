from typing import Any

import pytest

from archive.dicom.scan import DEPTH_MAX, PIXEL_DATA, scan_elements, scan_items, sniff_encoding
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, Encoding
from archive.errors import NotUnderstood
from tests.dicom.build import UNDEFINED, delimited, element, item

EXPLICIT = Encoding(True, True)
NAME = element(0x00100010, "PN", b"A^B ")
ENCODINGS = [Encoding(True, True), Encoding(False, True), Encoding(True, False)]


def kind(encoding: Encoding) -> dict[str, bool]:
    return {"explicit": encoding.explicit, "little": encoding.little}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_elements_are_located(encoding: Encoding) -> None:
    write: Any = kind(encoding)
    data = (
        element(0x00080060, "CS", b"CT", **write)
        + element(0x00100010, "PN", b"A^B ", **write)
        + element(PIXEL_DATA, "OW", b"1234", **write)
    )
    found = list(scan_elements(data, encoding))
    assert [(e.tag, data[e.offset : e.offset + e.length], e.undefined, e.truncated) for e in found] == [
        (0x00080060, b"CT", False, False),
        (0x00100010, b"A^B ", False, False),
        (PIXEL_DATA, b"1234", False, False),
    ]
    assert [e.vr for e in found] == (["CS", "PN", "OW"] if encoding.explicit else ["", "", ""])
    assert found[-1].end == len(data)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("defined_items", [True, False])
@pytest.mark.parametrize("defined_sequences", [True, False])
def test_sequences_are_stepped_over_and_their_items_found(encoding: Encoding, defined_items: bool, defined_sequences: bool) -> None:
    write: Any = kind(encoding)

    def sequence(tag: int, *contents: bytes) -> bytes:
        items = b"".join(item(content, defined=defined_items, little=encoding.little) for content in contents)
        if defined_sequences:
            return element(tag, "SQ", items, **write)
        return element(tag, "SQ", delimited(items, little=encoding.little), length=UNDEFINED, **write)

    inner = element(0x00080100, "SH", b"CODE", **write)
    data = sequence(0x00400275, sequence(0x00400008, inner, b""), inner) + element(0x00400300, "US", b"\0\0", **write)
    first, last = scan_elements(data, encoding)
    assert (first.tag, first.undefined, last.tag) == (0x00400275, not defined_sequences, 0x00400300)
    items = list(scan_items(data, first, encoding))
    assert len(items) == 2
    (nested,) = scan_elements(data, items[0].encoding, items[0].offset, items[0].offset + items[0].length)
    assert [data[i.offset : i.offset + i.length] for i in scan_items(data, nested, encoding)] == [inner, b""]
    assert data[items[1].offset : items[1].offset + items[1].length] == inner


def test_fragments_that_hold_delimiters_are_stepped_over() -> None:
    fragment = b"\xfe\xff\xdd\xe0\0\0\0\0"
    data = element(PIXEL_DATA, "OB", delimited(item(b"") + item(fragment)), length=UNDEFINED) + element(0xFFFCFFFC, "OB", b"\0\0")
    pixels, padding = scan_elements(data, EXPLICIT)
    assert data[pixels.offset : pixels.offset + pixels.length] == item(b"") + item(fragment)
    assert padding.tag == 0xFFFCFFFC


def test_unknown_of_undefined_length_holds_implicit_items() -> None:
    nested = element(0x00080100, "", b"CODE", explicit=False)
    data = element(0x00091001, "UN", delimited(item(nested, defined=False)), length=UNDEFINED) + NAME
    sequence, name = scan_elements(data, EXPLICIT)
    (one,) = scan_items(data, sequence, EXPLICIT)
    assert not one.encoding.explicit
    assert data[one.offset : one.offset + one.length] == nested
    assert name.tag == 0x00100010


def test_unknown_of_undefined_length_is_little_endian_in_a_big_endian_data_set() -> None:
    nested = element(0x00080100, "", b"CODE", explicit=False)
    data = element(0x00091001, "UN", delimited(item(nested, defined=False)), length=UNDEFINED, little=False)
    (sequence,) = scan_elements(data, Encoding(True, False))
    (one,) = scan_items(data, sequence, Encoding(True, False))
    assert one.encoding == Encoding(False, True)


def test_an_implicit_element_in_the_middle_of_explicit_ones() -> None:
    data = NAME + element(0x00100020, "", b"PID1", explicit=False) + element(0x00100040, "CS", b"O ")
    assert [(e.tag, e.vr, e.length) for e in scan_elements(data, EXPLICIT)] == [
        (0x00100010, "PN", 4),
        (0x00100020, "", 4),
        (0x00100040, "CS", 2),
    ]


def test_representations_of_later_editions_have_long_lengths() -> None:
    later = b"\x10\x00\x20\x00ZZ\0\0\x04\0\0\0PID1"
    data = NAME + later + element(0x00100040, "CS", b"O ")
    assert [(e.tag, e.vr, e.length) for e in scan_elements(data, EXPLICIT)] == [
        (0x00100010, "PN", 4),
        (0x00100020, "ZZ", 4),
        (0x00100040, "CS", 2),
    ]
    short = NAME + element(0x00100020, "ZZ", b"PID1") + element(0x00100040, "CS", b"O ")
    assert [(e.tag, e.length) for e in scan_elements(short, EXPLICIT)] == [(0x00100010, 4), (0x00100020, 4), (0x00100040, 2)]
    empty = NAME + element(0x00100020, "ZZ", b"") + element(0x00100040, "CS", b"O ")
    assert [e.tag for e in scan_elements(empty, EXPLICIT)] == [0x00100010, 0x00100020, 0x00100040]


def test_odd_lengths_and_trailing_bytes() -> None:
    data = element(0x00100010, "PN", b"A^B") + element(0x00100020, "LO", b"P") + b"\0" * 7
    assert [e.length for e in scan_elements(data, EXPLICIT)] == [3, 1]


def test_stray_delimiters_are_stepped_over() -> None:
    data = NAME + delimited(b"") + element(0x00100020, "LO", b"P ")
    assert [e.tag for e in scan_elements(data, EXPLICIT)] == [0x00100010, 0x00100020]


def test_the_walk_ends_before_the_stop_tag_and_gives_what_is_wanted() -> None:
    data = NAME + element(0x00100020, "LO", b"P ") + element(PIXEL_DATA, "OW", b"1234")
    assert [e.tag for e in scan_elements(data, EXPLICIT, stop_tag=0x00100020)] == [0x00100010]
    assert [e.tag for e in scan_elements(data, EXPLICIT, wanted=frozenset([PIXEL_DATA]))] == [PIXEL_DATA]


def test_a_last_element_that_is_cut_off_says_so() -> None:
    data = (NAME + element(PIXEL_DATA, "OW", b"1234"))[:-1]
    name, pixels = scan_elements(data, EXPLICIT)
    assert (name.truncated, pixels.truncated, pixels.length, pixels.end) == (False, True, 3, len(data))


def test_a_sequence_without_its_delimiter_says_so() -> None:
    data = element(0x00400275, "SQ", item(NAME), length=UNDEFINED)
    (sequence,) = scan_elements(data, EXPLICIT)
    assert sequence.truncated
    assert len(list(scan_items(data, sequence, EXPLICIT))) == 1


def test_what_makes_no_sense_is_refused_after_what_was_good() -> None:
    walk = scan_elements(NAME + element(0x00400275, "SQ", b"nonsense", length=UNDEFINED), EXPLICIT)
    assert next(walk).tag == 0x00100010
    with pytest.raises(NotUnderstood):
        next(walk)


def test_nesting_is_bounded() -> None:
    deep = b""
    for _ in range(DEPTH_MAX):
        deep = element(0x00400275, "SQ", delimited(item(deep, defined=False)), length=UNDEFINED)
    with pytest.raises(NotUnderstood, match="nested"):
        list(scan_elements(deep, EXPLICIT))


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("claim", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_BIG_ENDIAN])
def test_the_encoding_is_seen_whatever_is_claimed(encoding: Encoding, claim: str) -> None:
    write: Any = kind(encoding)
    assert sniff_encoding(element(0x00080005, "CS", b"ISO_IR 100", **write), claim) == encoding


def test_an_odd_name_of_the_first_representation_does_not_change_the_encoding() -> None:
    assert sniff_encoding(b"\x08\x00\x05\x00??\x04\x00ABCD", EXPLICIT_VR_LITTLE_ENDIAN) == EXPLICIT


def test_an_empty_data_set_is_what_it_claims() -> None:
    assert sniff_encoding(b"", EXPLICIT_VR_BIG_ENDIAN) == Encoding(True, False)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_high_first_group_is_no_reason_to_doubt_the_claim(encoding: Encoding) -> None:
    write: Any = kind(encoding)
    data = element(0x3F030010, "LO", b"SOME PRIVATE CREATOR", **write) + element(0x3F031001, "LO", b"VALUE ", **write)
    claim = {(True, True): EXPLICIT_VR_LITTLE_ENDIAN, (False, True): IMPLICIT_VR_LITTLE_ENDIAN, (True, False): EXPLICIT_VR_BIG_ENDIAN}
    assert sniff_encoding(data, claim[encoding.explicit, encoding.little]) == encoding


def test_a_length_that_looks_like_a_representation_is_a_length() -> None:
    data = element(0x00080005, "", b" " * 0x5343, explicit=False) + element(0x00080008, "", b"ORIGINAL", explicit=False)
    assert data[4:6] == b"CS"
    assert sniff_encoding(data, IMPLICIT_VR_LITTLE_ENDIAN) == Encoding(False, True)


@pytest.mark.parametrize("claim", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_an_unknown_second_representation_does_not_change_the_encoding(claim: str) -> None:
    data = element(0x00080060, "CS", b"CT") + element(0x00080070, "ZZ", b"MAKER ")
    assert sniff_encoding(data, claim) == EXPLICIT
    # What would be a length is within these data.
    assert sniff_encoding(data + element(PIXEL_DATA, "OW", b"\xff" * 200_000), EXPLICIT_VR_LITTLE_ENDIAN) == EXPLICIT
