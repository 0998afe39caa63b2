"""The audit log of a node that real peers speak to: who read or wrote what, over DIMSE and DICOMweb."""

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.kit import Node, free_port, require
from tests.peers import dcmtk

IMAGES = 12
LITTLE = "1.2.840.10008.1.2.1"


@pytest.fixture
def series(tmp_path: Path) -> list[pydicom.FileDataset]:
    from pydicom.data import get_testdata_file
    from pydicom.uid import generate_uid

    one = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    made = []
    for number in range(IMAGES):
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["audit", str(number)])
        one.save_as(tmp_path / f"{number}.dcm")
        made.append(pydicom.dcmread(tmp_path / f"{number}.dcm"))
    return made


def told(node: Node) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted((node.data / "audit").iterdir()) for line in path.read_text().splitlines()]


def sums(lines: list[dict[str, Any]]) -> dict[tuple[str, ...], int]:
    """Instances by all that tells events apart."""
    out: dict[tuple[str, ...], int] = {}
    for line in lines:
        key = tuple(line[name] for name in ("actor", "address", "action", "study_instance_uid", "outcome", "status", "destination"))
        out[key] = out.get(key, 0) + line["instances"]
    return out


def call(program: str, node: Node, *options: str, aet: str) -> None:
    command = [require(program), "-aet", aet, "-aec", "ARCHIVE", *options, "127.0.0.1", str(node.dimse_port)]
    subprocess.run(command, capture_output=True, env=dcmtk.ENVIRONMENT, timeout=60)


def get(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            answer.read()
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def test_everybody_stands_in_it(start_node: Callable[..., Node], series: list[pydicom.FileDataset], tmp_path: Path) -> None:
    sink = free_port()
    rejected = {"DICOM_ARCHIVE_DIMSE_CALLED_AE_TITLE_REQUIRED": "true"}
    node = start_node(settings=rejected, arguments=["--peer", f"SINK=127.0.0.1:{sink}"])
    one = series[0]
    study = str(one.StudyInstanceUID)
    names = ["QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study}"]
    keys = [part for name in names for part in ("-k", name)]

    dcmtk.send_with_storescu(node.dimse_port, {LITTLE: [Path(str(image.filename)) for image in series]})
    time.sleep(0.5)
    assert sums(told(node))["STORESCU", "127.0.0.1", "C-STORE", study, "success", "0x0000", ""] >= 1, "the first is told at once"

    call("findscu", node, "-S", *keys, "-k", "PatientName", aet="FINDER")
    call("findscu", node, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=NOBODY", aet="FINDER")
    call("findscu", node, "-S", "-k", "QueryRetrieveLevel=HEAP", aet="FINDER")
    with dcmtk.storescp(tmp_path / "sink", port=sink):
        call("movescu", node, "-S", "-aem", "SINK", *keys, aet="MOVER")
    call("movescu", node, "-S", "-aem", "SINK", *keys, aet="MOVER")  # nobody listens there any more
    call("movescu", node, "-S", "-aem", "STRANGER", *keys, aet="MOVER")
    call("getscu", node, "-S", "-od", str(tmp_path), *keys, aet="GETTER")
    subprocess.run([require("echoscu"), "-aet", "GUESSER", "-aec", "WRONG", "127.0.0.1", str(node.dimse_port)], capture_output=True)
    root = f"{node.dicomweb_url}/studies"
    where = f"{root}/{study}/series/{one.SeriesInstanceUID}"
    assert get(f"{root}?PatientID={one.PatientID}") == 200
    assert get(f"{root}/{study}") == 200
    assert [get(f"{where}/instances/{image.SOPInstanceUID}/frames/1") for image in series] == [200] * IMAGES
    assert get(f"{where}/instances/{one.SOPInstanceUID}/metadata") == 200
    assert get(f"{root}/1.2.3") == 404
    assert get(f"{node.http_url}/health") == 200
    node.stop()

    assert sums(told(node)) == {
        ("STORESCU", "127.0.0.1", "C-STORE", study, "success", "0x0000", ""): IMAGES,
        ("FINDER", "127.0.0.1", "C-FIND", study, "success", "0x0000", ""): 1,
        ("FINDER", "127.0.0.1", "C-FIND", "", "success", "0x0000", ""): 0,
        ("FINDER", "127.0.0.1", "C-FIND", "", "failure", "0xA900", ""): 0,
        ("MOVER", "127.0.0.1", "C-MOVE", study, "success", "0x0000", "SINK"): IMAGES,
        ("MOVER", "127.0.0.1", "C-MOVE", study, "failure", "0xA702", "SINK"): IMAGES,
        ("MOVER", "127.0.0.1", "C-MOVE", "", "failure", "0xA801", "STRANGER"): 0,
        ("GETTER", "127.0.0.1", "C-GET", study, "success", "0x0000", ""): IMAGES,
        ("GUESSER", "127.0.0.1", "associate", "", "failure", "called_ae_title_not_recognized", ""): 0,
        ("", "127.0.0.1", "search_for_studies", "", "success", "200", ""): 1,
        ("", "127.0.0.1", "retrieve_study", study, "success", "200", ""): IMAGES,
        ("", "127.0.0.1", "retrieve_instance_frames", study, "success", "200", ""): IMAGES,
        ("", "127.0.0.1", "retrieve_instance_metadata", study, "success", "200", ""): 1,
        ("", "127.0.0.1", "retrieve_study", "1.2.3", "failure", "404", ""): 0,
    }


def test_what_happened_before_a_kill_stands_in_it(start_node: Callable[..., Node], series: list[pydicom.FileDataset]) -> None:
    node = start_node()
    dcmtk.send_with_storescu(node.dimse_port, {LITTLE: [Path(str(series[0].filename))]})
    call("findscu", node, "-S", "-k", "QueryRetrieveLevel=STUDY", "-k", "PatientName=*", aet="READER")
    time.sleep(0.5)
    node.kill()
    assert {(line["actor"], line["action"]) for line in told(node)} == {("STORESCU", "C-STORE"), ("READER", "C-FIND")}
