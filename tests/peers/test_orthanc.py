"""Orthanc as a client (stores, queries, retrieves, asks for storage commitment) and as a destination of C-MOVE."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pydicom
import pytest

from tests.kit import Node, make_series, part10_bytes
from tests.peers import dcmtk, orthanc
from tests.peers.orthanc import Orthanc


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Orthanc]:
    with orthanc.running(tmp_path / "orthanc") as one:
        yield one


@pytest.fixture
def archive(start_node: Callable[..., Node], peer: Orthanc) -> Node:
    node = start_node(arguments=["--peer", f"ORTHANC=127.0.0.1:{peer.dicom_port}"])
    peer.knows(node.dimse_port)
    return node


@pytest.fixture
def series(tmp_path: Path) -> list[pydicom.Dataset]:
    made = make_series(20, PatientID="P1", PatientName="Peer^Of^Orthanc")
    folder = tmp_path / "series"
    folder.mkdir()
    for number, data_set in enumerate(made):
        (folder / f"{number}.dcm").write_bytes(part10_bytes(data_set))
    return made


def uids(series: list[pydicom.Dataset]) -> set[str]:
    return {str(one.SOPInstanceUID) for one in series}


def files(tmp_path: Path) -> dict[str, list[Path]]:
    return {"1.2.840.10008.1.2.1": sorted((tmp_path / "series").iterdir())}


def test_it_echoes_queries_and_retrieves(archive: Node, peer: Orthanc, series: list[pydicom.Dataset], tmp_path: Path) -> None:
    assert peer.ask("/modalities/archive/echo", {}) == {}
    dcmtk.send_with_dcmsend(archive.dimse_port, files(tmp_path))
    query = peer.ask("/modalities/archive/query", {"Level": "Study", "Query": {"PatientName": "Peer*"}})
    [answer] = peer.ask(f"{query['Path']}/answers?expand&simplify")
    assert answer["StudyInstanceUID"] == series[0].StudyInstanceUID
    peer.ask(f"{query['Path']}/retrieve", {"TargetAet": "ORTHANC", "Synchronous": True})
    assert peer.sop_instance_uids() == uids(series)


def test_it_is_a_destination(archive: Node, peer: Orthanc, series: list[pydicom.Dataset], tmp_path: Path) -> None:
    dcmtk.send_with_dcmsend(archive.dimse_port, files(tmp_path))
    archive.cli("pack", "--now")
    keys = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={series[0].StudyInstanceUID}"]
    done = dcmtk.move(archive.dimse_port, "ORTHANC", *keys, options=["-S"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert peer.sop_instance_uids() == uids(series)
    assert "status=0x0000 completed=20 warnings=0 failed=0" in archive.log()


def test_it_stores_and_is_told_of_commitment(archive: Node, peer: Orthanc, series: list[pydicom.Dataset], tmp_path: Path) -> None:
    for data_set in series:
        peer.ask("/instances", part10_bytes(data_set))
    stored = peer.ask("/modalities/archive/store", {"Resources": peer.ask("/studies"), "StorageCommitment": True})
    path = stored["StorageCommitmentTransactionUID"]
    deadline = time.monotonic() + 30
    while (report := peer.ask(f"/storage-commitment/{path}"))["Status"] == "Pending" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert report["Status"] == "Success"
    assert {one["SOPInstanceUID"] for one in report["Success"]} == uids(series)
    assert report["Failures"] == []


def test_it_is_told_what_is_not_there(archive: Node, peer: Orthanc, series: list[pydicom.Dataset], tmp_path: Path) -> None:
    dcmtk.send_with_dcmsend(archive.dimse_port, files(tmp_path))
    wanted = [[str(one.SOPClassUID), str(one.SOPInstanceUID)] for one in series[:3]] + [[str(series[0].SOPClassUID), "1.2.3.4.5"]]
    asked = peer.ask("/modalities/archive/storage-commitment", {"DicomInstances": wanted})
    deadline = time.monotonic() + 30
    while (report := peer.ask(asked["Path"]))["Status"] == "Pending" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert report["Status"] == "Failure"
    assert {one["SOPInstanceUID"] for one in report["Success"]} == {uid for _, uid in wanted[:3]}
    [failure] = report["Failures"]
    assert failure["SOPInstanceUID"] == "1.2.3.4.5" and 0x0112 in failure.values(), failure
