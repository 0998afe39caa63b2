"""The file that a DIMSE worker leaves its counts in."""

import json
import logging
from pathlib import Path

import pytest

from archive.node.counters import CountersFile, forget_missing_workers


def test_counts_are_written_when_they_change(tmp_path: Path) -> None:
    counts = {"echoes": 1}
    file = CountersFile(tmp_path / "counters", "dimse-0", lambda: dict(counts))
    file.write()
    path = tmp_path / "counters" / "dimse-0.json"
    first = path.stat()
    assert json.loads(path.read_text()) == {"echoes": 1}
    file.write()
    assert path.stat().st_ino == first.st_ino and path.stat().st_mtime_ns == first.st_mtime_ns
    counts["echoes"] = 2
    file.write()
    assert json.loads(path.read_text()) == {"echoes": 2}
    assert [found.name for found in path.parent.iterdir()] == ["dimse-0.json"]


def test_what_a_worker_before_left_is_replaced_at_once(tmp_path: Path) -> None:
    (tmp_path / "dimse-0.json").write_text("torn by a power c")
    CountersFile(tmp_path, "dimse-0", lambda: {"echoes": 0}).write()
    assert json.loads((tmp_path / "dimse-0.json").read_text()) == {"echoes": 0}


def test_a_folder_that_cannot_be_is_said_once_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "counters").write_text("a file where the folder belongs")
    file = CountersFile(tmp_path / "counters", "dimse-0", lambda: {"echoes": 1})
    with caplog.at_level(logging.WARNING):
        file.write()
        file.write()
    assert [record.getMessage().split(":")[0] for record in caplog.records if record.name == "archive.node.counters"] == [
        f"counters cannot be written to {tmp_path / 'counters' / 'dimse-0.json'}"
    ]
    (tmp_path / "counters").unlink()
    file.write()
    assert json.loads((tmp_path / "counters" / "dimse-0.json").read_text()) == {"echoes": 1}


def test_workers_that_are_gone_are_forgotten(tmp_path: Path) -> None:
    for name in ("dimse-0.json", "dimse-1.json", "dimse-2.json", "dimse-10.json", "web-3.counters"):
        (tmp_path / name).write_text("{}")
    forget_missing_workers(tmp_path, "dimse", 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dimse-0.json", "dimse-1.json", "web-3.counters"]
    forget_missing_workers(tmp_path / "nowhere", "dimse", 2)
