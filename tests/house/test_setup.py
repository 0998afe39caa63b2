"""scripts/setup: quick when nothing changed, plain when Python is too old."""

import shutil
import subprocess
import time
from pathlib import Path

from tests.kit import ROOT


def test_the_second_time_is_quick() -> None:
    subprocess.run([ROOT / "scripts/setup"], capture_output=True, check=True)
    started = time.monotonic()
    done = subprocess.run([ROOT / "scripts/setup"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert time.monotonic() - started < 5


def test_an_old_python_is_named(tmp_path: Path) -> None:
    """A machine whose only Python is 3.9: its programs are the ones that the script calls, and that `python3`."""
    project, programs = tmp_path / "project", tmp_path / "bin"
    (project / "locks").mkdir(parents=True)
    programs.mkdir()
    for name in ("scripts/setup", "pyproject.toml", "locks/development.txt", "locks/build.txt"):
        (project / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, project / name)
    for program in ("bash", "env", "dirname", "cat", "sha256sum", "flock", "rm"):
        (programs / program).symlink_to(shutil.which(program) or program)
    old = programs / "python3"
    old.write_text('#!/usr/bin/env bash\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = subprocess.run([project / "scripts/setup"], capture_output=True, text=True, env={"PATH": str(programs)})
    assert done.returncode == 1
    assert "Python 3.11 or later is needed; found: Python 3.9.2" in done.stderr
    assert not (project / ".venv").exists()
