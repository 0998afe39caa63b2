"""Reading ahead of a reader: the extents of a range, nearest first, in runs that grow."""

from collections.abc import Callable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from archive.pool.remote import RemotePack

RUN_CELLS_MAX = 4


class Where(Enum):
    """An extent, seen from one process."""

    HERE = 1
    COMING = 2
    AWAY = 3


class Ahead:
    """What of a pack is to be read ahead.

    The first run is one extent, and alone, for somebody waits for it soon; the later ones are longer, as every ranged read costs about
    as much before its first byte as several extents cost after it.

    Parameters
    ----------
    cells : sequence of int
        Numbers of extents, in the order in which they are wanted.
    """

    def __init__(self, pack: "RemotePack", cells: Sequence[int]) -> None:
        self.pack = pack
        self._cells = list(cells)
        self._run = 1
        self._first = -1

    def __bool__(self) -> bool:
        return bool(self._cells)

    def covers(self, other: "Ahead") -> bool:
        """Whether all that the other one wants is wanted here too."""
        return self.pack is other.pack and set(other._cells) <= set(self._cells)

    def next_run(self, where: Callable[[int], Where]) -> list[int]:
        """Contiguous extents to fetch now; empty where all that is left is on its way."""
        if self._run <= 2 and self._cells and where(self._first if self._first >= 0 else self._cells[0]) is Where.COMING:
            return []
        run: list[int] = []
        left: list[int] = []
        for cell in self._cells:
            found = where(cell)
            if found is Where.HERE:
                continue
            if found is Where.AWAY and len(run) < self._run and (not run or cell == run[-1] + 1):
                run.append(cell)
            else:
                left.append(cell)
        self._cells = left
        if run:
            self._first = run[0] if self._run == 1 else -1
            self._run = min(RUN_CELLS_MAX, self._run * 2)
        return run


def order_of_reading(start: int, end: int, position: int, most: int) -> list[int]:
    """Cells from `start` to `end` (not included): from the position on, then what lies before it; `most` of them."""
    return [*range(max(start, position), end), *range(start, min(end, position))][: max(0, most)]
