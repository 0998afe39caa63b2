"""Extents on their way, and what readers know of what they will want."""

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from archive.pool.extent import Extent
from archive.pool.extent_name import ExtentName
from archive.pool.shelf import Shelf

if TYPE_CHECKING:
    from archive.pool.ahead import Ahead
    from archive.pool.remote import RemotePack

RUN_CELLS_MAX = 4
EARLY_BLOCKS_MAX = 6
"""Handed out from memory, before they are written to a file and the rest has come."""


class Outlook(NamedTuple):
    """What a reader will want besides what it asks for; only looked at where that is not near.

    Attributes
    ----------
    at_once : tuple of (int, int)
        Ranges (start, end) of the pack that it wants next, fetched together with what it asks for.
    ahead : (int, int) or None
        The range that it may be going to read through, as its series.
    through : bool
        It does so now.
    """

    at_once: tuple[tuple[int, int], ...] = ()
    ahead: tuple[int, int] | None = None
    through: bool = False


class Flight:
    """An extent on its way.

    Parameters
    ----------
    wanted : ExtentName
        Blocks of the cell.
    ahead : bool
        They are read ahead; else somebody waits for them.
    name : ExtentName, optional
        Bring these instead, among which they are.

    Attributes
    ----------
    name : ExtentName
        The blocks that it brings.
    early : ExtentName or None
        Those at its start that arrive before the rest, from memory: they are wanted, and not too many.
    awaited : bool
        Somebody waits for it.
    locked : Shelf or None
        Where other processes are kept away from it.
    arrived : Event
        `early_extent`, `extent` or `error` is there.
    landed : Event
        It is kept, as far as it can be, and another flight may take off for more of its cell.
    """

    def __init__(self, pack: "RemotePack", cell: int, wanted: ExtentName, *, ahead: bool = False, name: ExtentName | None = None) -> None:
        self.pack, self.cell, self.ahead = pack, cell, ahead
        self.name = name or wanted
        early = ExtentName(wanted.digest, self.name.first, wanted.last - self.name.first)
        self.early = early if not ahead and early.blocks <= EARLY_BLOCKS_MAX else None
        self.asked_bytes = 0 if ahead else pack.source.length_of(self.name)
        self.awaited = not ahead
        self.arrived, self.landed = threading.Event(), threading.Event()
        self.early_extent: Extent | None = None
        self.extent: Extent | None = None
        self.error: BaseException | None = None
        self.locked: Shelf | None = None

    def extend(self, span: tuple[int, int]) -> None:
        """Bring what lies behind it in its cell too, as far as a span of blocks goes."""
        last = self.pack.cell_part(self.cell, span).last
        if self.name.last < last:
            self.name = ExtentName(self.name.digest, self.name.first, last - self.name.first)

    def arrive(self, extent: Extent) -> None:
        """Let those go on who wait for its first blocks."""
        self.early_extent = extent
        self.pack.put(self.cell, extent)
        self.arrived.set()

    def event_for(self, wanted: ExtentName) -> threading.Event:
        """What to wait for who wants these blocks: the rest of their cell comes with a flight of its own once this one landed."""
        return self.arrived if self.early is not None and self.early.covers(wanted) else self.landed

    @property
    def key(self) -> tuple[str, int]:
        return self.name.digest, self.cell

    @property
    def lock_key(self) -> int:
        return self.pack.cell_name(self.cell).key


class Run(NamedTuple):
    """Work for one thread: contiguous flights that are asked for, and what to go on with behind them."""

    pack: "RemotePack"
    flights: list[Flight]
    ahead: "Ahead | None"


def merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges of blocks in order, those that touch as one."""
    out: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if out and first <= out[-1][1]:
            out[-1] = (out[-1][0], max(last, out[-1][1]))
        else:
            out.append((first, last))
    return out


def contiguous(flights: list[Flight]) -> Iterator[list[Flight]]:
    """Flights whose blocks lie one behind the other, a few together."""
    run: list[Flight] = []
    for flight in flights:
        if run and (len(run) >= RUN_CELLS_MAX or run[-1].name.last != flight.name.first):
            yield run
            run = []
        run.append(flight)
    if run:
        yield run
