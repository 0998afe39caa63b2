"""What dicomweb-client asks of each level, accepted and packed: searches inside searches, metadata, bulk data where its URIs lead."""

import json
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pydicom
import pytest
from dicomweb_client.api import DICOMwebClient

from tests.kit import Node, make_series, part10_bytes

PIXELS = "7FE00010"


@pytest.fixture(scope="module")
def series() -> list[pydicom.Dataset]:
    """Three images of one series; each holds a private value that is long enough to be bulk data, and one inside a sequence."""
    made = make_series(3, PatientID="bulk", SeriesNumber=7)
    for n, data_set in enumerate(made):
        block = data_set.private_block(0x0099, "TESTS", create=True)
        block.add_new(0x01, "OB", bytes([n]) * 3000)
        item = pydicom.Dataset()
        item.add_new(0x54001010, "OW", bytes([n + 100]) * 2000)
        data_set.WaveformSequence = [item]
    return made


@pytest.fixture(params=["accepted", "packed"])
def node_and_client(
    request: pytest.FixtureRequest, start_node: Callable[..., Node], series: list[pydicom.Dataset], tmp_path: Path
) -> Iterator[tuple[Node, DICOMwebClient]]:
    node = start_node(settings={"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    folder = tmp_path / "series"
    folder.mkdir()
    for data_set in series:
        (folder / f"{data_set.SOPInstanceUID}.dcm").write_bytes(part10_bytes(data_set))
    node.cli("import", str(folder))
    if request.param == "packed":
        node.cli("pack", "--now")
    with warnings.catch_warnings():
        # The client leaves sockets to the garbage collector and parses headers with what newer Pythons deprecate.
        warnings.simplefilter("ignore")
        yield node, DICOMwebClient(url=node.dicomweb_url)


def uids_of(series: list[pydicom.Dataset]) -> tuple[str, str, list[str]]:
    return str(series[0].StudyInstanceUID), str(series[0].SeriesInstanceUID), [str(one.SOPInstanceUID) for one in series]


def values(rows: list[dict[str, Any]], tag: str) -> list[Any]:
    return [row[tag]["Value"][0] for row in rows]


def test_it_reads_everything(node_and_client: tuple[Node, DICOMwebClient], series: list[pydicom.Dataset]) -> None:
    node, client = node_and_client
    study, one_series, instances = uids_of(series)

    (found,) = client.search_for_studies(search_filters={"PatientID": "bulk"}, fields=["NumberOfStudyRelatedInstances"])
    assert values([found], "0020000D") == [study]
    assert found["00201208"]["Value"] == [3]
    # The client leaves the port out of its Host header, and what the header says is where the archive takes itself to be.
    assert found["00081190"]["Value"] == [f"http://{node.host}/dicomweb/studies/{study}"]
    assert values(client.search_for_series(study), "0020000E") == [one_series]
    assert values(client.search_for_instances(study, one_series), "00080018") == instances
    assert values(client.search_for_instances(study), "00080018") == instances
    pages = [values(client.search_for_instances(study, limit=1, offset=n), "00080018") for n in range(3)]
    assert [uid for page in pages for uid in page] == instances
    assert client.search_for_studies(search_filters={"PatientID": "nobody"}) == []

    for retrieved in (client.retrieve_study(study), client.retrieve_series(study, one_series)):
        assert [one.PixelData for one in retrieved] == [one.PixelData for one in series]
    assert client.retrieve_instance(study, one_series, instances[1]).PixelData == series[1].PixelData
    assert client.retrieve_instance_frames(study, one_series, instances[2], [1]) == [series[2].PixelData]

    levels = {
        f"/studies/{study}/metadata": client.retrieve_study_metadata(study),
        f"/studies/{study}/series/{one_series}/metadata": client.retrieve_series_metadata(study, one_series),
        f"/studies/{study}/series/{one_series}/instances/{instances[0]}/metadata": [
            client.retrieve_instance_metadata(study, one_series, instances[0])
        ],
    }
    for path, documents in levels.items():
        assert values(documents, "00080018") == instances[: len(documents)]
        for n, document in enumerate(documents):
            nested = document["54000100"]["Value"][0]["54001010"]
            for element, wanted in (
                (document[PIXELS], series[n].PixelData),
                (document["00991001"], bytes([n]) * 3000),
                (nested, bytes([n + 100]) * 2000),
            ):
                address = urljoin(node.dicomweb_url + path, element["BulkDataURI"])
                assert client.retrieve_bulkdata(address) == [wanted]
                with urllib.request.urlopen(urllib.request.Request(address, headers={"Range": "bytes=1-4"}), timeout=30) as answer:
                    assert (answer.status, answer.read()) == (206, wanted[1:5])


def test_it_is_ready_and_tells_its_figures(node_and_client: tuple[Node, DICOMwebClient], series: list[pydicom.Dataset]) -> None:
    node, _ = node_and_client
    with urllib.request.urlopen(f"{node.http_url}/ready", timeout=30) as answer:
        checks = json.loads(answer.read())["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {"index": True, "journal": True, "tier": True, "packing": True}
    with urllib.request.urlopen(f"{node.http_url}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    waiting = float(text.split("\ndicom_archive_journal_instances ")[1].split()[0])
    packed = float(text.split("\ndicom_archive_packed_instances ")[1].split()[0])
    assert waiting + packed == len(series)
