"""Action and Event Information of storage commitment, as pydicom writes and reads them."""

from io import BytesIO

import pydicom
import pytest
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from archive.dicom.commitment import FailureReason, Reference, Verdict, read_action_information, write_event_information
from archive.errors import BadInput

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"


def action(*references: tuple[str, str], transaction: str = "1.2.3", syntax: str = EXPLICIT) -> bytes:
    data_set = pydicom.Dataset()
    data_set.TransactionUID = transaction
    data_set.ReferencedSOPSequence = []
    for sop_class, sop in references:
        item = pydicom.Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop
        data_set.ReferencedSOPSequence.append(item)
    file = pydicom.filebase.DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(file, data_set)
    return file.getvalue()


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_what_is_asked(syntax: str) -> None:
    data = action((CT, "1.2.1"), (CT, "1.2.2"), (CT, "1.2.1"), syntax=syntax)
    assert read_action_information(data, syntax) == ("1.2.3", [Reference(CT, "1.2.1"), Reference(CT, "1.2.2")])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"rubbish that is no data set",
        action(),
        action((CT, "")),
        action(("", "1.2")),
        action((CT, "1.2"), transaction=""),
        action((CT, "1.2"))[:-9],
        action((CT, "1.2"))[:18],
    ],
)
def test_what_makes_no_sense(data: bytes) -> None:
    with pytest.raises(BadInput):
        read_action_information(data, EXPLICIT)


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_what_is_told(syntax: str) -> None:
    failed = [
        (Reference(CT, "1.2.2"), FailureReason.NO_SUCH_OBJECT_INSTANCE),
        (Reference(CT, "1.2.4"), FailureReason.CLASS_INSTANCE_CONFLICT),
    ]
    data = write_event_information("1.2.3", Verdict([Reference(CT, "1.2.1")], failed), "ARCHIVE", syntax)
    told = read_dataset(BytesIO(data), syntax == IMPLICIT, True)
    assert (told.TransactionUID, told.RetrieveAETitle) == ("1.2.3", "ARCHIVE")
    assert [(i.ReferencedSOPClassUID, i.ReferencedSOPInstanceUID) for i in told.ReferencedSOPSequence] == [(CT, "1.2.1")]
    assert [(i.ReferencedSOPInstanceUID, i.FailureReason) for i in told.FailedSOPSequence] == [("1.2.2", 0x0112), ("1.2.4", 0x0119)]
    assert "FailedSOPSequence" not in read_dataset(
        BytesIO(write_event_information("1.2", Verdict([Reference(CT, "1.1")], []), "A", syntax)), syntax == IMPLICIT, True
    )
