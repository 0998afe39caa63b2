"""How verbs get at a data folder: alone, as guests, to read."""

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.config import Settings, load_settings
from archive.disk import LOCAL_DISK
from archive.errors import Damaged, Locked, Unavailable
from archive.flow.home import sole_writer
from archive.index.index import INDEX_FORMAT
from archive.node import access, asking
from archive.node.access import alone, home_alone, home_as_guest, reading_home, recover
from archive.node.asking import node_runs
from archive.node.lock import holder_of
from tests.kit import Node


def settings_of(data: Path) -> Settings:
    return load_settings(overrides={"node": {"data": data}, "log": {"level": "error"}}, environment={})


def test_alone_makes_the_layout_and_holds_the_lock(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    with alone(settings, "import"):
        assert {"journal", "index", "pool", "derived", "packs"} <= {path.name for path in (tmp_path / "data").iterdir()}
        assert (tmp_path / "data").stat().st_mode & 0o077 == 0, "a new data folder is for its owner"
        assert not node_runs(tmp_path / "data")
        with pytest.raises(Locked), alone(settings, "serve"):
            pass
    assert holder_of(tmp_path / "data") is None


def test_packs_of_another_tier_get_no_folder_here(tmp_path: Path) -> None:
    settings = load_settings(overrides={"node": {"data": tmp_path / "data", "tier": f"file://{tmp_path}/tier"}}, environment={})
    with alone(settings, "import"):
        assert not (tmp_path / "data" / "packs").exists()


def test_recovery_waits_for_the_last_writers_of_an_earlier_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path / "data")
    with home_alone(settings, "import", print):
        pass
    writers = LOCAL_DISK.open_read(tmp_path / "data" / "journal" / "writers")
    LOCAL_DISK.lock(writers, shared=True)
    with alone(settings, "serve") as lock:
        monkeypatch.setattr(access, "WRITERS_SECONDS_MAX", 0.0)
        with pytest.raises(Locked, match="still write"):
            recover(settings, lock, print)
        monkeypatch.setattr(access, "WRITERS_SECONDS_MAX", 30.0)
        threading.Timer(1.0, os.close, [writers]).start()
        assert recover(settings, lock, print)["damaged"] == 0


def test_a_damaged_index_names_the_remedy(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "data")
    (tmp_path / "data" / "index" / "packed").mkdir(parents=True)
    (tmp_path / "data" / "index" / "packed" / "data.mdb").write_bytes(bytes(1 << 16))
    (tmp_path / "data" / "index" / "format").write_text(INDEX_FORMAT)
    with pytest.raises(Damaged, match="delete index/ and run rebuild-index"), home_alone(settings, "import", print):
        pass
    assert holder_of(tmp_path / "data") is None


def test_a_guest_needs_a_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "CONNECT_SECONDS_MAX", 0.2)
    settings = settings_of(tmp_path / "data")
    with alone(settings, "import"), pytest.raises(Unavailable), home_as_guest(settings, "import"):
        pass


def test_a_guest_writes_when_no_recovery_runs_or_can_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path / "data")
    with home_alone(settings, "import", print):
        pass
    kept_out = []

    def ask(data: Path, request: object, progress: object) -> None:
        try:
            with sole_writer(data):
                kept_out.append(False)
        except Locked:
            kept_out.append(True)

    monkeypatch.setattr(access, "ask", ask)
    with home_as_guest(settings, "import"):
        assert kept_out[-1], "the last answer comes while nobody can begin to recover"


def test_guests_and_readers_beside_a_running_node(start_node: Callable[..., Node]) -> None:
    node = start_node("data", settings={"DICOM_ARCHIVE_DIMSE_WORKERS": "1", "DICOM_ARCHIVE_WEB_WORKERS": "1"})
    settings = settings_of(node.data)
    assert node_runs(node.data)
    with home_as_guest(settings, "import") as home:
        slot = home.slot
    assert slot.startswith(f"import-{os.getpid()}-")
    with home_as_guest(settings, "import") as home:
        assert home.slot != slot, "a process of the same id in another container takes no slot away"
    with reading_home(settings, "export", print) as home:
        assert home.slot == ""
    node.kill()
    assert not node_runs(node.data)
    with reading_home(settings, "export", print) as home:
        assert holder_of(node.data) is None, "who only reads keeps nobody out"
