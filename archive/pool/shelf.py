"""Extents as files: found, filled, given up.

`new/` holds what came and was read at most once since, `kept/` what was read again; the same extent lies in one of them. Below them
`<first 2 digits of the digest>/<digest of the pack>/<first block>-<blocks>`. `filling/<uuid>/` belongs to one process. No file is ever
written to after it was renamed into place.
"""

import contextlib
import errno
import mmap
import os
import uuid
import weakref
from collections.abc import Iterator
from pathlib import Path

from archive.config import PoolSection
from archive.disk import Bytes, Disk
from archive.pack.checksum import BLOCK_BYTES
from archive.pool.extent_name import KEPT, NEW, ExtentName
from archive.pool.state import PoolState

FILLING = "filling"
HIGH, LOW = 15 / 16, 7 / 8
"""Shares of `pool.bytes_max`: room is made from the one on, down to the other."""


class Filling:
    """An extent on its way into the pool, under a name that nobody looks at."""

    def __init__(self, shelf: "Shelf", path: Path, fd: int, length: int) -> None:
        self._shelf, self._path, self._fd, self.length = shelf, path, fd, length
        self.written = 0
        self._is_over = False

    def write(self, data: Bytes) -> None:
        """Append; `Exhausted` or OSError where the disk does not take it."""
        self._shelf.disk.write(self._fd, [data], self.written)
        self.written += len(data)

    def read_back(self) -> bytearray:
        """What was written so far."""
        return bytearray(self._shelf.disk.read(self._fd, self.written, 0))

    def publish(self, name: ExtentName, length: int, *, kept: bool = False) -> mmap.mmap:
        """Rename into place, `length` bytes long; the bytes, mapped."""
        shelf, disk = self._shelf, self._shelf.disk
        if self._fd < 0:
            self._fd = disk.open_write(self._path)
        if length < self.length:
            disk.truncate(self._fd, length)
        mapped = disk.map_read(self._fd, length)
        target = shelf.path(name, KEPT if kept else NEW)
        for _ in range(3):  # The folder may be removed as an empty one between making it and using it.
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):
                with shelf.state.counting():
                    replaced = file_size(target)
                    disk.rename(self._path, target)
                    shelf.state.set_used(shelf.state.used - replaced - (self.length - length))
                break
        else:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(target))
        self._end()
        return mapped

    def rest(self) -> None:
        """Hold no descriptor until `publish`; nothing more is written."""
        self._shelf.disk.close(self._fd)
        self._fd = -1

    def abandon(self) -> None:
        """Forget it; may be called twice, and after `publish`."""
        if self._is_over:
            return
        self._end()
        self._shelf.remove(self._path, self.length)

    def _end(self) -> None:
        self._is_over = True
        if self._fd >= 0:
            self.rest()


