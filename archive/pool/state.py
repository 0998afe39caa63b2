"""What the processes of a node know together about `DIR/pool`: one small mapped file, and locks on it.

The file `state`: 8 bytes magic, bytes in use (signed 64 bits), generation, number of extents given up, nanoseconds of the monotonic clock
when a reader last began to wait for the tier, when one got what it waited for, when one began to wait for another process (unsigned 64
bits each); from byte 64 on what all processes counted (`PoolCounters`, unsigned 64 bits each), padding up to 256 bytes; then the table of
bytes served, one number for each slot; then the table of what was given up lately, key and number for each slot (all unsigned 64 bits, of
this machine's byte order). All of it is hints: the files themselves are counted anew whenever room is made, and when the first process of
a node opens the pool.
"""

import contextlib
import errno
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Final

from archive.disk import Disk
from archive.pool.counters import PoolCounters

MAGIC: Final = b"DAPOOL01"
SERVED_SLOTS: Final = 1 << 16
GIVEN_UP_SLOTS: Final = 1 << 16
_HEADER_BYTES: Final = 256
_TOTALS = struct.Struct(f"={len(fields(PoolCounters))}Q")
_TOTALS_AT = 64
_LENGTH: Final = _HEADER_BYTES + 8 * SERVED_SLOTS + 16 * GIVEN_UP_SLOTS
_USED = struct.Struct("=q")
_NUMBER = struct.Struct("=Q")
_USED_AT, _GENERATION_AT, _GIVEN_UP_AT, _WAITED_AT, _ANSWERED_AT, _HURRIED_AT = 8, 16, 24, 32, 40, 48
_COUNTING, _MAKING_ROOM, _FIRST_KEY = 0, 1, 16
_KEYS = (1 << 62) - _FIRST_KEY
POLL_SECONDS = 0.001
LOCK_SECONDS_MAX = 5.0
"""What one process waits for another that counts or makes room."""


class _Hint:
    """A number of the state file that anybody may overwrite at any time."""

    def __init__(self, at: int) -> None:
        self._at = at

    def __get__(self, state: "PoolState", kind: object = None) -> int:
        return int(_NUMBER.unpack_from(state._map, self._at)[0])

    def __set__(self, state: "PoolState", value: int) -> None:
        _NUMBER.pack_into(state._map, self._at, value)


class _NodeLock:
    """Held by one thread of one process of the node."""

    def __init__(self, disk: Disk, fd: int, byte: int) -> None:
        self._disk, self._fd, self._byte = disk, fd, byte
        self._own = threading.Lock()
        self._is_held_up = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        with self._own:
            # Who waited in vain once does not wait again for each file.
            seconds = 0.0 if self._is_held_up else LOCK_SECONDS_MAX
            self._is_held_up = not _polled(lambda: self._disk.lock_byte(self._fd, self._byte, wait=False), seconds)
            if self._is_held_up:
                raise _held_up()
            try:
                yield
            finally:
                self._disk.unlock_byte(self._fd, self._byte)


def _polled(take: Callable[[], bool], seconds: float) -> bool:
    until = time.monotonic() + seconds
    while not take():
        if time.monotonic() >= until:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _held_up() -> TimeoutError:
    return TimeoutError(errno.ETIMEDOUT, "another process of this node holds the pool and does not go on")


