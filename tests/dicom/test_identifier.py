"""Identifiers read from what pydicom writes, and answers that pydicom reads."""

from io import BytesIO
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from archive.dicom.attributes import vr_of
from archive.dicom.identifier import Identifier, read_identifier, write_identifier
from archive.errors import BadInput

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
Model = dict[str, Any]


def written(data_set: Dataset, syntax: str) -> bytes:
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(file, data_set)
    return file.getvalue()


def read(encoded: bytes, syntax: str) -> Dataset:
    return read_dataset(BytesIO(encoded), syntax == IMPLICIT, True)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_keys_are_text_by_their_way_through_sequences(syntax: str) -> None:
    asked, code, request = Dataset(), Dataset(), Dataset()
    asked.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
    asked.QueryRetrieveLevel = "STUDY"
    asked.PatientName = "=山田*"
    asked.PatientID = ""
    asked.StudyInstanceUID = ["1.2", "1.2.3"]
    asked.Rows = [512, 256]
    asked.PatientWeight = "70.5"
    asked.FrameIncrementPointer = 0x00181063
    code.CodeMeaning = "山*"
    asked.ProcedureCodeSequence = [code]
    request.ScheduledProcedureStepID = "x"
    request.ScheduledProtocolCodeSequence = [Dataset()]
    asked.RequestAttributesSequence = [request]
    asked.OtherPatientIDsSequence = []
    assert read_identifier(written(asked, syntax), syntax) == Identifier(
        keys={
            ("00080052",): "STUDY",
            ("00100010",): "=山田*",
            ("00100020",): "",
            ("0020000D",): "1.2\\1.2.3",
            ("00280010",): "512\\256",
            ("00101030",): "70.5",
            ("00280009",): "00181063",
            ("00081032", "00080104"): "山*",
            ("00400275", "00400009"): "x",
        },
        wanted={
            "00080052": None,
            "00081032": {"00080104": None},
            "00100010": None,
            "00100020": None,
            "00101002": {},
            "00101030": None,
            "0020000D": None,
            "00280009": None,
            "00280010": None,
            "00400275": {"00400008": {}, "00400009": None},
        },
        specific_character_set=b"\\ISO 2022 IR 87 ",
    )


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_what_can_be_no_key_is_asked_for_in_vain(syntax: str) -> None:
    asked, code, item = Dataset(), Dataset(), Dataset()
    asked.PatientID = "P"
    asked.add_new(0x00090010, "LO", "ACME 1.0")
    asked.add_new(0x00091001, "UN", b"hello!")
    asked.add_new(0x00091002, "SQ", [item, item])
    asked.add_new(0x7FE00010, "OB", b"\1\2")
    code.CodeValue = "C"
    code.add_new(0x00090010, "LO", "ACME 1.0")
    asked.ProcedureCodeSequence = [code]
    identifier = read_identifier(written(asked, syntax), syntax)
    assert identifier.keys == {("00100020",): "P", ("00081032", "00080100"): "C"}
    assert set(identifier.wanted) == {"00090010", "00091001", "00091002", "00081032", "00100020", "7FE00010"}
    assert identifier.wanted["00081032"] == {"00080100": None}


def test_a_list_too_long_for_the_length_field_of_its_vr() -> None:
    uids = [f"1.2.826.0.1.3680043.8.498.{10**30 + number}" for number in range(1200)]
    value = "\\".join(uids).encode()
    value += bytes(len(value) % 2)
    encoded = element("0800 1800") + b"UN\0\0" + len(value).to_bytes(4, "little") + value
    assert read_identifier(encoded, EXPLICIT).single("00080018").split("\\") == uids


def element(hexadecimal: str) -> bytes:
    return bytes.fromhex(hexadecimal)


