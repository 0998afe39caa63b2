"""Reading ahead of a reader: the rest of a series, by a read that goes on behind what was asked for."""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, islice
from typing import TYPE_CHECKING

from archive.pool.extent_name import ExtentName

if TYPE_CHECKING:
    from archive.pool.remote import RemotePack

Wanted = tuple[int, ExtentName]


class Ahead:
    """What of a pack is to be read ahead, by one thread: extents in the order in which they are wanted.

    Attributes
    ----------
    running : bool
        A thread is at it, or going to be when it has what was asked for.
    due : float
        When it may begin, on the monotonic clock.
    """

    def __init__(self, pack: "RemotePack", span: tuple[int, int], wanted: Iterator[Wanted], due: float) -> None:
        self.pack, self.span, self.due = pack, span, due
        self._wanted = deque(wanted)
        self.running = False

    def __bool__(self) -> bool:
        return bool(self._wanted)

    def covers(self, other: "Ahead") -> bool:
        """Whether all that the other one wants is wanted here too."""
        return self.pack is other.pack and set(other._wanted) <= set(self._wanted)

    def end(self) -> None:
        """Nothing more is wanted."""
        self._wanted.clear()

    def reach(self, block: int) -> int:
        """The block up to which one read goes that comes from here."""
        for _, name in self._wanted:
            if name.first != block:
                break
            block = name.last
        return block

    def next(self, is_away: Callable[[int, ExtentName], bool]) -> Wanted | None:
        """The extent to be fetched now, none where it is over; what is here or on its way meanwhile is passed over."""
        while self._wanted:
            wanted = self._wanted.popleft()
            if is_away(*wanted):
                return wanted
        return None


def order_of_reading(pack: "RemotePack", span: tuple[int, int], read: tuple[int, int], extents_max: int) -> Iterator[Wanted]:
    """Extents of a span of blocks: those behind what is read now, then what lies before it."""
    first = max(span[0], read[0])
    cell = next(iter(pack.cut(first, first + 1)), (0, None))[0]
    before = pack.cut(span[0], pack.cell_part(cell, span).last) if first > span[0] else iter(())
    return islice(chain(pack.cut(max(span[0], read[1]), span[1]), before), max(0, extents_max))
