"""What each kind of query key finds (DICOM PS3.4 C.2.2.2)."""

from typing import Any

import pytest

from archive.dicom.attributes import parse_attribute_path
from archive.dicom.matching import compile_keys
from archive.errors import BadInput


def name(text: str) -> dict[str, str]:
    return dict(zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False))


OBJECT: dict[str, Any] = {
    "00080005": {"vr": "CS", "Value": ["ISO_IR 192"]},
    "00080020": {"vr": "DA", "Value": ["20240229"]},
    "00080030": {"vr": "TM", "Value": ["101530.250"]},
    "0008002A": {"vr": "DT", "Value": ["20240229101530.25+0100"]},
    "00080050": {"vr": "SH"},
    "00080054": {"vr": "AE", "Value": ["STORE_A"]},
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00080061": {"vr": "CS", "Value": ["CT", "PT"]},
    "00080090": {"vr": "PN", "Value": [name("Doe^Jane^^Dr^")]},
    "00081030": {"vr": "LO", "Value": ["Thorax [low] dose*"]},
    "00081032": {"vr": "SQ"},
    "00081060": {"vr": "PN", "Value": [name("Roe^Richard"), None, name("Poe^Edgar")]},
    "00100010": {"vr": "PN", "Value": [name("Müller-Yamada^Tarou=山田^太郎=やまだ^たろう")]},
    "00100020": {"vr": "LO", "Value": ["P-0042"]},
    "00101010": {"vr": "AS", "Value": ["042Y"]},
    "00104000": {"vr": "LT", "Value": [" indented\\with a backslash"]},
    "00181160": {"vr": "SH", "Value": ["BODY"]},
    "0020000D": {"vr": "UI", "Value": ["1.2.840.1"]},
    "00200011": {"vr": "IS", "Value": [7]},
    "00180050": {"vr": "DS", "Value": ["1.250"]},
    "00200037": {"vr": "DS", "Value": [1.0, 0.0, -0.5]},
    "00280010": {"vr": "US", "Value": [512]},
    "00280009": {"vr": "AT", "Value": ["0018106A"]},
    "00291010": {"vr": "SH", "Value": ["private text"]},
    "00291011": {"vr": "UN", "InlineBinary": "AAAA"},
    "00400275": {
        "vr": "SQ",
        "Value": [
            {"00400007": {"vr": "LO", "Value": ["Head"]}, "00400009": {"vr": "SH", "Value": ["A1"]}},
            {"00400007": {"vr": "LO", "Value": ["Neck"]}, "00400008": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}}]}},
            {},
        ],
    },
}


def matches(keys: dict[str, str], fuzzy: bool = False) -> bool:
    return compile_keys({parse_attribute_path(path): key for path, key in keys.items()}, fuzzy)(OBJECT)


