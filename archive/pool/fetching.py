"""Fetches: each extent once however many wait for it, what is asked for before what is read ahead, and nobody waits for ever."""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from archive.config import PoolSection
from archive.errors import ArchiveError, Unavailable
from archive.pool.ahead import Ahead, order_of_reading
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent, block_range
from archive.pool.extent_name import ExtentName
from archive.pool.filling import Filler, Reading, Room
from archive.pool.flights import Flight, Outlook, Run, contiguous, merged
from archive.pool.health import TierHealth
from archive.pool.manners import Manners

if TYPE_CHECKING:
    from archive.pool.remote import RemotePack

ROUNDS_MAX = 8
AHEADS_MAX = 16
AHEAD_CELLS = 2
AHEAD_SECONDS = 0.02
"""After the first miss of a series: one frame may be all that is wanted of it. Who misses a second one is reading it through."""
LOCK_SHARE = 1 / 2
"""Of the time that a reader waits, as long is what another process fetches left to it: it may be stopped, or hang."""
CLOSE_SECONDS_MAX = 1.0

logger = logging.getLogger(__name__)


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
        self._asked: deque[Run] = deque()
        self._aheads: list[Ahead] = []
        self._threads: list[threading.Thread] = []
        self._idle = 0
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
        ranges = merged([block_range(start, end), *(block_range(*r) for r in found.at_once if r[0] < r[1])])
        span = block_range(found.ahead[0], min(found.ahead[1], pack.info.covered)) if found.ahead else None
        for _ in range(ROUNDS_MAX):
            with self._condition:
                flights = [(f, wanted) for f, wanted in self._take_off(pack, ranges, span, found.through, held) if f.cell in cells]
            if all(cell in held for cell in cells):
                return [held[cell] for cell in cells]
            for flight, wanted in flights:
                self._await(flight, wanted, until, held)
            ranges, span = [block_range(start, end)], None
        raise Unavailable(f"pack {pack.info.name}: its bytes do not stay in the pool long enough to be read", 5)

    def _find(self, pack: "RemotePack", start: int, end: int) -> dict[int, Extent]:
        """What other processes brought near, by cell."""
        held: dict[int, Extent] = {}
        for cell, wanted in pack.cut(*block_range(start, end)):
            extent = pack.cells.get(cell)
            if extent is None or not extent.name.covers(wanted):
                extent = self._filler.find(pack.source, wanted, pack.cell_name(cell))
                if extent is not None:
                    pack.put(cell, extent)
            if extent is not None:
                held[cell] = extent
        return held

    def _await(self, flight: Flight, wanted: ExtentName, until: float, held: dict[int, Extent]) -> None:
        flight.awaited = True
        coming = flight.event_for(wanted)
        if not coming.is_set():
            self.before_waiting()
        if not coming.wait(max(0.0, until - time.monotonic())):
            raise Unavailable(f"pack {flight.pack.info.name}: its bytes did not come within {self._limits.wait_seconds_max:g} s", 5)
        brought = flight.extent or flight.early_extent
        if brought is not None and brought.name.covers(wanted):
            held[flight.cell] = brought
        elif flight.error is not None and not flight.ahead:
            raise flight.error

    # --- what to fetch; all of it with the condition held

    def _take_off(
        self,
        pack: "RemotePack",
        ranges: Sequence[tuple[int, int]],
        span: tuple[int, int] | None,
        through: bool,
        held: dict[int, Extent],
    ) -> list[tuple[Flight, ExtentName]]:
        """Flights for what is neither here nor coming, and those under way, with what is wanted of each; `held` gets what is here."""
        out: list[tuple[Flight, ExtentName]] = []
        fresh: list[Flight] = []
        for first, last in ranges:
            for cell, wanted in pack.cut(first, last):
                near = [e for e in (pack.cells.get(cell), held.pop(cell, None)) if e]
                covering = next((e for e in near if e.name.covers(wanted)), None)
                if covering is not None:
                    held[cell] = covering
                    continue
                flight = self._flights.get((wanted.digest, cell))
                if flight is None:
                    # Whoever comes back for more of a cell gets all of it that may be wanted.
                    part = pack.cell_part(cell, span)
                    comes_back = part.covers(wanted) and any(_overlaps(e.name, part) for e in near)
                    flight = Flight(pack, cell, wanted, name=part if comes_back else None)
                    fresh.append(flight)
                out.append((flight, wanted))
        if fresh:
            self._health.check()
            self._depart(pack, list(contiguous(fresh)), span, through)
        return out

    def _depart(self, pack: "RemotePack", runs: list[list[Flight]], span: tuple[int, int] | None, through: bool) -> None:
        """Give runs to threads; the last one goes on with what lies behind it, where its span is being read through."""
        ahead: Ahead | None = None
        if span is not None and self._room() is not None:
            earlier = [a for a in self._aheads if a.pack is pack and a.span == span]
            through = through or any(not a.running for a in earlier)
            if through:
                runs[-1][-1].extend(span)
            first, last = runs[-1][0].name.first, runs[-1][-1].name.last
            if not through:  # What was asked for alone is read once more, for one extent is better than several of one cell.
                first = last = pack.cell_part(runs[-1][0].cell, span).first
            ahead = self._ahead(pack, span, (first, last))
            if any(a.running and a.covers(ahead) for a in earlier):
                ahead = None
            else:
                self._aheads = [*(a for a in self._aheads if a.running or a not in earlier), ahead][-AHEADS_MAX:]
                ahead.running = through
        for run in runs:
            self._flights.update((flight.key, flight) for flight in run)
            self._asked.append(Run(pack, run, ahead if through and run is runs[-1] else None))
            self._wake()

    def _ahead(self, pack: "RemotePack", span: tuple[int, int], read: tuple[int, int]) -> Ahead:
        most = min(self._limits.ahead_bytes_max, self._limits.bytes_max // 4) // self._limits.extent_bytes
        rest = order_of_reading(pack, span, read, most)
        return Ahead(pack, span, (wanted for wanted in rest if not self._is_here(pack, *wanted)), time.monotonic() + AHEAD_SECONDS)

    @staticmethod
    def _is_here(pack: "RemotePack", cell: int, name: ExtentName) -> bool:
        extent = pack.cells.get(cell)
        return extent is not None and extent.name.covers(name)

    def _is_away(self, pack: "RemotePack", cell: int, name: ExtentName) -> bool:
        """Neither here nor coming."""
        return (name.digest, cell) not in self._flights and not self._is_here(pack, cell, name)

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
                while (run := self._next()) is None:
                    if self._closing:
                        return
                    self._idle += 1
                    if not self._condition.wait(self._until_due()):
                        self._idle -= 1
            self._fetch(run)

    def _until_due(self) -> float | None:
        due = [ahead.due for ahead in self._aheads if not ahead.running]
        return max(0.0, min(due) - time.monotonic()) if due and not self._too_many_ahead() else None

    def _next(self) -> Run | None:
        if self._asked:
            return self._asked.popleft()
        if self._closing or self._too_many_ahead():
            return None
        for ahead in reversed(self._aheads):  # Who came last waits for it now.
            if not ahead.running and ahead.due <= time.monotonic():
                ahead.running = True
                return Run(ahead.pack, [], ahead)
        return None

    def _too_many_ahead(self) -> bool:
        return sum(ahead.running for ahead in self._aheads) >= self._limits.ahead_reads_max

    def _fetch(self, run: Run) -> None:
        """Fetch contiguous extents that are asked for, then what lies behind them; every flight lands.

        The next extents are said to be coming, and locked, before the last ones land: whoever reads behind finds them on their way.
        """
        manners, left, ahead = Manners(self._room()), list(run.flights), run.ahead
        with contextlib.closing(self._filler.reading(run.pack.source)) as reading:
            try:
                self._lock(left, manners)
                while True:
                    while ahead is not None and sum(flight.ahead for flight in left) < AHEAD_CELLS:
                        further = self._further(ahead)
                        if further is None:
                            ahead = None
                        elif self._lock([further], manners):
                            left.append(further)
                        else:
                            ahead.end()  # Another process reads the same ahead.
                    if not left:
                        return
                    if left[0].ahead:
                        manners.give_way(left)
                    last = left[-1].name.last
                    self._bring(left[0], ahead.reach(last) if ahead is not None else last, reading, manners)
                    del left[0]
            except BaseException as error:
                reading.close()  # Who is told of the failure may ask again at once.
                self._failed(error, run.pack, left)

    def _bring(self, flight: Flight, last: int, reading: Reading, manners: Manners) -> None:
        """One extent, unless another process brought it meanwhile; it lands."""
        extent = self._filler.find(flight.pack.source, flight.name, flight.pack.cell_name(flight.cell))
        if extent is None:
            if not flight.ahead:
                manners.ask()
            extent = reading.fill(flight.name, last, flight.early, lambda early: self._arrive(flight, early, manners))
            if not flight.ahead:
                manners.answer()
            if flight.ahead and extent.shelf is None:
                raise _NoRoom
            self._counters.ahead_bytes += len(extent) - flight.asked_bytes
        self._land(flight, extent)

    def _arrive(self, flight: Flight, early: Extent, manners: Manners) -> None:
        flight.arrive(early)
        manners.answer()

    def _further(self, ahead: Ahead) -> Flight | None:
        """The next flight of what is read ahead by this thread; none where it is over, or has to wait for others to end."""
        with self._condition:
            if ahead and ahead in self._aheads and not self._closing:
                ahead.running = False
                if self._too_many_ahead():
                    return None
                wanted = ahead.next(lambda cell, name: self._is_away(ahead.pack, cell, name))
                if wanted is not None:
                    ahead.running = True
                    flight = Flight(ahead.pack, *wanted, ahead=True)
                    self._flights[flight.key] = flight
                    return flight
            self._end(ahead)
            return None

    def _end(self, ahead: Ahead) -> None:
        """Another one may be read ahead in its place; with the condition held."""
        with contextlib.suppress(ValueError):
            self._aheads.remove(ahead)
        if any(not left.running for left in self._aheads):
            self._wake()

    def _failed(self, error: BaseException, pack: "RemotePack", left: list[Flight]) -> None:
        if isinstance(error, Unavailable):
            self._health.failed(error)
        elif isinstance(error, ArchiveError):
            self._health.answered()
        else:
            logger.error("fetching from pack %s failed", pack.info.name, exc_info=error)
        logger.debug("fetching from pack %s ended: %r", pack.info.name, error)
        for flight in left:
            self._land(flight, None, error)
        with self._condition:
            for ahead in [ahead for ahead in self._aheads if ahead.pack is pack]:
                self._end(ahead)

    def _lock(self, flights: list[Flight], manners: Manners) -> bool:
        """Keep other processes away from these extents, in ascending order so that no two wait for each other.

        What another process is reading ahead too lands without an extent, and the answer is False.
        """
        room, wait_seconds = self._room(), LOCK_SHARE * self._limits.wait_seconds_max
        alone = True
        for flight in flights if room else []:
            assert room is not None
            state, got = room.shelf.state, False
            with contextlib.suppress(OSError):  # The worst that can come of it is a second fetch.
                got = state.lock_extent(flight.lock_key, 0.0)
                if not got and not flight.ahead:
                    manners.hurry()
                if not got:
                    got = state.lock_extent(flight.lock_key, AHEAD_SECONDS if flight.ahead else wait_seconds)
            flight.locked = room.shelf if got else None
            if flight.ahead and not got:
                alone = False
                self._land(flight, None)
        return alone

    def _land(self, flight: Flight, extent: Extent | None, error: BaseException | None = None) -> None:
        flight.extent, flight.error = extent, error
        if extent is not None and extent.shelf is not None:
            flight.pack.put(flight.cell, extent)
        if flight.early_extent is not None:
            flight.pack.put_away(flight.cell, flight.early_extent)
        if flight.locked is not None:
            flight.locked.state.unlock_extent(flight.lock_key)
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


def _overlaps(extent: ExtentName, part: ExtentName) -> bool:
    """Not where they share a block at most, as the end of one series and the start of the next do."""
    return extent.first < part.last and (extent.first >= part.first or extent.last - 1 > part.first)
