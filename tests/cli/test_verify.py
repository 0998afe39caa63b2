"""`verify`: exit 1 and a line for each damaged item, whatever runs."""

from pathlib import Path

import pytest

from tests.cli.archives import packs, verb, write_study
from tests.kit import Node, make_series, part10_bytes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    verb(tmp_path / "data", "import", write_study(tmp_path / "in").folder)
    return tmp_path / "data"


def flip(file: Path, at: int) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 0x10
    file.chmod(0o640)
    file.write_bytes(content)


def test_nothing_damaged(data: Path) -> None:
    assert verb(data, "verify").stdout == "nothing is damaged\n"


def test_a_damaged_pack_is_named(data: Path) -> None:
    (pack,) = packs(data)
    flip(pack, pack.stat().st_size // 3)
    done = verb(data, "verify", exit_code=1)
    assert done.stdout.startswith("damaged ") and pack.name[:12] in done.stdout
    assert done.stderr.splitlines()[-1].startswith("dicom-archive: verify found ")
    flip(pack, pack.stat().st_size // 3)
    verb(data, "verify")


def test_a_missing_pack_is_named(data: Path) -> None:
    (pack,) = packs(data)
    pack.rename(pack.with_name("elsewhere"))
    assert pack.name[:12] in verb(data, "verify", exit_code=1).stdout


def test_while_the_node_runs(node: Node, tmp_path: Path) -> None:
    node.cli("import", str(write_study(tmp_path / "in").folder))
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    node.cli("pack", "--now")
    assert node.cli("verify").stdout.startswith("nothing is damaged")


def test_an_index_that_crashes_its_reader_is_a_finding(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "crash"
    folder.mkdir()
    code = "import os, sys\nif sys.orig_argv[-3:-1] == ['verify', 'verify']: os.kill(os.getpid(), 7)\n"
    (folder / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    done = verb(data, "verify", exit_code=1)
    assert done.stdout.startswith("damaged index: verify crashed with SIGBUS; the index is damaged")


def test_what_instances_say_of_one_study_otherwise_is_a_remark(data: Path, tmp_path: Path) -> None:
    one = write_study(tmp_path / "two", PatientID="P1")
    other = make_series(1, PatientID="P2", StudyInstanceUID=one.study_instance_uid)[0]
    (tmp_path / "two/other.dcm").write_bytes(part10_bytes(other))
    verb(data, "import", tmp_path / "two")
    done = verb(data, "verify")
    assert done.stdout.splitlines()[0].startswith(f"disagreeing study {one.study_instance_uid}: its instances do not agree about ")
    assert done.stdout.splitlines()[1] == "nothing is damaged, 1 disagreeing"
    assert verb(data, "repair").stdout == "nothing is damaged\n"