@pytest.mark.parametrize("key", ["", "*", "**", " ", "\0"])
@pytest.mark.parametrize(
    "path", ["PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate", "SeriesNumber", "RequestAttributesSequence"]
)
def test_universal_keys_match_whatever_there_is(path: str, key: str) -> None:
    assert matches({path: key})


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("PatientID", "P-0042", True),
        ("PatientID", " P-0042 ", True),
        ("PatientID", "p-0042", False),
        ("PatientID", "P-004", False),
        ("PatientID", "P-*", True),
        ("PatientID", "*42", True),
        ("PatientID", "?-????", True),
        ("PatientID", "?-???", False),
        ("PatientID", "P-0043\\P-0042", True),
        ("PatientID", "P-0043,P-0042", False),
        ("PatientID", "", True),
        ("AccessionNumber", "?", False),
        ("AccessionNumber", "A", False),
        ("PatientBirthDate", "20000101", False),
        ("PatientBirthDate", "-", None),
        ("StudyDescription", "*[low]*", True),
        ("StudyDescription", "*[a-z]*", False),
        ("StudyDescription", "Thorax [low] dose?", True),
        ("StudyDescription", "Thorax.*", False),
        ("Modality", "CT", True),
        ("Modality", "ct", False),
        ("Modality", "MR,CT", True),
        ("Modality", "MR\\CT", True),
        ("Modality", "MR\\*", True),
        ("Modality", "C?", True),
        ("ModalitiesInStudy", "PT", True),
        ("ModalitiesInStudy", "MR", False),
        ("RetrieveAETitle", "STORE_?", True),
        ("PatientAge", "042Y", True),
        ("PatientAge", "0*", False),
        ("PatientComments", " indented\\with a backslash", True),
        ("PatientComments", "indented*", False),
        ("PatientComments", "*back*", True),
        ("StudyInstanceUID", "1.2.840.1", True),
        ("StudyInstanceUID", "1.2.840.1\0", True),
        ("StudyInstanceUID", "1.2.840.*", False),
        ("StudyInstanceUID", "1.2.3\\1.2.840.1", True),
        ("StudyInstanceUID", "1.2.3,1.2.840.1", True),
        ("StudyInstanceUID", "1.2.3,1.2.4", False),
        ("SeriesNumber", "7", True),
        ("SeriesNumber", "+07", True),
        ("SeriesNumber", "8", False),
        ("SeriesNumber", "7*", None),
        ("SliceThickness", "1.25", True),
        ("SliceThickness", "125e-2", True),
        ("SliceThickness", "thin", None),
        ("ImageOrientationPatient", "-.5", True),
        ("Rows", "512", True),
        ("Rows", "511\\512", True),
        ("Rows", "511", False),
        ("FrameIncrementPointer", "0018106a", True),
        ("FrameIncrementPointer", "(0018,106A)", True),
        ("FrameIncrementPointer", "00181063", False),
        ("00291010", "private*", True),
        ("00291010", "other", False),
        ("00291011", "AAAA", False),
        ("PixelData", "AAAA", False),
        ("RequestAttributesSequence", "Head", None),
    ],
)
def test_values(path: str, key: str, expected: bool | None) -> None:
    if expected is None:
        with pytest.raises(BadInput, match=path):
            matches({path: key})
    else:
        assert matches({path: key}) is expected


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("PatientName", "Müller-Yamada^Tarou", True),
        ("PatientName", "MÜLLER-YAMADA^TAROU", True),
        ("PatientName", "MU\u0308LLER-yamada^tarou^^", True),
        ("PatientName", "MULLER-YAMADA^TAROU", False),
        ("PatientName", "Müller-Yamada", False),
        ("PatientName", "müller*", True),
        ("PatientName", "*tarou", True),
        ("PatientName", "山田^太郎", True),
        ("PatientName", "山田*", True),
        ("PatientName", "やまだ^*", True),
        ("PatientName", "=山田^太郎", True),
        ("PatientName", "=やまだ^たろう", False),
        ("PatientName", "*=山田*=やまだ*", True),
        ("PatientName", "Roe=山田*", False),
        ("PatientName", "^^", True),
        ("ReferringPhysicianName", "doe^jane^^dr", True),
        ("ReferringPhysicianName", "doe^j*", True),
        ("ReferringPhysicianName", "doe^jane^^dr^*", True),
        ("ReferringPhysicianName", "doe^jane^^dr^?", False),
        ("NameOfPhysiciansReadingStudy", "poe*", True),
        ("NameOfPhysiciansReadingStudy", "Noe*", False),
        ("PerformingPhysicianName", "*^*", True),
        ("PerformingPhysicianName", "*^?", False),
    ],
)
def test_person_names(path: str, key: str, expected: bool) -> None:
    assert matches({path: key}) is expected


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("muller", True),
        ("MUL TAR", True),
        ("tarou^müller", True),
        ("yama", False),
        ("tar tar", False),
        ("tarou tar", False),
        ("やま", True),
        ("m?ll", True),
        ("m*a", True),
        ("jones", False),
    ],
)
def test_fuzzy_person_names(key: str, expected: bool) -> None:
    assert matches({"PatientName": key}, fuzzy=True) is expected


def test_fuzzy_is_for_person_names_alone() -> None:
    assert not matches({"PatientID": "p-00"}, fuzzy=True)


def test_a_fuzzy_name_of_many_words_is_refused() -> None:
    with pytest.raises(BadInput, match="PatientName"):
        matches({"PatientName": "a " * 33}, fuzzy=True)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"00400275.00400007": "Head"}, True),
        ({"00400275.00400007": "Neck", "00400275.00400009": "A1"}, False),
        ({"00400275.00400007": "Head", "00400275.00400009": "A?"}, True),
        ({"00400275.00400008.00080100": "X"}, True),
        ({"00400275.00400008.00080100": "X", "00400275.00400007": "N*"}, True),
        ({"00400275.00400008.00080100": "X", "00400275.00400007": "H*"}, False),
        ({"00400275.00400008.00080100": "", "00400275.00400007": ""}, True),
        ({"00081032.00080100": "X"}, False),
        ({"00081032.00080100": "*"}, True),
        ({"00081111.00080100": "X"}, False),
    ],
)
def test_keys_in_sequences_have_to_hold_in_one_item(keys: dict[str, str], expected: bool) -> None:
    assert matches(keys) is expected


def test_every_key_has_to_hold() -> None:
    assert matches({"PatientID": "P*", "Modality": "CT", "StudyDate": "20240101-"})
    assert not matches({"PatientID": "P*", "Modality": "MR"})


def test_only_universal_keys_make_a_universal_matcher() -> None:
    assert compile_keys({}).universal
    assert compile_keys({("00100010",): "*", ("00400275", "00400007"): "", ("00291010",): "*"}).universal
    assert not compile_keys({("00100020",): "A"}).universal


def test_errors_name_the_attribute_inside_its_sequence() -> None:
    with pytest.raises(BadInput, match=r"RequestAttributesSequence\.ScheduledProcedureStepStartDate"):
        compile_keys({("00400275", "00400002"): "yesterday"})


def test_wildcards_do_not_run_away() -> None:
    long = {"00100020": {"vr": "LO", "Value": ["a" * 5000]}}
    assert not compile_keys({("00100020",): "*a" * 40 + "b"})(long)
