"""The journal a second time, on another disk: whatever changes one changes the other, and fails where either fails.

Both are changed by the same calls, the first one before. So what the mirror alone has is what a process that died was about to release, and
what only the first has was acknowledged to nobody. `archive.flow.mirroring` makes them equal at start.
"""

import contextlib
import mmap
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from archive.disk import Bytes, Disk
from archive.errors import Exhausted

T = TypeVar("T")
READ_BYTES = 1 << 20
_SEGMENT = re.compile(r"(\d{12})\.(?:[A-Za-z0-9-]+\.)?seg")


class MirroredDisk(Disk):
    """Files below one folder, each with a twin below another. Only the first is read and locked.

    After an error of the second disk nothing is changed any more, by this process: the two would drift apart.

    Parameters
    ----------
    disk : Disk
        Both disks.
    first, second : Path
        Folders; a twin has the same path below the second.
    """

    def __init__(self, disk: Disk, first: Path, second: Path) -> None:
        self._disk, self._first, self.mirror = disk, first, second
        self._twins: dict[int, int] = {}
        self._failed = ""

    def twin(self, path: Path) -> Path:
        return self.mirror / path.relative_to(self._first)

    def _want_both(self) -> None:
        if self._failed:
            raise Exhausted(self._failed)

    def _also(self, call: Callable[[], T]) -> T:
        """Do it to the second."""
        try:
            return call()
        except Exhausted as error:
            raise Exhausted(f"the mirror of the journal: {error}", error.retry_after_seconds) from error
        except OSError as error:
            self._failed = (
                f"the mirror of the journal in {self.mirror} failed ({error.strerror}): nothing goes into the journal "
                "until the node is started again, with the mirror or without"
            )
            raise Exhausted(self._failed) from error

    def _found(self, path: Path) -> Path:
        """The twin under its name, which a process that died may have left it without."""
        twin = self.twin(path)
        number = _SEGMENT.fullmatch(twin.name)
        if number and not twin.exists():
            for folder in ("open", "sealed", "spare"):
                for name in self._disk.list_folder(twin.parent.parent / folder):
                    if name.startswith(f"{number[1]}."):
                        self._disk.rename(twin.parent.parent / folder / name, twin)
                        return twin
        return twin

    # --- descriptors

    def open_read(self, path: Path) -> int:
        return self._disk.open_read(path)

    def open_write(self, path: Path) -> int:
        self._want_both()
        fd = self._disk.open_write(path)
        try:
            self._twins[fd] = self._also(lambda: self._disk.open_write(self._found(path)))
        except BaseException:
            self._disk.close(fd)
            raise
        return fd

    def create(self, path: Path) -> int:
        self._want_both()
        fd = self._disk.create(path)
        try:
            self._twins[fd] = self._also(lambda: self._create(self.twin(path)))
        except BaseException:
            self._disk.close(fd)
            self._disk.unlink(path)
            raise
        return fd

    def _create(self, twin: Path) -> int:
        self._unlink(twin)
        return self._disk.create(twin)

    def close(self, fd: int) -> None:
        twin = self._twins.pop(fd, None)
        self._disk.close(fd)
        if twin is not None:
            self._disk.close(twin)

    def size(self, fd: int) -> int:
        return self._disk.size(fd)

    # --- bytes

    def read(self, fd: int, length: int, offset: int) -> bytes:
        return self._disk.read(fd, length, offset)

    def read_some(self, fd: int, length: int, offset: int) -> bytes:
        return self._disk.read_some(fd, length, offset)

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        self._want_both()
        written = self._disk.write(fd, parts, offset)
        self._also(lambda: self._disk.write(self._twins[fd], parts, offset))
        return written

    def allocate(self, fd: int, length: int) -> None:
        self._want_both()
        self._disk.allocate(fd, length)
        self._also(lambda: self._disk.allocate(self._twins[fd], length))

    def truncate(self, fd: int, length: int) -> None:
        self._want_both()
        self._disk.truncate(fd, length)
        self._also(lambda: self._disk.truncate(self._twins[fd], length))

    def map_read(self, fd: int, length: int) -> mmap.mmap:
        return self._disk.map_read(fd, length)

    # --- durability

    def sync(self, fd: int) -> None:
        self._want_both()
        self._disk.sync(fd)
        self._also(lambda: self._disk.sync(self._twins[fd]))

    def sync_folder(self, path: Path) -> None:
        self._want_both()
        self._disk.sync_folder(path)
        self._also(lambda: self._disk.sync_folder(self.twin(path)))

    def drop_cached(self, fd: int) -> None:
        self._disk.drop_cached(fd)

    # --- names

    def rename(self, old: Path, new: Path) -> None:
        self._want_both()
        self._disk.rename(old, new)
        self._also(lambda: self._rename(old, new))

    def _rename(self, old: Path, new: Path) -> None:
        twin = self._found(old)
        if twin.exists():
            self._disk.rename(twin, self.twin(new))
        else:  # A process died between the two, and another tidies up behind it.
            copy_file(self._disk, new, self.mirror / "journal/incoming" / new.name, self.twin(new))

    def unlink(self, path: Path) -> None:
        self._want_both()
        self._disk.unlink(path)
        self._also(lambda: self._unlink(self._found(path)))

    def _unlink(self, twin: Path) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(twin)

    def make_folder(self, path: Path) -> None:
        self._disk.make_folder(path)
        if not self.twin(path).is_dir():
            self._also(lambda: self._make_folder(self.twin(path)))

    def _make_folder(self, twin: Path) -> None:
        if not self.mirror.is_dir():
            raise FileNotFoundError(2, "its folder is gone", str(self.mirror))
        self._disk.make_folder(twin)

    def list_folder(self, path: Path) -> list[str]:
        return self._disk.list_folder(path)

    def free_bytes(self, path: Path) -> int:
        """Of the disk that has less."""
        self._want_both()
        return min(self._disk.free_bytes(path), self._also(lambda: self._disk.free_bytes(self.twin(path))))

    # --- locks

    def lock(self, fd: int, *, shared: bool, wait: bool = True) -> bool:
        return self._disk.lock(fd, shared=shared, wait=wait)

    @contextlib.contextmanager
    def locked(self, fd: int) -> Iterator[None]:
        with self._disk.locked(fd):
            yield

    def lock_byte(self, fd: int, offset: int, *, wait: bool = True) -> bool:
        return self._disk.lock_byte(fd, offset, wait=wait)

    def unlock_byte(self, fd: int, offset: int) -> None:
        self._disk.unlock_byte(fd, offset)


def copy_file(disk: Disk, source: Path, part: Path, target: Path) -> None:
    """A durable copy, which lies at `part` until it is whole."""
    for path in (part, target):
        disk.make_folder(path.parent)
    with contextlib.suppress(FileNotFoundError):
        disk.unlink(part)
    from_fd = disk.open_read(source)
    try:
        to_fd = disk.create(part)
        try:
            length = disk.size(from_fd)
            for at in range(0, length, READ_BYTES):
                disk.write(to_fd, [disk.read(from_fd, min(READ_BYTES, length - at), at)], at)
            disk.sync(to_fd)
        finally:
            disk.close(to_fd)
    finally:
        disk.close(from_fd)
    disk.rename(part, target)
    disk.sync_folder(target.parent)
