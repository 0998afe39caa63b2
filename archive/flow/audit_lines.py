"""Where the lines of the audit log go: files of a bounded size that the processes of a node share, or the log."""

import logging
import os
import re
from itertools import pairwise
from pathlib import Path

from archive.config import Settings
from archive.disk import Disk
from archive.flow.audit import Audit

NAME = "audit.jsonl"

_NUMBERED = re.compile(r"audit\.([0-9]+)\.jsonl")


def open_audit(settings: Settings, process: str, disk: Disk) -> Audit:
    """The audit log of a process, as the settings want it."""
    wanted = settings.audit
    if wanted.to == "file":
        return Audit(AuditFile(settings.node.data / "audit", wanted.bytes_max, wanted.files_max, disk), process)
    return Audit(LoggedLines() if wanted.to == "log" else None, process)


class LoggedLines:
    """Into the log, at whatever level that is."""

    def __init__(self) -> None:
        self._log = logging.getLogger("archive.audit")
        self._log.setLevel(logging.INFO)

    def write(self, line: bytes) -> None:
        self._log.info("%s", line.decode().rstrip())


class AuditFile:
    """`audit.jsonl` in a folder; at its bound it becomes `audit.1.jsonl`, that one `audit.2.jsonl`, and the last of them goes.

    Processes share it: who writes holds a lock on the folder, and notices by the file's number that a new one was begun.

    Parameters
    ----------
    folder : Path
        Made where it is missing.
    bytes_max : int
        Of one file.
    files_max : int
        Of the folder.
    """

    def __init__(self, folder: Path, bytes_max: int, files_max: int, disk: Disk) -> None:
        self._folder, self._bytes_max, self._files_max, self._disk = folder, bytes_max, files_max, disk
        self._path = folder / NAME
        self._fd = -1
        self._number = 0

    def write(self, line: bytes) -> None:
        """One line; only of one thread."""
        self._folder.mkdir(mode=0o750, exist_ok=True)
        folder = self._disk.open_read(self._folder)
        try:
            with self._disk.locked(folder):
                self._open()
                size = self._disk.size(self._fd)
                if size and size + len(line) > self._bytes_max:
                    self._make_room()
                    self._open()
                    size = self._disk.size(self._fd)
                if size and self._disk.read(self._fd, 1, size - 1) != b"\n":
                    line = b"\n" + line  # Somebody's line was torn, on a full disk or by a loss of power.
                self._disk.append(self._fd, line)
        finally:
            self._disk.close(folder)

    def _open(self) -> None:
        """Have the file open that has the name now."""
        if self._is_current():
            return
        if self._fd >= 0:
            self._disk.close(self._fd)
            self._fd = -1
        self._fd = self._disk.open_append(self._path)
        self._number = os.fstat(self._fd).st_ino

    def _is_current(self) -> bool:
        try:
            return self._fd >= 0 and self._path.stat().st_ino == self._number
        except FileNotFoundError:
            return False

    def _make_room(self) -> None:
        for name in self._disk.list_folder(self._folder):
            number = _NUMBERED.fullmatch(name)
            if number and int(number[1]) >= self._files_max:
                self._disk.unlink(self._folder / name)
        names = [self._path]
        while names[-1].exists() and len(names) < self._files_max:
            names.append(self._folder / f"audit.{len(names)}.jsonl")
        if len(names) == 1:
            self._disk.unlink(self._path)
        for old, new in reversed(list(pairwise(names))):
            self._disk.rename(old, new)
