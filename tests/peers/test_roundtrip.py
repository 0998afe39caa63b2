"""What DCMTK's senders send comes back byte for byte, accepted and packed, and dicomweb-client understands it.

DCMTK's senders decode and encode a file before they send it, so the bytes on the wire are not the file's: its `storescp` in bit
preserving mode is the witness of what they were.
"""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient
from pydicom.encaps import generate_frames

from tests.kit import Node, part10_data_set, retrieve_part10, sample_files
from tests.peers import dcmtk

Sender = Callable[[int, dict[str, list[Path]]], None]


UNREADABLE = {
    "SC_rgb_jpeg.dcm": "implicit VR under an explicit transfer syntax",
    "explicit_VR-UN.dcm": "every VR is UN, the UIDs' too",
    "rtdose_rle.dcm": "every VR is UN, the UIDs' too",
    "rtdose_rle_1frame.dcm": "every VR is UN, the UIDs' too",
}
"""Samples that DCMTK's senders cannot read, and why."""


def fits(data_set: pydicom.FileDataset) -> bool:
    """Whether DCMTK sends it and an archive may take it: four legal UIDs, file meta information that agrees, a readable encoding."""
    uids = [str(data_set.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
    meta = data_set.file_meta
    named = [str(meta.get("MediaStorageSOPInstanceUID", "")), str(meta.get("MediaStorageSOPClassUID", ""))]
    return (
        all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in uids)
        and named == uids[2:]
        and meta.get("TransferSyntaxUID") in dcmtk.STORESCU_PROPOSALS
        and Path(str(data_set.filename)).name not in UNREADABLE
    )


@pytest.fixture(scope="module")
def samples() -> dict[str, pydicom.FileDataset]:
    """One sample for each SOP Instance UID, by that UID."""
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    chosen: dict[str, pydicom.FileDataset] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some samples are odd on purpose
        for path in sample_files():
            data_set = pydicom.dcmread(path)
            if fits(data_set):
                chosen.setdefault(str(data_set.SOPInstanceUID), data_set)
    assert len(chosen) > 130
    return chosen


@pytest.fixture(scope="module")
def by_transfer_syntax(samples: dict[str, pydicom.FileDataset]) -> dict[str, list[Path]]:
    groups: dict[str, list[Path]] = {}
    for data_set in samples.values():
        groups.setdefault(str(data_set.file_meta.TransferSyntaxUID), []).append(Path(str(data_set.filename)))
    assert len(groups) >= 8
    return groups


@pytest.fixture
def quiet_node(start_node: Callable[..., Node]) -> Node:
    """A node that packs when it is told to."""
    return start_node(settings={"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})


def wrong_instances(node: Node, samples: dict[str, pydicom.FileDataset], witnessed: dict[str, bytes]) -> list[str]:
    """Instances whose data set comes back otherwise than `storescp` got it."""
    wrong = []
    for uid, data_set in samples.items():
        parts = retrieve_part10(
            f"{node.dicomweb_url}/studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}/instances/{uid}"
        )
        if [part10_data_set(part) for part in parts] != [witnessed[uid]]:
            wrong.append(str(data_set.filename))
    return wrong


@pytest.mark.parametrize("send", [dcmtk.send_with_storescu, dcmtk.send_with_dcmsend])
def test_data_sets_come_back_byte_for_byte(
    send: Sender,
    quiet_node: Node,
    samples: dict[str, pydicom.FileDataset],
    by_transfer_syntax: dict[str, list[Path]],
    tmp_path: Path,
) -> None:
    with dcmtk.storescp(tmp_path / "witness") as port:
        send(port, by_transfer_syntax)
    witnessed = dcmtk.received_data_sets(tmp_path / "witness")
    assert witnessed.keys() == samples.keys()
    send(quiet_node.dimse_port, by_transfer_syntax)
    assert wrong_instances(quiet_node, samples, witnessed) == [], "accepted"
    quiet_node.cli("pack", "--now")
    assert wrong_instances(quiet_node, samples, witnessed) == [], "packed"
    quiet_node.cli("verify")


@pytest.fixture
def client(quiet_node: Node, by_transfer_syntax: dict[str, list[Path]]) -> Iterator[DICOMwebClient]:
    """dicomweb-client before a node that holds every sample, packed."""
    dcmtk.send_with_dcmsend(quiet_node.dimse_port, by_transfer_syntax)
    quiet_node.cli("pack", "--now")
    with warnings.catch_warnings():
        # The client leaves sockets to the garbage collector and parses headers with what newer Pythons deprecate.
        warnings.simplefilter("ignore")
        yield DICOMwebClient(url=quiet_node.dicomweb_url)


def values_of(json_data_set: dict[str, dict[str, Any]], tag: str) -> list[Any]:
    values: list[Any] = json_data_set.get(tag, {}).get("Value", [])
    return values


def test_dicomweb_client_searches(client: DICOMwebClient, samples: dict[str, pydicom.FileDataset]) -> None:
    wanted = {(str(one.StudyInstanceUID), str(one.SeriesInstanceUID), uid) for uid, one in samples.items()}
    found = {values_of(study, "0020000D")[0] for study in client.search_for_studies(limit=1000)}
    assert found == {study for study, _, _ in wanted}
    series = {(values_of(one, "0020000D")[0], values_of(one, "0020000E")[0]) for one in client.search_for_series(limit=1000)}
    assert series == {(study, series) for study, series, _ in wanted}
    instances = {
        tuple(values_of(one, tag)[0] for tag in ("0020000D", "0020000E", "00080018")) for one in client.search_for_instances(limit=1000)
    }
    assert instances == wanted
    patients = {str(one.PatientID) for one in samples.values() if str(one.get("PatientName", "")) == "CompressedSamples^CT1"}
    by_name = client.search_for_studies(search_filters={"PatientName": "CompressedSamples^CT1"})
    assert {values_of(study, "00100020")[0] for study in by_name} == patients


def test_dicomweb_client_retrieves_instances_metadata_and_frames(client: DICOMwebClient, samples: dict[str, pydicom.FileDataset]) -> None:
    chosen = [
        one
        for one in samples.values()
        if Path(str(one.filename)).name in {"CT_small.dcm", "693_J2KI.dcm", "examples_ybr_color.dcm", "emri_small.dcm"}
    ]
    assert len(chosen) == 4
    for data_set in chosen:
        uids = (str(data_set.StudyInstanceUID), str(data_set.SeriesInstanceUID), str(data_set.SOPInstanceUID))
        retrieved = client.retrieve_instance(*uids, media_types=(("application/dicom", "*"),))
        assert retrieved.PixelData == data_set.PixelData
        assert retrieved.file_meta.TransferSyntaxUID == data_set.file_meta.TransferSyntaxUID
        (metadata,) = [one for one in client.retrieve_series_metadata(*uids[:2]) if values_of(one, "00080018") == [uids[2]]]
        assert values_of(metadata, "00280010") == [data_set.Rows]
        number_of_frames = int(data_set.get("NumberOfFrames") or 1)
        if data_set.file_meta.TransferSyntaxUID.is_encapsulated:
            stored = list(generate_frames(data_set.PixelData, number_of_frames=number_of_frames))
        else:
            size = len(data_set.PixelData) // number_of_frames
            stored = [data_set.PixelData[at : at + size] for at in range(0, size * number_of_frames, size)]
        assert len(stored) == number_of_frames
        wanted = sorted({1, number_of_frames})
        frames = client.retrieve_instance_frames(*uids, frame_numbers=wanted)
        assert [frame.rstrip(b"\0") for frame in frames] == [stored[number - 1].rstrip(b"\0") for number in wanted]
