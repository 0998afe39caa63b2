"""`rebuild-index`: the index anew, with the node stopped."""

import json
import shutil
from pathlib import Path

from tests.cli.archives import FEW_WORKERS, verb, write_study
from tests.kit import Node


def test_an_index_that_was_deleted_comes_back(tmp_path: Path) -> None:
    data = tmp_path / "data"
    study = write_study(tmp_path / "in")
    verb(data, "import", study.folder)
    before = json.loads(verb(data, "status", "--json").stdout)
    shutil.rmtree(data / "index")
    assert verb(data, "rebuild-index").stdout.startswith("1 packs taken into the index")
    assert json.loads(verb(data, "status", "--json").stdout) == before
    verb(data, "verify")
    verb(data, "export", study.study_instance_uid, tmp_path / "out")


def test_what_only_the_journal_holds_comes_back_too(tmp_path: Path) -> None:
    node = Node(tmp_path / "data", settings=FEW_WORKERS | {"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    study = write_study(tmp_path / "in")
    try:
        node.start()
        node.cli("import", str(study.folder))
    finally:
        node.kill()
    shutil.rmtree(node.data / "index")
    node.cli("rebuild-index")
    assert json.loads(node.cli("status", "--json").stdout)["waiting_instances"] == 3
    node.cli("export", study.study_instance_uid, str(tmp_path / "out"))


def test_it_wants_the_node_stopped_and_says_so(node: Node) -> None:
    assert node.process is not None
    done = node.cli("rebuild-index", exit_code=1)
    assert done.stderr.startswith("dicom-archive: rebuild-index wants the node stopped: ")
    assert f"process {node.process.pid} " in done.stderr
