"""Which extents stay: a segmented LRU on files.

An extent comes into `new/`. Once it was served one and a half times over (by any process) it moves to `kept/`: reading a series once,
in whatever pieces, does not do that, reading it again does. Where room is needed the extents of `new/` that were not used for the
longest time go first, and with them those of `kept/` beyond three quarters of the pool. So what is read once, however much, passes
through a quarter of the pool and leaves the rest alone. What was given up from `new/` and is wanted again soon comes into `kept/`
at once. A file's time of modification is the time of its last use, told every few seconds.
"""

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from archive.errors import Exhausted
from archive.pack.checksum import BLOCK_BYTES
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent
from archive.pool.extent_name import KEPT, NEW, ExtentName
from archive.pool.shelf import HIGH, LOW, Filling, Shelf

KEPT_SHARE = 3 / 4
SERVED_AGAIN = 3 / 2

logger = logging.getLogger(__name__)


class _Candidate(NamedTuple):
    used_ns: int
    size: int
    path: str
    name: ExtentName
    kept: bool


class Swapping:
    """Makes room on a shelf.

    Parameters
    ----------
    tell : callable
        Called before extents are chosen: writes down what this process knows about their use.
    """

    def __init__(self, shelf: Shelf, counters: PoolCounters, tell: Callable[[], None]) -> None:
        self._shelf, self._counters, self._tell = shelf, counters, tell
        self.pressed = threading.Event()
        """Set where room should be made before somebody has to wait for it."""

    def begin(self, length: int) -> Filling | None:
        """Room for an extent, None where there is none to be had."""
        try:
            return self._begin(length)
        except OSError as error:
            logger.warning("the pool cannot make room: %s", error)
            return None

    def _begin(self, length: int) -> Filling | None:
        used, limit = self._shelf.state.used + length, self._shelf.limits.bytes_max
        if used > limit or self._short_of_disk(length) > 0:
            self.make_room(length)
        elif used > limit * HIGH:
            self.pressed.set()
        if self._shelf.state.used + length > self._shelf.limits.bytes_max or self._short_of_disk(length) > 0:
            return None
        for _ in range(2):
            try:
                return self._shelf.begin(length)
            except (Exhausted, OSError) as error:
                logger.debug("no room for an extent of %d bytes: %s", length, error)
                self.make_room(length, least=4 * length)
        return None

    def scratch(self, length: int) -> int:
        """A file without a name, for as long as it is open or mapped; it counts as nothing, but the disk must have room for it.

        Raises
        ------
        Exhausted, OSError
            It has none, even where the pool gives up some.
        """
        if self._short_of_disk(length) > 0:
            self.make_room(length)
        if self._shelf.disk.free_bytes(self._shelf.folder) < length:
            raise Exhausted(f"the disk of the pool has less than {length} bytes free", 30)
        return self._shelf.scratch(length)

    def _short_of_disk(self, length: int) -> int:
        return self._shelf.limits.free_bytes_min + length - self._shelf.disk.free_bytes(self._shelf.folder)

    def _wanted(self, length: int) -> int:
        """How many bytes must go before `length` more may come; nothing up to the high mark, down to the low one beyond it."""
        used, limit = self._shelf.state.used + length, self._shelf.limits.bytes_max
        over = used - int(limit * LOW) if used > limit * HIGH else 0
        return max(over, self._short_of_disk(length))

    def make_room(self, length: int, least: int = 0) -> int:
        """Give extents up; how many bytes went. One process at a time: who waited finds it done."""
        state = self._shelf.state
        with state.making_room():
            if max(least, self._wanted(length)) <= 0:
                return 0
            self._tell()
            found = {part: self._candidates(part) for part in (NEW, KEPT)}
            self._shelf.set_right(sum(c.size for part in found.values() for c in part))
            wanted, freed = max(least, self._wanted(length)), 0
            for candidate in self._in_order(found):
                if freed >= wanted:
                    break
                removed = self._shelf.remove(Path(candidate.path))
                freed += removed
                if removed:
                    self._counters.evictions += 1
                    self._counters.evicted_bytes += removed
                    if not candidate.kept:
                        state.remember_given_up(self.cell_of(candidate.name).key)
        return freed

    def _in_order(self, found: dict[str, list[_Candidate]]) -> list[_Candidate]:
        """Extents, the first to be given up first."""
        kept = sorted(found[KEPT])
        over = sum(c.size for c in kept) - int(self._shelf.limits.bytes_max * LOW * KEPT_SHARE)
        demoted = 0
        while over > 0:
            over -= kept[demoted].size
            demoted += 1
        return sorted(found[NEW] + kept[:demoted]) + kept[demoted:]

    def _candidates(self, part: str) -> list[_Candidate]:
        out = []
        for name, entry in self._shelf.files(part):
            with contextlib.suppress(FileNotFoundError):
                stat = entry.stat(follow_symlinks=False)
                out.append(_Candidate(stat.st_mtime_ns, stat.st_size, entry.path, name, part == KEPT))
        return out

    # --- hints

    def cell_of(self, name: ExtentName) -> ExtentName:
        """The place on the grid that an extent, whole or a part, belongs to."""
        blocks = self._shelf.limits.extent_bytes // BLOCK_BYTES
        return ExtentName(name.digest, name.first // blocks * blocks, blocks)

    def tell_use(self, extent: Extent) -> None:
        """Write down an extent's last use, and move it to `kept/` where it was read again."""
        shelf = self._shelf
        extent.told_at = time.time()
        new, kept = shelf.path(extent.name, NEW), shelf.path(extent.name, KEPT)
        try:
            os.utime(new, (extent.used_at, extent.used_at))
        except FileNotFoundError:
            with contextlib.suppress(FileNotFoundError):
                os.utime(kept, (extent.used_at, extent.used_at))
            return
        if shelf.state.served[extent.slot] >= SERVED_AGAIN * (extent.end - extent.start):
            with contextlib.suppress(FileNotFoundError):
                kept.parent.mkdir(parents=True, exist_ok=True)
                shelf.disk.rename(new, kept)
                with contextlib.suppress(OSError):
                    new.parent.rmdir()

    def is_there(self, extent: Extent) -> bool:
        """Whether its file was not given up."""
        return any(self._shelf.path(extent.name, part).exists() for part in (NEW, KEPT))
