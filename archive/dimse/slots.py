"""How many associations and connections each worker has: a small shared file, two cells for each worker, written by it alone.

A worker that takes a slot adds itself first and looks at the sum then: the limit is never exceeded, and of two that come at
the same moment for the last slot, both may be told no. A worker that dies leaves its cells behind for the supervisor to clear.
"""

import mmap
import os
from threading import Lock

_CELL = 8


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
    """

    def __init__(self, descriptor: int, worker_index: int, associations_max: int) -> None:
        self._associations_max = associations_max
        self._worker_index = worker_index
        self._lock = Lock()
        size = os.fstat(descriptor).st_size
        # Each cell is one aligned machine word, so that nobody reads half a number.
        cells = memoryview(mmap.mmap(descriptor, size)).cast("Q")
        self._associations, self._connections = cells[: size // _CELL // 2], cells[size // _CELL // 2 :]
        self._associations[worker_index] = self._connections[worker_index] = 0

    def take(self) -> bool:
        """Take a slot, if there is one."""
        with self._lock:
            self._associations[self._worker_index] += 1
            if sum(self._associations) <= self._associations_max:
                return True
            self._associations[self._worker_index] -= 1
            return False

    def give_back(self) -> None:
        """Give back a slot taken."""
        with self._lock:
            self._associations[self._worker_index] -= 1

    def count_connection(self, change: int) -> None:
        """Say that this worker has a connection more (1) or less (-1)."""
        with self._lock:
            self._connections[self._worker_index] += change

    def is_ahead(self) -> bool:
        """Whether another worker has fewer connections than this one, so that it should get the next."""
        return self._connections[self._worker_index] > min(self._connections)


def create_slots(workers: int) -> int:
    """Make the shared file for so many workers; its descriptor is inherited by them."""
    descriptor = os.memfd_create("association-slots")
    os.ftruncate(descriptor, 2 * workers * _CELL)
    return descriptor


def clear_slots(descriptor: int, worker_index: int) -> None:
    """Give back what a dead worker held."""
    workers = os.fstat(descriptor).st_size // _CELL // 2
    for cell in (worker_index, workers + worker_index):
        os.pwrite(descriptor, bytes(_CELL), cell * _CELL)
