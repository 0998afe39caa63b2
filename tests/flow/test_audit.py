"""The audit log: what is told when, and that nothing is lost without a word."""

import json
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.disk import LOCAL_DISK, Disk
from archive.errors import Exhausted
from archive.flow import audit as module
from archive.flow.audit import Audit, Event
from archive.flow.audit_lines import AuditFile, open_audit

STORED = Event("CT1", "10.0.0.7", "C-STORE", "1.2.3", "success", "0x0000")
LINE = b'{"n":%d}\n'


class Kept:
    """Lines in memory; fails while a test wants it to, waits while a test wants it to."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def write(self, line: bytes) -> None:
        self.free.wait()
        if self.failure:
            raise self.failure
        assert line.endswith(b"\n") and line.count(b"\n") == 1
        self.lines.append(json.loads(line))


def until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_first_event_is_told_at_once_and_its_like_are_added_up() -> None:
    kept = Kept()
    audit = Audit(kept, "dimse-0", gather_seconds=3600)
    audit.note(STORED, 1)
    until(lambda: len(kept.lines) == 1)
    assert kept.lines[0] | {"time": ""} == {
        "time": "",
        "process": "dimse-0",
        "actor": "CT1",
        "address": "10.0.0.7",
        "action": "C-STORE",
        "study_instance_uid": "1.2.3",
        "outcome": "success",
        "status": "0x0000",
        "destination": "",
        "instances": 1,
    }
    for _ in range(99):
        audit.note(STORED, 1)
    audit.note(STORED._replace(study_instance_uid="1.2.4"), 2)
    until(lambda: len(kept.lines) == 2)
    audit.close()
    assert [line["instances"] for line in kept.lines] == [1, 2, 99]
    assert kept.lines[2]["events"] == 99 and kept.lines[2]["time"] <= kept.lines[2]["until"]


def test_what_is_gathered_is_told_in_time() -> None:
    kept = Kept()
    audit = Audit(kept, gather_seconds=0.05)
    for _ in range(50):
        audit.note(STORED, 1)
        time.sleep(0.005)
    until(lambda: sum(line["instances"] for line in kept.lines) == 50)
    assert 2 < len(kept.lines) < 20
    audit.close()


def test_nobody_waits_for_lines_that_cannot_be_written_now() -> None:
    kept = Kept()
    kept.free.clear()
    audit = Audit(kept)
    started = time.monotonic()
    for n in range(1000):
        audit.note(STORED._replace(study_instance_uid=f"1.{n}"), 1)
    assert time.monotonic() - started < 2
    kept.free.set()
    audit.close()
    assert len(kept.lines) == 1000


def test_what_cannot_be_written_is_in_the_log_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    kept.failure = Exhausted("the disk is full", 30)
    audit = Audit(kept)
    audit.note(STORED, 1)
    until(lambda: bool(caplog.records))
    assert "the disk is full" in caplog.text and '"C-STORE"' in caplog.text and caplog.records[0].levelno == logging.ERROR
    kept.failure = None
    audit.note(STORED, 1)
    audit.close()
    assert len(kept.lines) == 1


def test_more_events_than_are_gathered_are_in_the_log(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EVENTS_MAX", 2)
    kept = Kept()
    kept.free.clear()
    audit = Audit(kept)
    for n in range(3):
        audit.note(STORED._replace(study_instance_uid=f"1.{n}"), 1)
    kept.free.set()
    audit.close()
    assert {line["study_instance_uid"] for line in kept.lines} == {"1.0", "1.1"} and '"1.2"' in caplog.text


def test_an_end_that_does_not_wait_for_the_disk_says_what_is_lost(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CLOSE_SECONDS_MAX", 0.05)
    kept = Kept()
    kept.free.clear()
    audit = Audit(kept, gather_seconds=3600)
    for n in (1, 2, 3, 3):
        audit.note(STORED._replace(study_instance_uid=f"1.{n}"), 1)
    audit.close()
    kept.free.set()
    assert "4 events are not written" in caplog.text


def test_a_new_event_costs_the_same_however_many_are_gathered() -> None:
    def seconds(gathered: int) -> float:
        kept = Kept()
        audit = Audit(kept, gather_seconds=3600)
        for n in range(gathered):
            audit.note(STORED._replace(study_instance_uid=f"1.{n}"), 1)
        until(lambda: len(kept.lines) == gathered)
        began = time.process_time()
        for n in range(gathered, gathered + 300):
            audit.note(STORED._replace(study_instance_uid=f"1.{n}"), 1)
            while len(kept.lines) <= n:
                time.sleep(0.0002)
        took = time.process_time() - began
        audit.close()
        return took

    assert seconds(9000) < 4 * seconds(0)


def test_a_line_is_one_line_for_whoever_splits_text() -> None:
    class Texts:
        def __init__(self) -> None:
            self.texts: list[str] = []

        def write(self, line: bytes) -> None:
            self.texts.append(line.decode())

    texts = Texts()
    actor = "A\x85\u2028\u2029\x0b\x1c\r\nB\xe9\\"
    audit = Audit(texts)
    audit.note(STORED._replace(actor=actor), 1)
    audit.close()
    [text] = texts.texts
    assert len(text.splitlines()) == 1 and json.loads(text)["actor"] == actor


def lines_of(folder: Path) -> dict[str, list[int]]:
    return {path.name: [json.loads(line)["n"] for line in path.read_text().splitlines()] for path in sorted(folder.iterdir())}


def test_files_have_a_bound_and_the_oldest_goes(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", 27, 3, LOCAL_DISK)
    for n in range(12):
        file.write(LINE % n)
    assert lines_of(tmp_path / "audit") == {"audit.1.jsonl": [6, 7, 8], "audit.2.jsonl": [3, 4, 5], "audit.jsonl": [9, 10, 11]}


def test_one_file_is_begun_anew(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", 17, 1, LOCAL_DISK)
    for n in range(5):
        file.write(LINE % n)
    assert lines_of(tmp_path / "audit") == {"audit.jsonl": [4]}


def test_processes_share_the_files(tmp_path: Path) -> None:
    files = [AuditFile(tmp_path / "audit", 80, 1000, LOCAL_DISK) for _ in range(4)]

    def write(number: int) -> None:
        for n in range(200):
            files[number].write(LINE % (1000 * number + n))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines_of(tmp_path / "audit")
    assert sorted(n for part in found.values() for n in part) == sorted(1000 * number + n for number in range(4) for n in range(200))
    assert max(path.stat().st_size for path in (tmp_path / "audit").iterdir()) < 80 + 4 * len(LINE % 1000)


def test_a_file_that_somebody_took_away_is_made_anew(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", 1000, 2, LOCAL_DISK)
    file.write(LINE % 1)
    (tmp_path / "audit" / "audit.jsonl").unlink()
    file.write(LINE % 2)
    assert lines_of(tmp_path / "audit") == {"audit.jsonl": [2]}


class Filling(Disk):
    """Full in the middle of the second line."""

    calls = 0

    def append(self, fd: int, data: bytes) -> None:
        self.calls += 1
        if self.calls == 2:
            super().append(fd, data[:3])
            raise Exhausted("the disk is full", 30)
        super().append(fd, data)


def test_a_torn_line_does_not_spoil_the_next(tmp_path: Path) -> None:
    file = AuditFile(tmp_path / "audit", 1000, 2, Filling())
    file.write(LINE % 1)
    with pytest.raises(Exhausted):
        file.write(LINE % 2)
    file.write(LINE % 3)
    assert (tmp_path / "audit" / "audit.jsonl").read_bytes() == b'{"n":1}\n{"n\n{"n":3}\n'


def test_a_torn_line_does_not_spoil_that_of_another_process(tmp_path: Path) -> None:
    one, other = AuditFile(tmp_path / "audit", 1000, 2, Filling()), AuditFile(tmp_path / "audit", 1000, 2, LOCAL_DISK)
    one.write(LINE % 1)
    with pytest.raises(Exhausted):
        one.write(LINE % 2)
    other.write(LINE % 3)
    one.write(LINE % 4)
    assert (tmp_path / "audit" / "audit.jsonl").read_bytes() == b'{"n":1}\n{"n\n{"n":3}\n{"n":4}\n'


def test_files_beyond_a_lower_bound_go(tmp_path: Path) -> None:
    for files_max, numbers in ((5, range(5)), (2, range(5, 7))):
        file = AuditFile(tmp_path / "audit", 10, files_max, LOCAL_DISK)
        for n in numbers:
            file.write(LINE % n)
    assert lines_of(tmp_path / "audit") == {"audit.1.jsonl": [5], "audit.jsonl": [6]}


def test_into_the_log_whatever_its_level(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.handler.setLevel(logging.DEBUG)
    logging.getLogger().setLevel(logging.WARNING)
    audit = open_audit(Settings.model_validate({"node": {"data": tmp_path}, "audit": {"to": "log"}}), "web-1", LOCAL_DISK)
    audit.note(STORED, 1)
    audit.close()
    assert '"actor":"CT1"' in caplog.text and list(tmp_path.iterdir()) == []


def test_nowhere(tmp_path: Path) -> None:
    audit = open_audit(Settings.model_validate({"node": {"data": tmp_path}, "audit": {"to": "nowhere"}}), "web-1", LOCAL_DISK)
    audit.note(STORED, 1)
    audit.close()
    assert list(tmp_path.iterdir()) == []