@pytest.mark.parametrize(
    ("encoded", "names"),
    [
        (element("1000 1000 ff000000 4142"), "PatientName"),  # cut off
        (element("2800 1000 03000000 010203"), "Rows"),  # no whole numbers
        (element("0800 3210 20000000 feff00e0 08000000 0800 0001 00000000 feff00e0 08000000 0800 0001 00000000"), "ProcedureCodeSequence"),
        (element("0800 3210 08000000 0102030405060708"), "ProcedureCodeSequence"),
    ],
)
def test_what_cannot_be_read_is_named(encoded: bytes, names: str) -> None:
    with pytest.raises(BadInput, match=names):
        read_identifier(encoded, IMPLICIT)


def test_sequences_without_end_are_refused() -> None:
    inside = b""
    for _ in range(40):
        item = element("feff00e0") + len(inside).to_bytes(4, "little") + inside
        inside = element("0800 3210") + len(item).to_bytes(4, "little") + item
    with pytest.raises(BadInput, match="nested deeper"):
        read_identifier(inside, IMPLICIT)


def name(**groups: str) -> Model:
    return {"00100010": {"vr": "PN", "Value": [groups]}}


@pytest.mark.parametrize(
    ("asked_in", "row", "answered_in"),
    [
        (b"", name(Alphabetic="Doe^John"), None),
        (b"ISO_IR 192", name(Alphabetic="Doe^John"), None),
        (b"", name(Alphabetic="Müller"), "ISO_IR 100"),
        (b"ISO_IR 6", name(Alphabetic="Müller"), "ISO_IR 100"),
        (b"ISO_IR 192", name(Alphabetic="Müller"), "ISO_IR 192"),
        (b"", name(Alphabetic="Yamada", Ideographic="山田"), "ISO_IR 192"),
        (b"\\ISO 2022 IR 87", name(Alphabetic="Yamada", Ideographic="山田"), ["", "ISO 2022 IR 87"]),
        (b"\\ISO 2022 IR 87", name(Alphabetic="洪^吉洞"), ["", "ISO 2022 IR 87"]),
        (b"\\ISO 2022 IR 87", name(Alphabetic="홍"), "ISO_IR 192"),
        (b"ISO_IR 100", name(Alphabetic="Łódź"), "ISO_IR 192"),
    ],
)
@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_answers_come_in_the_character_set_of_the_question_where_it_has_them(
    asked_in: bytes, row: Model, answered_in: str | list[str] | None, syntax: str
) -> None:
    answer = read(write_identifier(row, syntax, asked_in), syntax)
    assert answer.get("SpecificCharacterSet") == answered_in
    groups = row["00100010"]["Value"][0]
    assert (answer.PatientName.alphabetic, answer.PatientName.ideographic) == (groups["Alphabetic"], groups.get("Ideographic", ""))


texts = st.text(alphabet="aé山 .", min_size=1, max_size=6).map(str.strip).filter(bool)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "LO": texts,
    "PN": st.fixed_dictionaries({"Alphabetic": texts}, optional={"Ideographic": texts}),
    "IS": st.integers(-99, 99),
    "US": st.integers(0, 65535),
    "DS": st.sampled_from([0.5, 70.25, -3.0, 1e-7]),
    "UI": st.sampled_from(["1.2", "1.2.3"]),
    "DA": st.just("20200101"),
    "SH": texts,
}
TAGS = ["00080020", "00080050", "00080070", "00100010", "00101030", "0020000D", "00200013", "00280010"]


@st.composite
def rows(draw: st.DrawFn, depth: int = 0) -> Model:
    row: Model = {}
    for tag in draw(st.sets(st.sampled_from(TAGS))):
        vr = vr_of(tag)[:2]
        values = draw(st.lists(VALUES[vr], max_size=3))
        row[tag] = {"vr": vr, "Value": values} if values else {"vr": vr}
    if depth < 2 and draw(st.booleans()):
        items = draw(st.lists(rows(depth + 1), max_size=2))
        row["00081032"] = {"vr": "SQ", "Value": items}
    return row


@given(rows(), st.sampled_from([IMPLICIT, EXPLICIT]))
def test_what_is_written_is_what_pydicom_reads(row: Model, syntax: str) -> None:
    found = read(write_identifier(row, syntax, b"ISO_IR 192"), syntax).to_json_dict()
    found.pop("00080005", None)
    assert found == row