class Shelf:
    """`DIR/pool`, open in one process.

    Raises
    ------
    Exhausted, OSError
        The folder cannot be used now: the disk is full, or it is read-only.
    """

    def __init__(self, folder: Path, limits: PoolSection, disk: Disk) -> None:
        self.folder, self.limits, self.disk = folder, limits, disk
        folder.mkdir(parents=True, exist_ok=True)
        self.state = PoolState(folder, limits.bytes_max // limits.extent_bytes, disk)
        try:
            self._own = self._claim_folder()
            if self.state.is_first:
                self.set_right(sum(entry.stat().st_size for part in (NEW, KEPT) for _, entry in self.files(part)))
            self.state.settled()
        except BaseException:
            self.state.close()
            raise

    def _claim_folder(self) -> Path:
        """A folder for what this process fills; those of processes that died are removed."""
        own = self.folder / FILLING / uuid.uuid4().hex
        with self.state.counting():
            for left in sorted((self.folder / FILLING).glob("*")):
                self._clear(left)
            own.mkdir(parents=True)
            self._own_lock = self.disk.create(own / "owner")
            self.disk.lock(self._own_lock, shared=False)
        return own

    def _clear(self, left: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            fd = self.disk.open_read(left / "owner")
            try:
                if not self.disk.lock(fd, shared=False, wait=False):
                    return  # Its owner lives.
            finally:
                self.disk.close(fd)
        freed = 0
        for name in self.disk.list_folder(left):
            freed += file_size(left / name)
            self.disk.unlink(left / name)
        left.rmdir()
        self.state.set_used(self.state.used - freed)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            for name in self.disk.list_folder(self._own):
                self.disk.unlink(self._own / name)
            self._own.rmdir()
        self.disk.close(self._own_lock)
        self.state.close()

    def let_go(self) -> None:
        """Of a folder that is gone: its descriptors are closed once nothing on its way in or out uses them."""
        weakref.finalize(self, self.disk.close, self._own_lock)
        weakref.finalize(self, self.state.close)

    # --- looking

    def is_there(self) -> bool:
        """Whether the folder is the one that was opened, with what this process needs in it."""
        return self.state.is_at(self.folder) and self._own.is_dir()

    def path(self, name: ExtentName, part: str) -> Path:
        return self.folder / part / str(name)

    def find(self, wanted: ExtentName, cell: ExtentName) -> ExtentName | None:
        """An extent inside of `cell` that holds all that is wanted: the whole cell, or a shorter one."""
        for part in (KEPT, NEW):
            if file_size(self.path(cell, part)):
                return cell
        return next((n for n, _ in self.parts(cell) if n.covers(wanted)), None)

    def parts(self, cell: ExtentName) -> Iterator[tuple[ExtentName, Path]]:
        """Extents that are shorter than the cell, and inside of it."""
        for part in (KEPT, NEW):
            folder = self.path(cell, part).parent
            for text in self.disk.list_folder(folder):
                name = ExtentName.of(str(folder / text))
                if name is not None and name != cell and cell.covers(name):
                    yield name, folder / text

    def open(self, name: ExtentName, covered: int) -> mmap.mmap | None:
        """An extent, mapped; None where it is not there. One of a wrong length is removed."""
        length = min((name.first + name.blocks) * BLOCK_BYTES, covered) - name.first * BLOCK_BYTES
        for part in (KEPT, NEW):
            path = self.path(name, part)
            try:
                fd = self.disk.open_read(path)
            except FileNotFoundError:
                continue
            try:
                if self.disk.size(fd) == length:
                    return self.disk.map_read(fd, length)
            finally:
                self.disk.close(fd)
            self.remove(path)
        return None

    # --- coming and going

    def begin(self, length: int) -> Filling:
        """Room for an extent of up to `length` bytes; `Exhausted` or OSError where the disk has none."""
        path = self._own / uuid.uuid4().hex
        fd = self.disk.create(path)
        try:
            with self.state.counting():
                self.disk.allocate(fd, length)
                self.state.set_used(self.state.used + length)
        except BaseException:
            self.disk.close(fd)
            self.disk.unlink(path)
            raise
        return Filling(self, path, fd, length)

    def scratch(self, length: int) -> int:
        """A file without a name, for as long as it is open or mapped."""
        path = self._own / uuid.uuid4().hex
        fd = self.disk.create(path)
        try:
            self.disk.unlink(path)
            self.disk.allocate(fd, length)
        except BaseException:
            self.disk.close(fd)
            raise
        return fd

    def remove(self, path: Path, counted: int | None = None) -> int:
        """Unlink a file, which counts as its size or as this much; how many bytes that were, 0 where another was quicker.

        Who has it mapped keeps it. Where another process does not let this one count, it goes all the same, and `set_right` finds it out.
        """
        with contextlib.ExitStack() as held:
            is_counting = True
            try:
                held.enter_context(self.state.counting())
            except TimeoutError:
                is_counting = False
            try:
                size = file_size(path) if counted is None else counted
                self.disk.unlink(path)
            except FileNotFoundError:
                return 0
            if is_counting:
                self.state.set_used(self.state.used - size)
                self.state.next_generation()
        with contextlib.suppress(OSError):
            path.parent.rmdir()
        return size

    def set_right(self, extents: int) -> None:
        """Correct the bytes in use, where they are far from what extents, counted just now, and files on their way are together.

        A process that died between a file and its count makes them wrong; a difference as small as what comes and goes while somebody
        counts is none.
        """
        with self.state.counting():
            total = extents + sum(file_size(path) for path in (self.folder / FILLING).glob("*/*"))
            if self.state.is_first or abs(total - self.state.used) > 16 * self.limits.extent_bytes:
                self.state.set_used(total)

    def files(self, part: str) -> Iterator[tuple[ExtentName, "os.DirEntry[str]"]]:
        """All extents of a part."""
        for folder in _folders(self.folder / part):
            for pack in _folders(Path(folder.path)):
                with contextlib.suppress(FileNotFoundError), os.scandir(pack.path) as found:
                    for entry in found:
                        name = ExtentName.of(entry.path)
                        if name is not None:
                            yield name, entry


def _folders(path: Path) -> list["os.DirEntry[str]"]:
    try:
        with os.scandir(path) as found:
            return [entry for entry in found if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def file_size(path: Path) -> int:
    """Length of a file, 0 without it."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
