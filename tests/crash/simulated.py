"""A disk whose power fails: what was not synced is there, is not, or is there in part; calls fail; everything by one seed."""

import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

from archive.disk import Bytes, full_or_same
from tests.crash.cutting import CuttingDisk

SECTOR_BYTES = 512


class SimulatedDisk(CuttingDisk):
    """As `CuttingDisk`; `fail` makes calls fail, `lose_power` leaves what a disk may have.

    Of bytes that were not synced each sector is there or not. Of names whose folder was not synced the earlier ones are there, up to any
    place in their order (a file system that journals keeps it). After a failed sync the kernel takes its pages for clean: what they held
    is in memory and may never reach the disk, whatever is synced later.
    """

    def __init__(self, rng: random.Random) -> None:
        super().__init__()
        self._rng = rng
        self._images: dict[int, bytearray] = {}
        """What of each file is on the disk for certain."""
        self._dirty: dict[int, list[tuple[int, int]]] = {}
        self._failing: dict[int, int] = {}
        self.failures = 0
        self.torn = False
        """Of the write that is cut, some whole sectors from its start reach the file."""

    def fail(self, after_calls: int, error: int) -> None:
        """The call after so many more fails with this errno; it changes nothing."""
        self._failing[self.calls + after_calls] = error

    def _count(self, what: str) -> None:
        error = self._failing.pop(self.calls, None)
        super()._count(what)
        if error is not None:
            self.failures += 1
            raise full_or_same(OSError(error, os.strerror(error), what))

    # --- what changes the disk

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._images[self._open[fd]] = bytearray()
        return fd

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        end = offset + sum(len(part) for part in parts)
        self._dirty.setdefault(self._open[fd], []).append((offset, end))
        if self.torn and not self._dead and self._is_over(f"write {self._name(fd)}"):
            border = self._rng.randint(offset, end) // SECTOR_BYTES * SECTOR_BYTES
            if border > offset:
                os.pwrite(fd, b"".join(parts)[: border - offset], offset)
        return super().write(fd, parts, offset)

    def sync(self, fd: int) -> None:
        file = self._open[fd]
        try:
            self._count(f"sync {self._name(fd)}")
        except OSError:
            self._write_back(file, self._content(fd), share=0.5)
            self._dirty.pop(file, None)
            raise
        self._write_back(file, self._content(fd), share=1.0)
        self._dirty.pop(file, None)

    def drop_cached(self, fd: int) -> None:
        """What a failed sync lost is seen to be lost."""
        super().drop_cached(fd)
        file = self._open[fd]
        path = next((path for path, of in self._names.items() if of == file), None)
        if path is not None and not self._dirty.get(file):
            with path.open("r+b") as out:
                out.write(self._images[file])
                out.truncate()

    def _content(self, fd: int) -> bytes:
        return os.pread(fd, os.fstat(fd).st_size, 0)

    def _write_back(self, file: int, content: bytes, share: float) -> None:
        """Bring this share of the dirty sectors to the disk; the length with the first of them."""
        image = self._images[file]
        if share == 1.0 or self._rng.random() < share:
            del image[len(content) :]
            image.extend(bytes(len(content) - len(image)))
        for start, end in self._dirty.get(file, []):
            for at in range(start // SECTOR_BYTES * SECTOR_BYTES, end, SECTOR_BYTES) if share < 1.0 else [start]:
                last = min(at + SECTOR_BYTES if share < 1.0 else end, len(image))
                if at < last and self._rng.random() < share:
                    image[at:last] = content[at:last]

    def truncate(self, fd: int, length: int) -> None:
        self._count(f"truncate {self._name(fd)}")
        super().truncate(fd, length)

    def close(self, fd: int) -> None:
        if fd in self._open:  # Else it was closed when its process died, and what held it is collected only now.
            super().close(fd)

    # --- the end

    def lose_power(self) -> None:
        """Leave on the disk what may be there; every descriptor is closed before."""
        for path, file in self._names.items():
            if self._dirty.get(file) or len(self._images[file]) != path.stat().st_size:
                self._write_back(file, path.read_bytes(), share=self._rng.choice((0.0, 0.5, 0.9)))
        kept = self._rng.randint(0, len(self._changes)) if self._rng.random() < 0.7 else 0
        for old, new, file in self._changes[:kept]:
            if old:
                self._durable.pop(old, None)
            if new:
                self._durable[new] = file
        for path in self._names:
            path.unlink()
        for path, file in self._durable.items():
            path.write_bytes(self._images[file])
        self._names, self._changes = dict(self._durable), []
        self._dirty.clear()
        self._failing.clear()

    def forget_failures(self) -> None:
        self._failing.clear()


ERRORS = (errno.ENOSPC, errno.EIO)
