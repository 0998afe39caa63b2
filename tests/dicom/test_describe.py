import logging
from struct import pack
from typing import Any

import pytest

from archive.dicom.describe import describe
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.errors import NotUnderstood
from tests.dicom.build import UNDEFINED, delimited, element, identity, item

SYNTAXES = {
    EXPLICIT_VR_LITTLE_ENDIAN: {"explicit": True, "little": True},
    IMPLICIT_VR_LITTLE_ENDIAN: {"explicit": False, "little": True},
    EXPLICIT_VR_BIG_ENDIAN: {"explicit": True, "little": False},
}


def attributes_of(*elements: bytes) -> dict[str, Any]:
    """Attributes besides the four UIDs."""
    found = describe(b"".join(elements) + identity(), EXPLICIT_VR_LITTLE_ENDIAN).attributes
    return {tag: found[tag] for tag in found if tag not in ("00080016", "00080018", "0020000D", "0020000E")}


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_identity_attributes_and_frames(syntax: str) -> None:
    write: Any = SYNTAXES[syntax]
    order = "<" if write["little"] else ">"
    data = b"".join(
        (
            element(0x00080005, "CS", b"ISO_IR 192", **write),
            identity(**write),
            element(0x00100010, "PN", "Müller^Jörg=山田".encode(), **write),
            element(0x00200013, "IS", b"7 ", **write),
            element(0x00280008, "IS", b"2 ", **write),
            element(0x00280010, "US", pack(order + "H", 2), **write),
            element(0x00280011, "US", pack(order + "H", 3), **write),
            element(0x00280100, "US", pack(order + "H", 8), **write),
            element(0x7FE00010, "OW", bytes(12), **write),
        )
    )
    found = describe(data, syntax)
    assert found.study_instance_uid == "1.2.3"
    assert found.series_instance_uid == "1.2.3.4"
    assert found.sop_instance_uid == "1.2.3.4.5"
    assert found.sop_class_uid == "1.2.840.10008.5.1.4.1.1.7"
    assert found.attributes["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert found.attributes["00080018"] == {"vr": "UI", "Value": ["1.2.3.4.5"]}
    assert found.attributes["00100010"] == {"vr": "PN", "Value": [{"Alphabetic": "Müller^Jörg", "Ideographic": "山田"}]}
    assert found.attributes["00200013"] == {"vr": "IS", "Value": [7]}
    assert found.attributes["00280010"] == {"vr": "US", "Value": [2]}
    assert list(found.attributes) == sorted(found.attributes)
    assert found.pixel_data is not None
    assert found.pixel_data.frame_ranges(2) == [(len(data) - 6, 6)]


@pytest.mark.parametrize("keyword", ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"])
@pytest.mark.parametrize("value", [None, b"", b"\0\0", b"1.2/3", b"..", b"1\\2", b"1" * 65, b"1" * 300])
def test_an_identity_that_is_missing_or_none_is_refused_by_name(keyword: str, value: bytes | None) -> None:
    tags = {"SOPClassUID": 0x00080016, "SOPInstanceUID": 0x00080018, "StudyInstanceUID": 0x0020000D, "SeriesInstanceUID": 0x0020000E}
    values = {**dict.fromkeys(tags, b"1.2\0"), keyword: value}
    data = b"".join(element(tags[name], "UI", content) for name, content in values.items() if content is not None)
    with pytest.raises(NotUnderstood, match=keyword):
        describe(data, EXPLICIT_VR_LITTLE_ENDIAN)


def test_an_identity_that_is_cut_off_is_refused() -> None:
    with pytest.raises(NotUnderstood, match="SeriesInstanceUID"):
        describe(identity()[:-1], EXPLICIT_VR_LITTLE_ENDIAN)


def test_what_is_no_data_set_is_refused() -> None:
    for bad in (b"", b"no", b"nonsense" * 40, bytes(400), b"\xff" * 400):
        with pytest.raises(NotUnderstood):
            describe(bad, EXPLICIT_VR_LITTLE_ENDIAN)


def test_code_extensions() -> None:
    found = attributes_of(
        element(0x00080005, "CS", b"\\ISO 2022 IR 87 "),
        element(0x00100010, "PN", b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B "),
    )
    assert found["00080005"] == {"vr": "CS", "Value": [None, "ISO 2022 IR 87"]}
    assert found["00100010"]["Value"] == [{"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}]


def test_the_character_set_counts_wherever_it_stands() -> None:
    found = attributes_of(element(0x00081030, "LO", "Schädel ".encode()), element(0x00080005, "CS", b"ISO_IR 192"))
    assert found["00081030"] == {"vr": "LO", "Value": ["Schädel"]}


def test_present_but_empty_attributes_are_kept() -> None:
    assert attributes_of(element(0x00100020, "LO", b"")) == {"00100020": {"vr": "LO"}}


def test_unknown_and_wrong_text_representations_become_those_of_the_dictionary() -> None:
    found = attributes_of(
        element(0x00100010, "UN", b"A^B "),
        element(0x00100020, "SH", b"P1"),
        element(0x00200013, "LO", b"7 "),
        element(0x00280010, "UL", b"\1\0\0\0"),
    )
    assert found == {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}]},
        "00100020": {"vr": "LO", "Value": ["P1"]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00280010": {"vr": "UL", "Value": [1]},
    }


def test_values_that_cannot_be_decoded_are_left_out_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = attributes_of(
            element(0x00200013, "IS", b"seven "),
            element(0x00280010, "US", b"123"),
            element(0x00104000, "LT", b"x" * 65534),
            element(0x00100020, "LO", b"P1"),
        )
    assert set(found) == {"00104000", "00100020"}
    assert "00200013" in caplog.text
    assert "00280010" in caplog.text


def test_values_too_long_to_search_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert attributes_of(element(0x00400275, "SQ", item(element(0x00400007, "LO", b"x " * 600)) * 60)) == {}
    assert "00400275" in caplog.text


@pytest.mark.parametrize("defined", [True, False])
def test_sequences(defined: bool) -> None:
    code = item(element(0x00080100, "SH", b"CODE") + element(0x00091001, "LO", b"PRIVATE ") + element(0x00080104, "LO", b"Meaning "))
    request = item(
        element(0x00080005, "CS", b"ISO_IR 192") + element(0x00400007, "LO", "Schädel ".encode()) + element(0x00400008, "SQ", code),
        defined=defined,
    )
    value = request + item(b"", defined=defined)
    whole = element(0x00400275, "SQ", value) if defined else element(0x00400275, "SQ", delimited(value), length=UNDEFINED)
    assert attributes_of(whole)["00400275"] == {
        "vr": "SQ",
        "Value": [
            {
                "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
                "00400007": {"vr": "LO", "Value": ["Schädel"]},
                "00400008": {
                    "vr": "SQ",
                    "Value": [{"00080100": {"vr": "SH", "Value": ["CODE"]}, "00080104": {"vr": "LO", "Value": ["Meaning"]}}],
                },
            },
            {},
        ],
    }
    assert attributes_of(element(0x00400275, "SQ", b"")) == {"00400275": {"vr": "SQ"}}


def test_sequences_nested_without_end_are_left_out() -> None:
    deep = element(0x00080100, "SH", b"CODE")
    for _ in range(20):
        deep = element(0x00400275, "SQ", item(deep))
    assert attributes_of(deep) == {}


def test_an_instance_is_kept_though_its_end_makes_no_sense(caplog: pytest.LogCaptureFixture) -> None:
    data = identity() + element(0x00200013, "IS", b"7 ") + element(0x00400275, "SQ", b"nonsense", length=UNDEFINED)
    with caplog.at_level(logging.WARNING):
        found = describe(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert found.attributes["00200013"] == {"vr": "IS", "Value": [7]}
    assert "1.2.3.4.5" in caplog.text


def test_no_pixel_data() -> None:
    assert describe(identity(), EXPLICIT_VR_LITTLE_ENDIAN).pixel_data is None
