"""`delete`: says what it will do, does it beside the node and alone, is off unless configured."""

import json
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.cli.archives import FEW_WORKERS, verb, write_study
from tests.kit import Node, retrieve_part10

ALLOWED = FEW_WORKERS | {"DICOM_ARCHIVE_DELETION_ALLOWED": "true", "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"}


def held(node: Node) -> int:
    return int(json.loads(node.cli("status", "--json").stdout)["instances"])


def test_beside_the_running_node_and_alone(start_node: Callable[..., Node], tmp_path: Path) -> None:
    node = start_node(settings=ALLOWED)
    studies = [write_study(tmp_path / name) for name in ("one", "two")]
    node.cli("import", *(str(study.folder) for study in studies))
    first = studies[0].data_sets[0]
    asked = node.cli("delete", studies[0].study_instance_uid, exit_code=2)
    assert "say --yes" in asked.stderr and f"study {studies[0].study_instance_uid}: 3 objects" in asked.stderr
    assert held(node) == 6
    done = node.cli("delete", "--yes", str(first.SOPInstanceUID))
    assert done.stdout.startswith(f"deleted instance {first.SOPInstanceUID}: 1 object, ")
    assert held(node) == 5
    url = f"{node.dicomweb_url}/studies/{studies[0].study_instance_uid}"
    assert len(retrieve_part10(url)) == 2
    report = json.loads(node.cli("delete", "--yes", "--json", studies[0].study_instance_uid).stdout)
    assert (report["doomed"][0]["level"], report["doomed"][0]["revisions"], report["records"]) == ("study", 2, 1)
    with pytest.raises(HTTPError, match="404"):
        retrieve_part10(url)
    assert "nothing is known" in node.cli("delete", "--yes", studies[0].study_instance_uid, exit_code=1).stderr
    node.kill()
    node.start()
    assert held(node) == 3
    assert node.stop() == 0
    assert node.cli("delete", "--yes", str(studies[1].data_sets[0].SeriesInstanceUID)).stdout.startswith("deleted series ")
    assert held(node) == 0
    node.cli("rebuild-index")
    assert held(node) == 0
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    node.cli("import", str(studies[0].folder))
    assert held(node) == 3


def test_it_is_off_unless_configured(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    assert "deletion.allowed" in verb(data, "delete", "--yes", study.study_instance_uid, exit_code=2).stderr
    assert json.loads(verb(data, "status", "--json").stdout)["instances"] == 1


def test_the_settings_of_the_node_count(start_node: Callable[..., Node], tmp_path: Path) -> None:
    node = start_node(settings=FEW_WORKERS)
    study = write_study(tmp_path / "in", 1)
    node.cli("import", str(study.folder))
    node.settings = ALLOWED
    assert "deletion.allowed" in node.cli("delete", "--yes", study.study_instance_uid, exit_code=2).stderr
