"""A tier that lies on another machine, as far as the pool can tell, and packs in it."""

import functools
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from archive.config import PoolSection
from archive.errors import ArchiveError
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, read_tail
from archive.pool.flights import Outlook
from archive.pool.pool import Pool
from archive.pool.remote import RemotePack
from archive.tier.directory import DirectoryTier
from tests.pack.build import MadePack, make_instance, make_pack, read_from

MIB = 1 << 20
PIECE_BYTES = 64 << 10


class FarTier(DirectoryTier):
    """A folder that cannot be mapped. Every read is written down; it can be slow, fail, hang, or give wrong bytes.

    Attributes
    ----------
    reads : list of (int, int)
        Offset and length of each ranged read; it may be ended before.
    read_bytes : int
        So many bytes were taken.
    seconds : float
        Before the first byte of a read.
    error : ArchiveError or None
        Raised by every read.
    bad : callable or None
        Changes a piece: gets how many reads there were, the offset and the piece.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: list[tuple[int, int]] = []
        self.seconds = 0.0
        self.error: ArchiveError | None = None
        self.bad: Callable[[int, int, bytes], bytes] | None = None
        self.open_now = self.open_most = self.read_bytes = 0
        self.gate = threading.Event()
        self.gate.set()

    def local_path(self, name: PackName) -> Path | None:
        return None

    def stream(self, name: PackName, offset: int, length: int) -> Iterator[bytes]:
        self.reads.append((offset, length))
        self.open_now += 1
        self.open_most = max(self.open_most, self.open_now)
        try:
            for piece in self._stream(len(self.reads), name, offset, length):
                self.read_bytes += len(piece)
                yield piece
        finally:
            self.open_now -= 1

    def _stream(self, count: int, name: PackName, offset: int, length: int) -> Iterator[bytes]:
        if self.seconds:
            time.sleep(self.seconds)
        self.gate.wait()
        if self.error:
            raise type(self.error)(str(self.error))
        with self._opened(name) as fd:
            for at in range(offset, offset + length, PIECE_BYTES):
                piece = self._disk.read(fd, min(PIECE_BYTES, offset + length - at), at)
                yield self.bad(count, at, piece) if self.bad else piece

    def read(self, name: PackName, offset: int, length: int) -> bytes:
        return b"".join(self.stream(name, offset, length))


@dataclass
class Placed:
    """A pack in a tier."""

    pack_id: int
    name: PackName
    data: bytes = field(repr=False)
    tail: PackTail = field(repr=False)

    @property
    def info(self) -> PackInfo:
        return PackInfo(self.pack_id, self.name, len(self.data), self.tail.covered, "", "", 1, 1, 0)

    @property
    def covered(self) -> bytes:
        return self.data[: self.tail.covered]


def place(root: Path, pack_id: int = 1, length: int = 3 * MIB) -> Placed:
    """Put a pack with about this many bytes, unlike those of any other, into a folder."""
    made = _made(pack_id, length)
    path = root / str(made.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():  # Several processes may place the same.
        path.write_bytes(made.data)
    return Placed(pack_id, made.name, made.data, read_tail(len(made.data), read_from(made.data)))


@functools.cache
def _made(pack_id: int, length: int) -> MadePack:
    noise = random.Random(pack_id).randbytes(length)
    return make_pack([make_instance(1, noise, uid=f"1.2.3.{pack_id}")], sequence=pack_id)


def limits(**changes: Any) -> PoolSection:
    """Small extents, and no care for the disk that the tests run on; nothing is read ahead unless asked."""
    defaults: dict[str, Any] = {"bytes_max": 64 * MIB, "extent_bytes": 4 * BLOCK_BYTES, "free_bytes_min": 0, "wait_seconds_max": 20.0}
    return PoolSection.model_construct(**{**PoolSection().model_dump(), **defaults, **changes})


def open_remote(pool: Pool, placed: Placed) -> RemotePack:
    opened = pool.open(placed.info, lambda: placed.tail.block_crcs)
    assert isinstance(opened, RemotePack)
    return opened


def ahead(start: int, end: int) -> Callable[[], Outlook]:
    return lambda: Outlook(ahead=(start, end))


def wait_until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    """Poll, and fail where it does not come true."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.002)


def settle(pool: Pool) -> None:
    """Wait until nothing is on its way: readers have their bytes before the files have them."""
    wait_until(lambda: not pool._fetcher._flights and not pool._fetcher._aheads)


def extent_files(folder: Path) -> list[Path]:
    """All extents of a pool."""
    found: list[Path] = []
    for part in ("new", "kept"):
        for where, _, names in os.walk(folder / part):
            found += (Path(where) / name for name in names)
    return sorted(found)
