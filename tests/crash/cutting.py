"""A disk that stops for ever at a given call, and can forget what was never synced."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from archive.disk import Bytes, Disk

Loss = Literal["nothing", "unsynced", "unsynced bytes"]
"""What a cut takes: nothing (the processes were killed); bytes and names that were never synced (the power failed); bytes alone
(the power failed, and the file system had written its names and lengths already)."""


class Cut(BaseException):
    """The node stops here. Not an `Exception`: nothing may mistake it for an error and handle it."""


class CuttingDisk(Disk):
    """Real files, of folders that are empty at first; the n-th call that changes something is the last.

    From then on every such call raises `Cut` and changes nothing, so that no clean-up of the dying process tidies up what a real stop would
    have left. A name is durable when one of its folders was synced, and with it all earlier names of the same file (a file system that
    journals cannot know a later one without them); bytes are when their file was. What LMDB writes goes past this: the synced part is
    durable at its commit, the unsynced part is never read again.

    Parameters
    ----------
    calls_max : int
        How many changing calls are still carried out.
    torn : bool
        Of the write that is cut, the first half (zeros at the end not counted) reaches the file.
    """

    def __init__(self, calls_max: int = 1 << 60, torn: bool = False) -> None:
        self._calls_max, self._torn = calls_max, torn
        self._pattern: re.Pattern[str] | None = None
        self._skip = 0
        self._dead = False
        self.calls = 0
        self.last = ""
        self._open: dict[int, int] = {}  # descriptor -> file; files are numbered, since inodes are used again
        self._names: dict[Path, int] = {}
        self._durable: dict[Path, int] = {}
        self._synced: dict[int, bytes] = {}
        self._changes: list[tuple[Path | None, Path | None, int]] = []
        self._files = 0

    def stop_before(self, pattern: str, skip: int = 0, torn: bool = False) -> None:
        """Cut before the call whose description (`rename OLD to NEW`, `sync PATH`) has the pattern in it; `skip` such calls pass."""
        self._pattern, self._skip, self._torn = re.compile(pattern), skip, torn

    def revive(self, calls_max: int = 1 << 60) -> None:
        """The next life of the node, of so many calls; what was never synced still is not."""
        self._pattern, self._calls_max, self._dead = None, self.calls + calls_max, False

    def _is_over(self, what: str) -> bool:
        if self._pattern and self._pattern.search(what):
            self._skip -= 1
            if self._skip < 0:
                self._pattern, self._calls_max = None, self.calls
        return self.is_cut

    def _count(self, what: str) -> None:
        if self._is_over(what):
            self._dead = True
            raise Cut(f"{what} (after {self.last})")
        self.calls += 1
        self.last = what

    @property
    def is_cut(self) -> bool:
        return self.calls >= self._calls_max

    # --- what changes the disk

    def create(self, path: Path) -> int:
        if path.exists():
            return super().create(path)  # It says so, and changes nothing.
        self._count(f"create {path}")
        fd = super().create(path)
        self._files += 1
        self._open[fd] = self._names[path] = self._files
        self._changes.append((None, path, self._files))
        return fd

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        what = f"write {self._name(fd)}"
        if self._torn and not self._dead and self._is_over(what):
            whole = b"".join(parts).rstrip(b"\0")
            super().write(fd, [whole[: len(whole) // 2]], offset)
        self._count(what)
        return super().write(fd, parts, offset)

    def allocate(self, fd: int, length: int) -> None:
        self._count(f"allocate {self._name(fd)}")
        super().allocate(fd, length)

    def sync(self, fd: int) -> None:
        self._count(f"sync {self._name(fd)}")
        super().sync(fd)
        self._synced[self._open[fd]] = self.read(fd, self.size(fd), 0)

    def sync_folder(self, path: Path) -> None:
        self._count(f"sync folder {path}")
        super().sync_folder(path)
        touched = {file for old, new, file in self._changes if path in (old and old.parent, new and new.parent)}
        last = {file: n for n, (old, new, file) in enumerate(self._changes) if path in (old and old.parent, new and new.parent)}
        waiting = []
        for n, (old, new, file) in enumerate(self._changes):
            if file not in touched or n > last[file]:
                waiting.append((old, new, file))
                continue
            if old:
                self._durable.pop(old, None)
            if new:
                self._durable[new] = file
        self._changes = waiting

    def rename(self, old: Path, new: Path) -> None:
        self._count(f"rename {old} to {new}")
        super().rename(old, new)
        if old not in self._names:  # A folder of LMDB's files, which go past this.
            return
        self._names[new] = self._names.pop(old)
        self._changes.append((old, new, self._names[new]))

    def unlink(self, path: Path) -> None:
        if path.exists():
            self._count(f"unlink {path}")
        super().unlink(path)
        self._changes.append((path, None, self._names.pop(path)))

    def make_folder(self, path: Path) -> None:
        if not path.is_dir():
            self._count(f"make folder {path}")
        super().make_folder(path)

    # --- descriptors

    def open_read(self, path: Path) -> int:
        fd = super().open_read(path)
        self._open[fd] = self._names[path]
        return fd

    def open_write(self, path: Path) -> int:
        fd = super().open_write(path)
        self._open[fd] = self._names[path]
        return fd

    def close(self, fd: int) -> None:
        del self._open[fd]
        super().close(fd)

    def _name(self, fd: int) -> str:
        return next((str(path) for path, file in self._names.items() if file == self._open[fd]), "a file without a name")

    # --- the end

    def close_all(self) -> None:
        """What the kernel does when a process dies."""
        for fd in list(self._open):
            self.close(fd)

    def lose(self, loss: Loss) -> None:
        """Leave on the disk what was durable."""
        if loss == "nothing":
            return
        names = self._durable if loss == "unsynced" else self._names
        for path in self._names:
            path.unlink()
        for path, file in names.items():
            path.write_bytes(self._synced.get(file, b""))
        self._names, self._durable, self._changes = dict(names), dict(names), []
