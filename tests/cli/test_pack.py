"""`pack --now`: everything that was accepted before rests in a pack when it returns."""

import json
import threading
from collections.abc import Callable
from pathlib import Path

from archive.node.lock import lock_data
from tests.cli.archives import FEW_WORKERS, packs, verb, write_study
from tests.kit import Node

StartNode = Callable[..., Node]
PATIENT = FEW_WORKERS | {"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"}


def waiting(node: Node) -> int:
    return int(json.loads(node.cli("status", "--json").stdout)["waiting_instances"])


def test_through_the_running_node(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(settings=PATIENT)
    node.cli("import", str(write_study(tmp_path / "in").folder))
    assert waiting(node) == 3
    done = node.cli("pack", "--now")
    assert done.stdout.startswith("3 instances packed into 1 pack of ")
    assert "3 instances of 1 series wait" in done.stderr
    assert waiting(node) == 0
    assert len(list(packs(node.data))) == 1
    assert node.cli("pack", "--now").stdout.startswith("0 instances packed into 0 packs")


def test_by_itself_after_the_node_was_killed(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(settings=PATIENT)
    node.cli("import", str(write_study(tmp_path / "in").folder))
    node.kill()
    assert node.cli("pack", "--now").stdout.startswith("3 instances packed into 1 pack of ")
    assert waiting(node) == 0
    node.start()
    assert node.stop() == 0


def test_several_callers_at_once_are_all_served(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(settings=PATIENT)
    node.cli("import", str(write_study(tmp_path / "in").folder))
    said: list[str] = []
    threads = [threading.Thread(target=lambda: said.append(node.cli("pack", "--now").stdout)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(text.split(" pack of")[0].split(" packs of")[0] for text in said) == [
        "0 instances packed into 0",
        "0 instances packed into 0",
        "3 instances packed into 1",
    ]


def test_another_verb_that_has_the_folder_is_named(tmp_path: Path) -> None:
    data = tmp_path / "data"
    verb(data, "import", write_study(tmp_path / "in", 1).folder)
    with lock_data(data, "rebuild-index"):
        done = verb(data, "pack", "--now", exit_code=1)
    assert "`dicom-archive rebuild-index`" in done.stderr


def test_a_socket_that_a_killed_node_left_behind_is_no_node(start_node: StartNode, tmp_path: Path) -> None:
    node = start_node(settings=PATIENT)
    node.kill()
    assert (node.data / "control.sock").exists()
    node.cli("pack", "--now")
