"""`status`: what is here, what waits, who runs."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.archives import FEW_WORKERS, verb, write_study
from tests.kit import Node

StartNode = Callable[..., Node]


def test_while_the_node_runs(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(settings=FEW_WORKERS | {"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    assert node.process is not None
    node.cli("import", str(write_study(tmp_path / "a", 2).folder))
    node.cli("pack", "--now")
    node.cli("import", str(write_study(tmp_path / "b", 3).folder))
    found = json.loads(node.cli("status", "--json").stdout)
    assert found["running"] is True
    assert f"process {node.process.pid} " in found["holder"]
    assert (found["studies"], found["series"], found["instances"], found["packs"]) == (2, 2, 5, 1)
    assert found["waiting_instances"] == 3 and found["waiting_bytes"] > 3 * 32768
    assert 0 < found["oldest_waiting_seconds"] < 120
    assert found["pack_bytes"] == sum(path.stat().st_size for path in (node.data / "packs").rglob("*.zip"))
    assert found["tier"] == (node.data / "packs").as_uri()
    assert found["set_aside"] == {}
    text = node.cli("status").stdout
    assert "running" in text and "2 studies, 2 series, 5 instances" in text and "3 instances, " in text


def test_while_it_is_stopped(tmp_path: Path) -> None:
    data = tmp_path / "data"
    verb(data, "import", write_study(tmp_path / "in", 2).folder)
    found = json.loads(verb(data, "status", "--json").stdout)
    assert found["running"] is False and found["holder"] == ""
    assert found["instances"] == 2
    text = verb(data, "status").stdout
    assert "stopped" in text and "1 study, 1 series, 2 instances" in text
    assert "waiting   nothing" in text


def test_the_tier_is_that_of_the_node_that_runs(start_node: StartNode, tmp_path: Path) -> None:
    tier = tmp_path / "elsewhere"
    node = start_node(settings=FEW_WORKERS, arguments=["--tier", tier.as_uri()])
    found = json.loads(node.cli("status", "--json").stdout)
    assert (found["tier"], found["tier_problem"]) == (tier.as_uri(), "")
    tier.rmdir()
    assert "cannot be read and written" in json.loads(node.cli("status", "--json").stdout)["tier_problem"]
    assert f"does not work: {tier.as_uri()} cannot be read and written" in node.cli("status").stdout
