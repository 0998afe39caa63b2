"""DCMTK's findscu and pynetdicom's SCU query a running node; what they find is compared with what was sent, journal and packs alike."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom import Dataset
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from archive.config import load_settings
from archive.flow.home import Home
from archive.flow.ingest import Ingest
from tests.flow.objects import make_object, send
from tests.kit import Node, require

PATIENT_ROOT, STUDY_ROOT = "1.2.840.10008.5.1.4.1.2.1.1", "1.2.840.10008.5.1.4.1.2.2.1"


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Three patients with four studies; the first two studies packed, the others not."""
    folder = tmp_path_factory.mktemp("archive")
    node = Node(data=folder / "data", settings={"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    objects = [
        *(make_object(1, series, n, PatientName="Müller^Jürgen", StudyTime="0930") for series in (1, 2) for n in (1, 2, 3)),
        make_object(2, 1, 1, PatientID="P1", PatientName="Müller^Jürgen", Modality="MR", StudyTime="1530"),
        make_object(3, 1, 1, PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう", StudyTime="0800"),
        make_object(4, 1, 1, PatientName="Doe^John", AccessionNumber="A4", StudyTime="2200"),
    ]
    for some, pack in ((objects[:7], True), (objects[7:], False)):
        with Home(load_settings(overrides={"node": {"data": node.data}}, environment={}), "test") as home:
            for one in some:
                send(Ingest(home), one)
        node.start()
        if pack:
            node.cli("pack", "--now")
            node.stop()
    yield node
    node.kill()


def findscu(archive: Node, folder: Path, *arguments: str) -> list[Dataset]:
    """Answers to a query of findscu, from the files that it writes."""
    folder.mkdir()
    command = [require("findscu"), "-aec", "ARCHIVE", "-X", "-od", str(folder), *arguments, "127.0.0.1", str(archive.dimse_port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "E:" not in done.stderr, done.stderr
    return [pydicom.dcmread(path, force=True) for path in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("keys", "studies"),
    [
        (["StudyInstanceUID"], "1234"),
        (["PatientID=P1", "StudyInstanceUID"], "12"),
        (["PatientName=doe*"], "4"),
        (["PatientName=d?e^john"], "4"),
        (["ModalitiesInStudy=MR"], "2"),
        (["AccessionNumber=A4"], "4"),
        (["StudyInstanceUID=1.2.1\\1.2.4"], "14"),
        (["StudyDate=20200215-20200315"], "12"),
        (["StudyDate=-20200315", "StudyTime=1000-"], "2"),
        (["NumberOfStudyRelatedInstances=6"], "1"),
        (["PatientID=nobody"], ""),
    ],
)
def test_findscu_at_study_level(archive: Node, tmp_path: Path, keys: list[str], studies: str) -> None:
    found = findscu(archive, tmp_path / "found", "-S", "-k", "QueryRetrieveLevel=STUDY", *(part for key in keys for part in ("-k", key)))
    assert sorted(answer.StudyInstanceUID for answer in found) == [f"1.2.{n}" for n in studies]
    assert all(answer.RetrieveAETitle == "ARCHIVE" for answer in found)


def test_findscu_at_the_other_levels(archive: Node, tmp_path: Path) -> None:
    patients = ["-P", "-k", "QueryRetrieveLevel=PATIENT", "-k", "PatientID", "-k", "NumberOfPatientRelatedStudies"]
    found = findscu(archive, tmp_path / "patients", *patients, "-k", "NumberOfPatientRelatedInstances")
    counts = {a.PatientID: (a.NumberOfPatientRelatedStudies, a.NumberOfPatientRelatedInstances) for a in found}
    assert len(found) == 3 and counts == {"P1": (2, 7), "P3": (1, 1), "P4": (1, 1)}
    series = ["-S", "-k", "QueryRetrieveLevel=SERIES", "-k", "StudyInstanceUID=1.2.1", "-k", "NumberOfSeriesRelatedInstances"]
    found = findscu(archive, tmp_path / "series", *series, "-k", "SeriesInstanceUID")
    assert [(a.SeriesInstanceUID, a.NumberOfSeriesRelatedInstances) for a in found] == [("1.2.1.1", 3), ("1.2.1.2", 3)]
    images = ["-S", "-k", "QueryRetrieveLevel=IMAGE", "-k", "StudyInstanceUID=1.2.1", "-k", "SeriesInstanceUID=1.2.1.2"]
    found = findscu(archive, tmp_path / "images", *images, "-k", "SOPInstanceUID", "-k", "InstanceNumber")
    assert [(a.SOPInstanceUID, a.InstanceNumber) for a in found] == [(f"1.2.1.2.{n}", n) for n in (1, 2, 3)]


def test_findscu_is_told_why(archive: Node) -> None:
    command = [require("findscu"), "-d", "-S", "-aec", "ARCHIVE", "-k", "QueryRetrieveLevel=IMAGE", "127.0.0.1", str(archive.dimse_port)]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "0xa900" in (said.stdout + said.stderr).lower()


def test_findscu_cancels(archive: Node) -> None:
    command = [
        require("findscu"),
        "-v",
        "-S",
        "-aec",
        "ARCHIVE",
        "--cancel",
        "1",
        "-k",
        "QueryRetrieveLevel=STUDY",
        "-k",
        "StudyInstanceUID",
    ]
    done = subprocess.run([*command, "127.0.0.1", str(archive.dimse_port)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "Find Response: 1 (Pending)" in done.stdout + done.stderr


@pytest.fixture
def associate(archive: Node) -> Iterator[Callable[..., Association]]:
    """Associate for C-FIND, with the bytes of an extended negotiation if there are any."""
    opened = []

    def open_association(sop_class: str = STUDY_ROOT, negotiated: bytes | None = None) -> Association:
        ae = AE("WORKSTATION")
        ae.add_requested_context(sop_class)
        items: list[Any] = []
        if negotiated is not None:
            item = SOPClassExtendedNegotiation()
            item.sop_class_uid, item.service_class_application_information = sop_class, negotiated
            items.append(item)
        association = ae.associate("127.0.0.1", archive.dimse_port, ae_title="ARCHIVE", ext_neg=items)
        assert association.is_established
        opened.append(association)
        return association

    yield open_association
    for association in opened:
        association.release()


def find(association: Association, sop_class: str = STUDY_ROOT, **keys: Any) -> tuple[list[Dataset], int]:
    """Answers, and the final status."""
    asked = Dataset()
    for keyword, value in keys.items():
        setattr(asked, keyword, value)
    *pending, (final, _) = association.send_c_find(asked, sop_class)
    assert all(status.Status in (0xFF00, 0xFF01) for status, _ in pending)
    return [answer for _, answer in pending if answer is not None], final.Status


@pytest.mark.filterwarnings("ignore:Invalid value for VR DA")
def test_pynetdicom_negotiates_what_it_may_ask(associate: Callable[..., Association]) -> None:
    relational, plain = associate(negotiated=b"\1\1\1"), associate()
    [accepted] = relational.acceptor.sop_class_extended.items()
    assert accepted == (STUDY_ROOT, b"\1\1\1")
    found, status = find(relational, QueryRetrieveLevel="IMAGE", SOPInstanceUID="", PatientName="MULL JURG")
    assert (len(found), status) == (7, 0)
    # 15 February 10:00 to 15 March 16:00: of the first study's 9:30 it is too late.
    moments = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": "", "StudyDate": "20200215-20200315", "StudyTime": "1000-1600"}
    assert [a.StudyInstanceUID for a in find(relational, **moments)[0]] == ["1.2.2"]
    moments["StudyTime"] = "0900-0800"
    assert [a.StudyInstanceUID for a in find(relational, **moments)[0]] == ["1.2.1"]
    assert find(plain, **moments)[0] == []
    assert find(plain, QueryRetrieveLevel="IMAGE", SOPInstanceUID="", PatientName="MULL JURG") == ([], 0xA900)
    assert find(plain, QueryRetrieveLevel="STUDY", StudyDate="yesterday")[1] == 0xC000


@pytest.mark.parametrize("character_set", ["ISO_IR 192", ["", "ISO 2022 IR 87"]])
def test_pynetdicom_asks_and_reads_in_several_character_sets(associate: Callable[..., Association], character_set: Any) -> None:
    keys = {"SpecificCharacterSet": character_set, "QueryRetrieveLevel": "STUDY", "PatientName": "=山田*"}
    [answer], status = find(associate(), **keys)
    assert (status, answer.SpecificCharacterSet) == (0, character_set)
    assert str(answer.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    [answer], _ = find(associate(PATIENT_ROOT), PATIENT_ROOT, QueryRetrieveLevel="PATIENT", PatientID="P1", PatientName="")
    assert (answer.SpecificCharacterSet, str(answer.PatientName)) == ("ISO_IR 100", "Müller^Jürgen")
