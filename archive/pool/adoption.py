"""A pack's bytes kept while it is written, so that what was just stored is not fetched back."""

import logging
from collections.abc import Iterable, Iterator

from archive.disk import Bytes
from archive.errors import Exhausted
from archive.pack.alongside import Alongside
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.naming import PackName
from archive.pool.counters import PoolCounters
from archive.pool.extent_name import ExtentName
from archive.pool.filling import Room, publish
from archive.pool.shelf import Filling

logger = logging.getLogger(__name__)


class Adoption:
    """One pack on its way out. Use it as a context: what was not kept by its end is given back.

    Its bytes go to files of the pool as they pass by, without their name, for that holds the digest. A pool that has no room, or fails,
    takes what it took so far; the pack is never held up by it.

    Parameters
    ----------
    room : Room or None
        None takes nothing.
    """

    def __init__(self, room: Room | None, length: int, extent_bytes: int, counters: PoolCounters) -> None:
        self._room, self._length, self._extent_bytes, self._counters = room, length, extent_bytes, counters
        self._fillings: list[Filling] = []
        self._is_full = False
        self._taking: Alongside | None = None

    def __enter__(self) -> "Adoption":
        return self

    def __exit__(self, *_: object) -> None:
        if self._taking is not None:
            self._taking.abandon()
        for filling in self._fillings:
            filling.abandon()

    def tee(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """The same chunks, each of which must stay what it is until `keep`."""
        if self._room is None:
            return iter(chunks)
        self._taking = Alongside(self._take)
        return self._taking.through(chunks)

    def _take(self, chunk: memoryview) -> None:
        room = self._room
        if room is None or self._is_full:
            return
        try:
            while chunk:
                last = self._fillings[-1] if self._fillings else None
                if last is None or last.written == last.length:
                    done = sum(filling.length for filling in self._fillings)
                    last = room.swapping.begin(min(self._extent_bytes, self._length - done))
                    if last is None:
                        self._is_full = True
                        return
                    self._fillings.append(last)
                now = chunk[: last.length - last.written]
                last.write(now)
                chunk = chunk[len(now) :]
                if last.written == last.length:
                    last.rest()  # A large pack has more extents than a process may have open files.
        except (Exhausted, OSError) as error:
            logger.info("the pool adopts no more of a fresh pack: %s", error)
            self._is_full = True

    def keep(self, name: PackName, covered: int) -> None:
        """The pack rests under this name; `covered` bytes of it have block CRCs and can be served."""
        room = self._room
        if room is None or self._taking is None:
            return
        self._taking.finish()
        total = -(-covered // BLOCK_BYTES)
        blocks = self._extent_bytes // BLOCK_BYTES
        for number, filling in enumerate(self._fillings):
            first = number * blocks
            length = min(self._extent_bytes, covered - first * BLOCK_BYTES)
            if length <= 0 or filling.written < length:
                break
            try:
                publish(room, filling, ExtentName(name.digest, first, min(blocks, total - first)), length)
            except OSError as error:
                logger.info("the pool could not adopt pack %s: %s", name, error)
                break
            self._counters.adopted_bytes += length
