"""An installed copy is complete: the wheel holds every file of archive/, and metadata names the program."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.house.test_gates import project_files
from tests.kit import ROOT


@pytest.mark.timeout(300)
def test_the_wheel_holds_every_file_of_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    wanted = set()
    for path in project_files():
        relative = path.relative_to(ROOT)
        if relative.parts[0] == "archive" or len(relative.parts) == 1:
            (source / relative).parent.mkdir(parents=True, exist_ok=True)
            (source / relative).write_bytes(path.read_bytes())
            if relative.parts[0] == "archive":
                wanted.add(str(relative))
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "--wheel-dir",
        str(tmp_path),
    ]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        names = set(content.namelist())
        entry_points = next(name for name in names if name.endswith("entry_points.txt"))
        assert "dicom-archive = archive.cli:main" in content.read(entry_points).decode()
    assert {name for name in names if name.startswith("archive/")} == wanted
    assert any(name.endswith("licenses/LICENSE") for name in names)
