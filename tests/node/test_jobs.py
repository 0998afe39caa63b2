"""Jobs in a child: report, progress and errors come back, and a crash is told from an error."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import pytest

from archive.config import Settings, load_settings
from archive.errors import ArchiveError, Damaged, Exhausted, WrongUse
from archive.node.child import manner_of_death
from archive.node.jobs import run_job
from archive.node.messages import error_message, error_of, to_json


def settings_of(data: Path, **node: object) -> Settings:
    return load_settings(overrides={"node": {"data": data, **node}, "log": {"level": "error"}}, environment={})


def test_the_report_comes_back(tmp_path: Path) -> None:
    (tmp_path / "data" / "journal").mkdir(parents=True)
    report = run_job("recover", settings_of(tmp_path / "data"), print)
    assert report["damaged"] == 0 and report["lines"]


def test_what_a_power_cut_left_of_the_index_of_what_waits_is_no_damage(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    (tmp_path / "data" / "journal").mkdir(parents=True)
    run_job("recover", settings, print)
    (tmp_path / "data/index/pending/data.mdb").write_bytes(b"#" * 8192)
    assert run_job("verify", settings, print) == []


def test_an_error_comes_back_as_what_it_was(tmp_path: Path) -> None:
    with pytest.raises(WrongUse, match="gopher"):
        run_job("recover", settings_of(tmp_path / "data", tier="gopher://old/"), print)


def crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Have each child run `code` as it starts."""
    folder = tmp_path / "crash"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(f"import os, sys\nif 'archive.node.worker' in sys.orig_argv: {code}\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_crash_accuses_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash(tmp_path, monkeypatch, f"os.kill(os.getpid(), {signal.SIGBUS:d})")
    with pytest.raises(Damaged, match="status crashed with SIGBUS; the index is damaged"):
        run_job("status", settings_of(tmp_path), print)


def test_another_end_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash(tmp_path, monkeypatch, "os._exit(9)")
    with pytest.raises(ArchiveError, match="^status ended with exit code 9$"):
        run_job("status", settings_of(tmp_path), print)


def test_manners_of_death() -> None:
    assert manner_of_death(0) == "ended with exit code 0"
    assert manner_of_death(-signal.SIGKILL) == "was killed with SIGKILL"
    assert "rebuild-index" in manner_of_death(-signal.SIGSEGV)


def test_errors_travel_by_name() -> None:
    error = error_of(error_message(Exhausted("full", 7)))
    assert type(error) is Exhausted and str(error) == "full"
    assert type(error_of({"error": "x", "kind": "annotations"})) is ArchiveError
    assert type(error_of({"error": "x", "kind": "nothing"})) is ArchiveError


@dataclass
class Report:
    names: tuple[str, ...]
    by_number: dict[int, Path]


def test_reports_become_json() -> None:
    assert to_json([Report(("a",), {1: Path("/x")}), None, 1.5, os.sep]) == [{"names": ["a"], "by_number": {"1": "/x"}}, None, 1.5, "/"]
