"""The lock on a data folder: one node, or one offline verb that writes, at a time.

It is a flock(2) on `DIR/lock`; the text inside says who has it. The kernel frees it with the last descriptor, so a killed
node leaves none behind. Workers inherit the descriptor: the folder stays locked until the last process that may write
there is gone, even when the supervisor died first.
"""

import json
import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from archive.disk import LOCAL_DISK
from archive.errors import Locked

LOCK_NAME = "lock"
ORPHANS_SECONDS = 5.0
"""Wait for the lock while its holder is dead: workers that outlived it end at once."""
DEAD_HOLDER_SECONDS = 1.0
"""Wait before a dead holder is believed to live out of our sight, in another container."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who has a data folder: process id, the verb that it runs, since when (UTC, ISO 8601), with which tier."""

    pid: int
    verb: str
    since: str
    tier: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} (`dicom-archive {self.verb}` since {self.since})"


class DataLock:
    """The lock, held. `fd` is for children that must keep it."""

    def __init__(self, fd: int, data: Path) -> None:
        self.fd = fd
        self.data = data

    def close(self) -> None:
        """Give the folder back; a child that still has the lock keeps it."""
        os.ftruncate(self.fd, 0)
        os.close(self.fd)

    def __enter__(self) -> "DataLock":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def lock_data(data: Path, verb: str, tier: str = "") -> DataLock:
    """Take the lock of a data folder.

    Raises
    ------
    Locked
        Another process has it; the text names it.
    """
    fd = os.open(data / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        deadline = time.monotonic() + ORPHANS_SECONDS
        while not LOCAL_DISK.lock(fd, shared=False, wait=False):
            holder = _read_holder(fd)
            # No text: it was taken a moment ago, or given back by all but a last child.
            if (holder is None or not _is_alive(holder.pid)) and time.monotonic() < deadline:
                time.sleep(0.02)
                continue
            raise Locked(f"{data} is in use by {holder or 'an unknown process'}")
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        text = json.dumps({"pid": os.getpid(), "verb": verb, "since": now, "tier": tier}) + "\n"
        os.pwrite(fd, text.encode(), 0)
        os.ftruncate(fd, len(text))
    except BaseException:
        os.close(fd)
        raise
    return DataLock(fd, data)


def holder_of(data: Path) -> Holder | None:
    """Who has the folder now; None where nobody has.

    A holder that just died is waited for a little: its workers end at once.
    """
    try:
        fd = os.open(data / LOCK_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        deadline = time.monotonic() + DEAD_HOLDER_SECONDS
        # A shared try disturbs nobody who looks at the same time; a taker that meets it tries again.
        while not LOCAL_DISK.lock(fd, shared=True, wait=False):
            holder = _read_holder(fd)
            if time.monotonic() > deadline or (holder is not None and _is_alive(holder.pid)):
                return holder or Holder(0, "?", "?")
            time.sleep(0.02)
        return None
    finally:
        os.close(fd)


def _read_holder(fd: int) -> Holder | None:
    try:
        said = json.loads(os.pread(fd, 4096, 0))
        return Holder(int(said["pid"]), str(said["verb"]), str(said["since"]), str(said.get("tier", "")))
    except (ValueError, KeyError, TypeError):
        return None


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
