"""Fetches: each extent once however many wait for it, what is asked for before what is read ahead, and nobody waits for ever."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from archive.config import PoolSection
from archive.errors import ArchiveError, Unavailable
from archive.pool.ahead import Ahead, Where, order_of_reading
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent, block_range
from archive.pool.filling import Filler, Room
from archive.pool.health import TierHealth
from archive.pool.shelf import ExtentName

if TYPE_CHECKING:
    from archive.pool.remote import RemotePack

RUN_CELLS_MAX = 4
ROUNDS_MAX = 8
AHEADS_MAX = 16
LOCK_SHARE = 1 / 2
"""Of the time that a reader waits, as long is what another process fetches left to it: it may be stopped, or hang."""
CLOSE_SECONDS_MAX = 1.0

logger = logging.getLogger(__name__)


class Outlook(NamedTuple):
    """What a reader will want besides what it asks for; only looked at where that is not near.

    Attributes
    ----------
    at_once : tuple of (int, int)
        Ranges (start, end) of the pack that it wants next, fetched together with what it asks for.
    ahead : (int, int) or None
        The range that it is going to read through, as its series, fetched in the background.
    """

    at_once: tuple[tuple[int, int], ...] = ()
    ahead: tuple[int, int] | None = None


class Flight:
    """An extent on its way.

    Attributes
    ----------
    arrived : Event
        `extent` or `error` is there.
    landed : Event
        It is kept, as far as it can be, and another flight may take off for more of its cell.
    """

    def __init__(self, pack: "RemotePack", cell: int, name: ExtentName, *, ahead: bool) -> None:
        self.pack, self.cell, self.name, self.ahead = pack, cell, name, ahead
        self.arrived, self.landed = threading.Event(), threading.Event()
        self.extent: Extent | None = None
        self.error: BaseException | None = None
        self.locked = False

    def arrive(self, extent: Extent) -> None:
        """Let those go on who wait for it."""
        self.extent = extent
        self.pack.put(self.cell, extent)
        self.arrived.set()

    @property
    def key(self) -> tuple[str, int]:
        return self.name.digest, self.cell

    @property
    def lock_key(self) -> int:
        return self.pack.cell_name(self.cell).key


class _NoRoom(ArchiveError):
    """What is read ahead cannot be kept."""


class Fetcher:
    """Threads of one process that fetch; started when there is something to do."""

    def __init__(
        self, filler: Filler, room: Callable[[], Room | None], limits: PoolSection, counters: PoolCounters, health: TierHealth
    ) -> None:
        self._filler, self._room, self._limits, self._counters, self._health = filler, room, limits, counters, health
        self._condition = threading.Condition()
        self._flights: dict[tuple[str, int], Flight] = {}
        self._asked: deque[list[Flight]] = deque()
        self._aheads: list[Ahead] = []
        self._threads: list[threading.Thread] = []
        self._idle = self._reading_ahead = 0
        self._closing = False
        self.before_waiting: Callable[[], None] = lambda: None

    # --- for readers

    def bring(self, pack: "RemotePack", start: int, end: int, outlook: Callable[[], Outlook] | None) -> list[Extent]:
        """Extents that hold bytes `start` to `end`, one for each cell.

        Raises
        ------
        Unavailable
            The tier does not answer, or not in time.
        NotFound, Damaged
            As the tier says, or the bytes that it gives are wrong.
        """
        cells = range(start // self._limits.extent_bytes, (end - 1) // self._limits.extent_bytes + 1)
        held = self._find(pack, start, end)
        if len(held) == len(cells):
            self._counters.hits += 1
            return [held[cell] for cell in cells]
        self._counters.misses += 1
        until = time.monotonic() + self._limits.wait_seconds_max
        found = outlook() if outlook else Outlook()
        ranges = _merged([block_range(start, end), *(block_range(*r) for r in found.at_once if r[0] < r[1])])
        for _ in range(ROUNDS_MAX):
            with self._condition:
                flights = [(f, wanted) for f, wanted in self._take_off(pack, ranges, held) if f.cell in cells]
            if all(cell in held for cell in cells):
                break
            for flight, wanted in flights:
                self._await(flight, wanted, until, held)
            ranges = [block_range(start, end)]
        else:
            raise Unavailable(f"pack {pack.info.name}: its bytes do not stay in the pool long enough to be read", 5)
        if found.ahead:
            self._look_ahead(pack, found.ahead, cells[-1])
        return [held[cell] for cell in cells]

    def _find(self, pack: "RemotePack", start: int, end: int) -> dict[int, Extent]:
        """What other processes brought near, by cell."""
        held: dict[int, Extent] = {}
        for cell, wanted in pack.cut(*block_range(start, end)):
            extent = pack.cells.get(cell)
            if extent is None or not extent.covers(wanted.first, wanted.first + wanted.blocks):
                extent = self._filler.find(pack.source, wanted, pack.cell_name(cell))
                if extent is not None:
                    pack.put(cell, extent)
            if extent is not None:
                held[cell] = extent
        return held

    def _await(self, flight: Flight, wanted: ExtentName, until: float, held: dict[int, Extent]) -> None:
        brings_it = flight.name.first <= wanted.first and wanted.first + wanted.blocks <= flight.name.first + flight.name.blocks
        coming = flight.arrived if brings_it else flight.landed
        if not coming.is_set():
            self.before_waiting()
        if not coming.wait(max(0.0, until - time.monotonic())):
            raise Unavailable(f"pack {flight.pack.info.name}: its bytes did not come within {self._limits.wait_seconds_max:g} s", 5)
        if flight.error is not None:
            if not flight.ahead:
                raise flight.error
        elif flight.extent is not None:
            held[flight.cell] = flight.extent

    def _take_off(self, pack: "RemotePack", ranges: Sequence[tuple[int, int]], held: dict[int, Extent]) -> list[tuple[Flight, ExtentName]]:
        """Flights for what is neither here nor coming, and those under way, with what is wanted of each; `held` gets what is here."""
        out: list[tuple[Flight, ExtentName]] = []
        fresh: list[Flight] = []
        for first, last in ranges:
            for cell, wanted in pack.cut(first, last):
                near = [e for e in (pack.cells.get(cell), held.pop(cell, None)) if e]
                covering = next((e for e in near if e.covers(wanted.first, wanted.first + wanted.blocks)), None)
                if covering is not None:
                    held[cell] = covering
                    continue
                flight = self._flights.get((wanted.digest, cell))
                if flight is None:
                    # Whoever comes back for more of it is going to read all of it.
                    flight = Flight(pack, cell, pack.cell_name(cell) if near else wanted, ahead=False)
                    fresh.append(flight)
                out.append((flight, wanted))
        if fresh:
            self._health.check()
            for run in _runs(fresh):
                self._asked.append(run)
                for flight in run:
                    self._flights[flight.key] = flight
                self._wake()
        return out

    def _look_ahead(self, pack: "RemotePack", span: tuple[int, int], position: int) -> None:
        cell_bytes = self._limits.extent_bytes
        most = min(self._limits.ahead_bytes_max, self._limits.bytes_max // 4) // cell_bytes
        end = min(span[1], pack.info.covered)
        cells = order_of_reading(span[0] // cell_bytes, -(-end // cell_bytes), position, most)
        ahead = Ahead(pack, [cell for cell in cells if self._where(pack, cell) is not Where.HERE])
        room = self._room()
        with self._condition:
            if room is None or not ahead or any(a.covers(ahead) for a in self._aheads):
                return
            self._aheads.append(ahead)
            del self._aheads[:-AHEADS_MAX]
            for _ in range(self._limits.ahead_reads_max):
                self._wake()

    def _where(self, pack: "RemotePack", cell: int) -> Where:
        extent = pack.cells.get(cell)
        if extent is not None and extent.name == pack.cell_name(cell):
            return Where.HERE
        return Where.COMING if (pack.digest, cell) in self._flights else Where.AWAY

    # --- threads

    def _wake(self) -> None:
        if self._idle:
            self._idle -= 1  # Here and not by the thread, or the next call would wake the same one again.
            self._condition.notify()
        elif len(self._threads) < self._limits.reads_max and not self._closing:
            self._threads.append(threading.Thread(target=self._work, name=f"pool-{len(self._threads)}", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while True:
            with self._condition:
                while (flights := self._next()) is None:
                    if self._closing:
                        return
                    self._idle += 1
                    self._condition.wait()
                ahead = flights[0].ahead
                self._reading_ahead += ahead
            self._fetch(flights)
            with self._condition:
                self._reading_ahead -= ahead
                if ahead and self._aheads:  # Others may join in: the first run goes alone.
                    for _ in range(self._limits.ahead_reads_max - self._reading_ahead - 1):
                        self._wake()

    def _next(self) -> list[Flight] | None:
        if self._asked:
            return self._asked.popleft()
        if self._closing or self._reading_ahead >= self._limits.ahead_reads_max:
            return None
        for ahead in reversed(self._aheads):  # Who came last waits for it now.
            pack = ahead.pack
            run = ahead.next_run(lambda cell, pack=pack: self._where(pack, cell))  # type: ignore[misc]
            if not ahead:
                self._aheads.remove(ahead)
            if run:
                flights = [Flight(pack, cell, pack.cell_name(cell), ahead=True) for cell in run]
                self._flights.update((flight.key, flight) for flight in flights)
                return flights
        return None

    def _fetch(self, flights: list[Flight]) -> None:
        """Fetch a contiguous run, all of it asked for or all of it ahead; every flight lands."""
        left = list(flights)
        failure: BaseException | None = None
        try:
            self._lock(left)
            for stretch in self._stretches(left):
                self._fetch_stretch(stretch, left)
        except BaseException as error:
            failure = error
            self._failed(error, flights[0])
        for flight in left:
            self._land(flight, None, failure)

    def _fetch_stretch(self, stretch: list[Flight], left: list[Flight]) -> None:
        def arrive(extent: Extent) -> None:
            left[0].arrive(extent)

        names = [flight.name for flight in stretch]
        early = None if stretch[0].ahead else arrive
        for flight, extent in zip(stretch, self._filler.fill(stretch[0].pack.source, names, early), strict=True):
            left.remove(flight)
            self._land(flight, extent)
            if flight.ahead and extent.shelf is None:
                raise _NoRoom

    def _failed(self, error: BaseException, flight: Flight) -> None:
        if isinstance(error, Unavailable):
            self._health.failed(error)
        elif isinstance(error, ArchiveError):
            self._health.answered()
        else:
            logger.error("fetching from pack %s failed", flight.pack.info.name, exc_info=error)
        if flight.ahead:
            logger.debug("reading ahead in pack %s ended: %r", flight.pack.info.name, error)
            with self._condition:
                self._aheads = [a for a in self._aheads if a.pack is not flight.pack]

    def _lock(self, left: list[Flight]) -> None:
        """Keep other processes away from these extents, in ascending order so that no two wait for each other.

        What another process is fetching already is not read ahead.
        """
        room, wait_seconds = self._room(), LOCK_SHARE * self._limits.wait_seconds_max
        for flight in list(left) if room else []:
            assert room is not None
            with contextlib.suppress(OSError):  # The worst that can come of it is a second fetch.
                flight.locked = room.shelf.state.lock_extent(flight.lock_key, 0.0 if flight.ahead else wait_seconds)
            if flight.ahead and not flight.locked:
                left.remove(flight)
                self._land(flight, None)

    def _stretches(self, left: list[Flight]) -> Iterator[list[Flight]]:
        """What is still to be fetched, contiguous; what other processes brought lands at once."""
        stretch: list[Flight] = []
        for flight in list(left):
            found = self._filler.find(flight.pack.source, flight.name, flight.pack.cell_name(flight.cell))
            if found is not None:
                left.remove(flight)
                self._land(flight, found)
            elif stretch and stretch[-1].name.first + stretch[-1].name.blocks != flight.name.first:
                yield stretch
                stretch = [flight]
            else:
                stretch.append(flight)
        if stretch:
            yield stretch

    def _land(self, flight: Flight, extent: Extent | None, error: BaseException | None = None) -> None:
        early, flight.extent, flight.error = flight.extent, extent, error
        if extent is not None and extent.shelf is not None:
            flight.pack.put(flight.cell, extent)
            if flight.ahead:
                self._counters.ahead_bytes += extent.end - extent.start
        if early is not None:
            flight.pack.put_away(flight.cell, early)
        room = self._room() if flight.locked else None
        if room is not None:
            room.shelf.state.unlock_extent(flight.lock_key)
        with self._condition:
            self._flights.pop(flight.key, None)
        flight.arrived.set()
        flight.landed.set()

    def close(self) -> None:
        """End the threads as they come by; one that is stuck in a read ends with the process."""
        with self._condition:
            self._closing = True
            self._aheads.clear()
            self._condition.notify_all()
        until = time.monotonic() + CLOSE_SECONDS_MAX
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return out


def _runs(flights: list[Flight]) -> Iterator[list[Flight]]:
    """Flights whose blocks lie one behind the other, together."""
    run: list[Flight] = []
    for flight in flights:
        if run and (len(run) >= RUN_CELLS_MAX or run[-1].name.first + run[-1].name.blocks != flight.name.first):
            yield run
            run = []
        run.append(flight)
    if run:
        yield run
