"""How many associations and connections each worker has: a small shared file, a cell of each kind for each worker, written by it alone.

A worker that takes a slot adds itself first and looks at the sum then: the limit is never exceeded, and of two that come at
the same moment for the last slot, both may be told no. A worker that dies leaves its cells behind for the supervisor to clear.
"""

import mmap
import os
from collections.abc import Mapping
from threading import Lock

_CELL = 8
_KINDS = 2  # associations and connections; behind them come the associations of each remote AE that has a limit of its own


class AssociationSlots:
    """The slots of a node, as one worker sees them.

    Parameters
    ----------
    descriptor : int
        Of the shared file, from `create_slots`.
    worker_index : int
        Which cells are this worker's, from 0.
    associations_max : int
        Associations at once over all workers.
    limits : mapping of str to int
        Associations at once by calling AE title, for those that have a limit of their own; the same in all workers.
    """

    def __init__(self, descriptor: int, worker_index: int, associations_max: int, limits: Mapping[str, int] | None = None) -> None:
        self._worker_index = worker_index
        self._lock = Lock()
        titles = sorted(limits or {})
        kinds, size = _KINDS + len(titles), os.fstat(descriptor).st_size
        # Each cell is one aligned machine word, so that nobody reads half a number.
        cells = memoryview(mmap.mmap(descriptor, size)).cast("Q")
        workers = len(cells) // kinds
        rows = [cells[workers * n : workers * (n + 1)] for n in range(kinds)]
        for row in rows:
            row[worker_index] = 0
        self._connections = rows[1]
        self._everybody = rows[0], associations_max
        self._of_title = {title: (row, (limits or {})[title]) for title, row in zip(titles, rows[_KINDS:], strict=True)}

    def take(self, calling_ae_title: str = "") -> bool:
        """Take a slot, if there is one in all and for this title."""
        taken = []
        with self._lock:
            for row, most in self._limits_of(calling_ae_title):
                row[self._worker_index] += 1
                taken.append(row)
                if sum(row) > most:
                    for one in taken:
                        one[self._worker_index] -= 1
                    return False
        return True

    def give_back(self, calling_ae_title: str = "") -> None:
        """Give back a slot taken."""
        with self._lock:
            for row, _ in self._limits_of(calling_ae_title):
                row[self._worker_index] -= 1

    def _limits_of(self, calling_ae_title: str) -> list[tuple[memoryview, int]]:
        own = self._of_title.get(calling_ae_title)
        return [self._everybody] if own is None else [self._everybody, own]

    def count_connection(self, change: int) -> None:
        """Say that this worker has a connection more (1) or less (-1)."""
        with self._lock:
            self._connections[self._worker_index] += change

    def is_ahead(self) -> bool:
        """Whether another worker has fewer connections than this one, so that it should get the next."""
        return self._connections[self._worker_index] > min(self._connections)


def create_slots(workers: int, limits: int = 0) -> int:
    """Make the shared file for so many workers and so many titles with limits; its descriptor is inherited by the workers."""
    descriptor = os.memfd_create("association-slots")
    os.ftruncate(descriptor, (_KINDS + limits) * workers * _CELL)
    return descriptor


def clear_slots(descriptor: int, worker_index: int, workers: int) -> None:
    """Give back what a dead worker held."""
    for cell in range(worker_index, os.fstat(descriptor).st_size // _CELL, workers):
        os.pwrite(descriptor, bytes(_CELL), cell * _CELL)