class PoolState:
    """The state file, open.

    Parameters
    ----------
    extents_max : int
        How many extents the pool has room for; half as many are remembered after they were given up.
    """

    def __init__(self, folder: Path, extents_max: int, disk: Disk) -> None:
        self._disk = disk
        path = folder / "state"
        with contextlib.suppress(FileExistsError):
            disk.close(disk.create(path))
        self._fd = disk.open_write(path)
        self._is_open = True
        self._counting, self._making_room = _NodeLock(disk, self._fd, _COUNTING), _NodeLock(disk, self._fd, _MAKING_ROOM)
        try:
            with self.counting():
                if disk.size(self._fd) != _LENGTH or disk.read(self._fd, len(MAGIC), 0) != MAGIC:
                    disk.truncate(self._fd, 0)
                    disk.allocate(self._fd, _LENGTH)
                    disk.write(self._fd, [MAGIC], 0)
                # A map keeps what it was made from open, and with it the locks, so it gets an opening of its own.
                mapped = disk.open_write(path)
                try:
                    self._map = mmap.mmap(mapped, _LENGTH)
                finally:
                    disk.close(mapped)
        except BaseException:
            disk.close(self._fd)
            raise
        tables = memoryview(self._map)[_HEADER_BYTES:].cast("Q")
        self.served = tables[:SERVED_SLOTS]
        """Bytes served from extents, by `key % SERVED_SLOTS`, since one came under that number."""
        self._given_up = tables[SERVED_SLOTS:]
        self._remembered = max(4, min(GIVEN_UP_SLOTS // 4, extents_max // 2))
        # Who gets it exclusively is alone in the pool, and may count and clear away; from then on everybody holds it shared.
        self.is_first = disk.lock(self._fd, shared=False, wait=False)

    def settled(self) -> None:
        """The first process has counted: the others may go on. TimeoutError where it does not end."""
        if not _polled(lambda: self._disk.lock(self._fd, shared=True, wait=False), LOCK_SECONDS_MAX):
            raise _held_up()
        self.is_first = False

    def is_at(self, folder: Path) -> bool:
        """Whether it is this file that others find there."""
        try:
            return os.path.samestat(os.stat(folder / "state"), os.fstat(self._fd))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Give all locks back; the tables stay readable, for who still looks."""
        self._is_open = False
        self._disk.close(self._fd)

    # --- locks

    # Asked for again and again instead of slept for in the kernel: a process that holds one and is stopped must stop nobody else.

    def counting(self) -> contextlib.AbstractContextManager[None]:
        """While files are counted in or out. TimeoutError where another process does not end that."""
        return self._counting.held()

    def making_room(self) -> contextlib.AbstractContextManager[None]:
        """While extents are given up: by one process at a time. TimeoutError where another one does not end that."""
        return self._making_room.held()

    def lock_extent(self, key: int, wait_seconds: float) -> bool:
        """Keep other processes from fetching an extent; False where one is at it all that time."""
        return _polled(lambda: self._disk.lock_byte(self._fd, _FIRST_KEY + key % _KEYS, wait=False), wait_seconds)

    def unlock_extent(self, key: int) -> None:
        if self._is_open:
            self._disk.unlock_byte(self._fd, _FIRST_KEY + key % _KEYS)

    # --- numbers

    @property
    def used(self) -> int:
        """Bytes of all files of the pool."""
        return int(_USED.unpack_from(self._map, _USED_AT)[0])

    def set_used(self, value: int) -> None:
        """Only while `counting`."""
        _USED.pack_into(self._map, _USED_AT, value)

    @property
    def generation(self) -> int:
        """Grows whenever extents are given up: who has some mapped looks whether they are still there."""
        return int(_NUMBER.unpack_from(self._map, _GENERATION_AT)[0])

    def next_generation(self) -> None:
        """Only while `counting`."""
        _NUMBER.pack_into(self._map, _GENERATION_AT, self.generation + 1)

    waited_ns = _Hint(_WAITED_AT)
    """When a reader of whichever process last began to wait for the tier, on the monotonic clock."""
    answered_ns = _Hint(_ANSWERED_AT)
    """When one last got what it waited for."""
    hurried_ns = _Hint(_HURRIED_AT)
    """When one last began to wait for what another process fetches."""

    def add_totals(self, counted: Sequence[int]) -> None:
        """Add what this process counted since it was last told."""
        with self.counting():
            _TOTALS.pack_into(self._map, _TOTALS_AT, *(a + b for a, b in zip(self.totals(), counted, strict=True)))

    def totals(self) -> list[int]:
        """What all processes counted since `DIR/pool` was made."""
        return list(_TOTALS.unpack_from(self._map, _TOTALS_AT))

    # --- what was given up lately

    def remember_given_up(self, key: int) -> None:
        """Only while `making_room`."""
        number = self._numbered() + 1
        _NUMBER.pack_into(self._map, _GIVEN_UP_AT, number)
        at = 2 * (key % GIVEN_UP_SLOTS)
        self._given_up[at], self._given_up[at + 1] = key, number

    def was_given_up(self, key: int) -> bool:
        """Whether it was given up, and not more than half a pool of others since; asked once, as it comes back then."""
        at = 2 * (key % GIVEN_UP_SLOTS)
        found = self._given_up[at] == key and self._numbered() - self._given_up[at + 1] < self._remembered
        if found:
            self._given_up[at] = 0
        return found

    def _numbered(self) -> int:
        return int(_NUMBER.unpack_from(self._map, _GIVEN_UP_AT)[0])
