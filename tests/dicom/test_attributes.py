import re
from pathlib import Path

import pytest
from pydicom.datadict import dictionary_has_tag, keyword_for_tag

from archive.dicom import attributes
from archive.dicom.attributes import (
    INSTANCE_ATTRIBUTES,
    PATIENT_ATTRIBUTES,
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    keyword_of,
    level_of,
    parse_attribute_path,
    vr_of,
)
from archive.errors import BadInput

ALL = PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES + SERIES_ATTRIBUTES + INSTANCE_ATTRIBUTES


def test_every_attribute_stands_in_one_table_under_its_keyword() -> None:
    assert len(set(ALL)) == len(ALL)
    written = re.findall(r'"([0-9A-F]{8})",  # (\w+)', Path(attributes.__file__).read_text())
    assert [tag for tag, _ in written] == list(ALL)
    for tag, keyword in written:
        assert dictionary_has_tag(int(tag, 16))
        assert keyword == keyword_for_tag(int(tag, 16))


def test_what_qido_requires_is_there() -> None:
    patient = "PatientName PatientID PatientBirthDate PatientSex"
    study = "StudyDate StudyTime AccessionNumber ReferringPhysicianName StudyInstanceUID StudyID"
    series = "Modality SeriesDescription SeriesInstanceUID SeriesNumber PerformedProcedureStepStartDate RequestAttributesSequence"
    instance = "SOPClassUID SOPInstanceUID InstanceNumber Rows Columns BitsAllocated NumberOfFrames TimezoneOffsetFromUTC"
    for keyword in f"{patient} {study} {series} {instance}".split():
        (tag,) = parse_attribute_path(keyword)
        assert tag in ALL


def test_levels() -> None:
    assert [level_of(tag) for tag in ("00100010", "0020000D", "0020000E", "00080018", "00091001")] == [
        "patient",
        "study",
        "series",
        "instance",
        "instance",
    ]


def test_dictionary() -> None:
    assert (vr_of("00100010"), keyword_of("00100010")) == ("PN", "PatientName")
    assert (vr_of("00091001"), keyword_of("00091001")) == ("UN", "")
    assert vr_of("00280106") == "US or SS"
    assert vr_of("00080000") == "UL"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("PatientName", ("00100010",)),
        ("00100010", ("00100010",)),
        ("0008103e", ("0008103E",)),
        ("00091001", ("00091001",)),
        ("RequestAttributesSequence.ScheduledProcedureStepID", ("00400275", "00400009")),
        ("00400275.00400007", ("00400275", "00400007")),
        ("Modality", ("00080060",)),
    ],
)
def test_paths(text: str, path: tuple[str, ...]) -> None:
    assert parse_attribute_path(text) == path


@pytest.mark.parametrize(
    "text", ["", ".", "Patient", "0010001", "001000100", "0x100010", "+0100010", "1_000_00", "PatientName.PatientID", "٠٠١٠٠٠١٠"]
)
def test_what_names_no_attribute_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_attribute_path(text)
    with pytest.raises(BadInput):
        parse_attribute_path(".".join(["00400275"] * 9))
