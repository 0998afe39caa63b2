"""The lock on a data folder: one holder, known by name, gone with its last process."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from archive.errors import Locked
from archive.node import lock as lock_module
from archive.node.lock import Holder, holder_of, lock_data


def test_the_second_is_told_who_has_it(tmp_path: Path) -> None:
    with lock_data(tmp_path, "serve"):
        with pytest.raises(Locked, match=rf"process {os.getpid()} \(`dicom-archive serve` since 20\d\d-"):
            lock_data(tmp_path, "rebuild-index")
        said = json.loads((tmp_path / "lock").read_text())
        assert said["pid"] == os.getpid() and said["verb"] == "serve"
        assert holder_of(tmp_path) == Holder(os.getpid(), "serve", said["since"])
    with lock_data(tmp_path, "rebuild-index"):
        holder = holder_of(tmp_path)
        assert holder is not None and holder.verb == "rebuild-index"


def test_nobody_has_a_folder_that_was_given_back_or_never_taken(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    assert not (tmp_path / "lock").exists(), "looking leaves nothing behind"
    lock_data(tmp_path, "serve").close()
    assert holder_of(tmp_path) is None


def test_a_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from archive.node.lock import lock_data; "
    code += "held = lock_data(Path(sys.argv[1]), 'serve'); print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(Locked, match=f"process {process.pid} "):
            lock_data(tmp_path, "serve")
        process.kill()
        process.wait()
    lock_data(tmp_path, "serve").close()


def test_a_child_that_inherited_the_lock_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that lost its supervisor has the folder until its last worker is gone; the next one waits for that a little."""
    held = lock_data(tmp_path, "serve")
    with subprocess.Popen(["sleep", "60"], pass_fds=(held.fd,)) as child:
        held.close()
        monkeypatch.setattr(lock_module, "ORPHANS_SECONDS", 0.2)
        with pytest.raises(Locked):
            lock_data(tmp_path, "serve")
        monkeypatch.setattr(lock_module, "ORPHANS_SECONDS", 10.0)
        child.terminate()
        started = time.monotonic()
        lock_data(tmp_path, "serve").close()
        assert time.monotonic() - started < 5.0


def test_looking_never_makes_a_taker_fail(tmp_path: Path) -> None:
    """`status` tries the lock for an instant; a node that starts at that instant is not turned away."""
    code = "import sys; from pathlib import Path; from archive.node.lock import holder_of\n"
    code += "print('looking', flush=True)\nwhile True: holder_of(Path(sys.argv[1]))"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as looker:
        assert looker.stdout is not None
        looker.stdout.readline()
        for _ in range(200):
            lock_data(tmp_path, "serve").close()
        looker.kill()


def test_the_orphans_of_a_dead_holder_are_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that comes right after a node was killed must not take it for running."""
    held = lock_data(tmp_path, "serve")
    with subprocess.Popen(["sleep", "60"], pass_fds=(held.fd,)) as orphan:
        os.pwrite(held.fd, json.dumps({"pid": 2**22 + 1, "verb": "serve", "since": "2026-01-01T00:00:00Z"}).encode().ljust(200), 0)
        os.close(held.fd)
        monkeypatch.setattr(lock_module, "DEAD_HOLDER_SECONDS", 0.1)
        assert holder_of(tmp_path) == Holder(2**22 + 1, "serve", "2026-01-01T00:00:00Z")
        monkeypatch.setattr(lock_module, "DEAD_HOLDER_SECONDS", 10.0)
        threading.Timer(0.2, orphan.terminate).start()
        assert holder_of(tmp_path) is None
