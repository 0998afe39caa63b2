"""`repair`: says what it would do, does it when told, gives nothing up unasked."""

import shutil
from pathlib import Path

import pytest

from tests.cli.archives import packs, verb, write_study
from tests.kit import Node


@pytest.fixture
def data(tmp_path: Path) -> Path:
    verb(tmp_path / "data", "import", write_study(tmp_path / "in").folder)
    return tmp_path / "data"


def damage(pack: Path, length: int = 1) -> None:
    content = bytearray(pack.read_bytes())
    at = len(content) // 3
    content[at : at + length] = bytes(byte ^ 0x10 for byte in content[at : at + length])
    pack.chmod(0o640)
    pack.write_bytes(content)


def test_nothing_to_do(data: Path) -> None:
    assert verb(data, "repair").stdout == "nothing is damaged\n"
    assert verb(data, "repair", "--yes").stdout == "nothing is damaged\n"


def test_it_says_what_it_would_do_and_does_it_when_told(data: Path) -> None:
    (pack,) = packs(data)
    before = pack.read_bytes()
    damage(pack)
    damaged = pack.read_bytes()
    said = verb(data, "repair", exit_code=1)
    assert said.stdout.startswith(f"would do: pack {pack.relative_to(data / 'packs')} is put together again")
    assert said.stderr.splitlines()[-1].startswith("dicom-archive: 5 damaged items found, 0 items that cannot be mended")
    assert pack.read_bytes() == damaged
    done = verb(data, "repair", "--yes")
    assert done.stdout.startswith("done: ") and done.stdout.endswith("nothing is damaged any more\n")
    assert pack.read_bytes() == before
    assert verb(data, "verify").stdout == "nothing is damaged\n"


def test_what_cannot_be_mended_is_named_and_not_given_up_unasked(data: Path, tmp_path: Path) -> None:
    (pack,) = packs(data)
    backup = shutil.copytree(data / "packs", tmp_path / "backup")
    for folder in ("spare", "sealed"):
        shutil.rmtree(data / "journal" / folder)
    damage(pack, 100)
    done = verb(data, "repair", "--yes", exit_code=1)
    assert done.stdout.startswith("cannot be mended: ")
    assert done.stderr.splitlines()[-1].endswith("--accept-loss gives up what cannot be mended")
    second = shutil.copytree(data, tmp_path / "second")
    assert verb(data, "repair", "--yes", "--accept-loss").stdout.endswith("nothing is damaged any more\n")
    assert verb(data, "verify").stdout.startswith("nothing is damaged")
    verb(second, "repair", "--yes", "--replica", f"file://{backup}")
    assert verb(second, "verify").stdout == "nothing is damaged\n"


def test_it_wants_the_node_stopped(node: Node) -> None:
    assert "repair wants the node stopped" in node.cli("repair", "--yes", exit_code=1).stderr
