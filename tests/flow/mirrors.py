"""A journal on two disks, for tests: its settings, what lies on both, a second disk that fails."""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from archive.config import Settings
from archive.disk import Bytes, Disk, full_or_same
from tests.flow.compacting import allowed
from tests.flow.objects import LARGE_BYTES, Object


def mirrored(data: Path, mirror: Path | None, **journal: Any) -> Settings:
    small = {"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "free_bytes_min": 0}
    return allowed(data, journal={**small, "mirror": str(mirror or ""), **journal})


def contents(folder: Path) -> dict[str, bytes]:
    names = ("open", "sealed", "spare")
    found = {str(p.relative_to(folder)): p.read_bytes() for name in names for p in (folder / "journal" / name).iterdir()}
    return found | {name: (folder / "journal" / name).read_bytes() for name in ("counters", "held") if (folder / "journal" / name).exists()}


def assert_equal(settings: Settings) -> None:
    ours, theirs = contents(settings.node.data), contents(Path(settings.journal.mirror))
    assert ours.keys() == theirs.keys()
    assert ours == theirs


def segment_of(folder: Path, one: Object) -> Path:
    (found,) = [p for name in ("open", "sealed") for p in (folder / "journal" / name).iterdir() if one.data_set in p.read_bytes()]
    return found


class FailingDisk(Disk):
    """Calls of a kind fail below a folder."""

    def __init__(self, below: Path, call: str, error: int = errno.EIO) -> None:
        self._below, self._call, self._error = str(below), call, error
        self.failing = False

    def _look(self, call: str, path: str) -> None:
        if self.failing and call == self._call and path.startswith(self._below):
            raise full_or_same(OSError(self._error, os.strerror(self._error), path))

    def _name(self, fd: int) -> str:
        return str(Path(f"/proc/self/fd/{fd}").readlink())

    def create(self, path: Path) -> int:
        self._look("create", str(path))
        return super().create(path)

    def open_write(self, path: Path) -> int:
        self._look("open", str(path))
        return super().open_write(path)

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        self._look("counters" if self._name(fd).endswith("counters") else "write", self._name(fd))
        return super().write(fd, parts, offset)

    def sync(self, fd: int) -> None:
        self._look("sync", self._name(fd))
        super().sync(fd)

    def rename(self, old: Path, new: Path) -> None:
        self._look("rename", str(new))
        super().rename(old, new)

    def free_bytes(self, path: Path) -> int:
        self._look("free", str(path))
        return super().free_bytes(path)
