"""The gates: style, types, rooms and their doors, file lengths; each a test, so that `scripts/test` is all there is to run."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.kit import ROOT

LINES_MAX = 400
BIN = Path(sys.executable).parent


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def project_files() -> list[Path]:
    """Files that git knows or would take: what is ignored is none of ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return [path for name in listed.stdout.splitlines() if (path := ROOT / name).is_file()]


def test_ruff_check() -> None:
    run(BIN / "ruff", "check", ".")


def test_ruff_format() -> None:
    run(BIN / "ruff", "format", "--check", ".")


@pytest.mark.timeout(600)
def test_mypy_strict() -> None:
    run(BIN / "mypy")


def test_rooms_import_downwards_and_dependencies_have_one_door() -> None:
    run(BIN / "lint-imports", "--no-cache")


CODECS = {"pillow", "pyjpegls", "pylibjpeg", "pylibjpeg_openjpeg", "pylibjpeg_rle", "python_gdcm"}
"""pydicom loads them; `tests/dicom/test_decoding.py` uses each."""


def test_dependencies_are_the_packages_that_the_archive_imports() -> None:
    """None is missing where only the runtime lock is installed, none is carried along unused, and each with a door is one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    dependencies = {re.split(r"[^\w.-]", line)[0].replace("-", "_") for line in project["project"]["dependencies"]}
    imports = re.compile(r"^\s*(?:import|from) (\w+)", re.MULTILINE)
    imported = {name for path in (ROOT / "archive").rglob("*.py") for name in imports.findall(path.read_text())}
    assert (imported - set(sys.stdlib_module_names) - {"archive"}) | CODECS == dependencies
    contracts = project["tool"]["importlinter"]["contracts"]
    doors = {module for contract in contracts if contract["type"] == "protected" for module in contract["protected_modules"]}
    assert doors
    assert doors <= dependencies


def test_files_are_short() -> None:
    source = [path for path in project_files() if path.suffix == ".py" or (path.parent == ROOT / "scripts")]
    long = {str(path.relative_to(ROOT)): lines for path in source if (lines := path.read_text().count("\n")) > LINES_MAX}
    assert source
    assert long == {}, f"files of more than {LINES_MAX} lines"
