"""Who reads ahead lets those go first who wait: the tier, the network and this machine's processors are shared."""

import time
from collections.abc import Sequence

from archive.pool.filling import Room
from archive.pool.flights import Flight
from archive.pool.state import PoolState

ANSWERED_SECONDS = 0.015
"""So long after a reader had what it waited for it may ask for more, of whatever series."""
HURRY_SECONDS = 0.1
"""So long after somebody began to wait for what another process fetches no process pauses."""
PAUSE_SECONDS = 0.002
PAUSE_SECONDS_MAX = 0.2
"""At a time, so that what is read ahead comes too, however many others wait all the time."""


class Manners:
    """Of one ranged read.

    Parameters
    ----------
    room : Room or None
        Where processes tell each other that they wait.
    """

    def __init__(self, room: Room | None) -> None:
        self._state = room.shelf.state if room else None
        self._asked_ns = 0

    def ask(self) -> None:
        """A reader begins to wait for what comes next."""
        self._asked_ns = time.monotonic_ns()
        if self._state is not None:
            self._state.waited_ns = self._asked_ns

    def answer(self) -> None:
        """It came."""
        if self._state is not None:
            self._state.answered_ns = time.monotonic_ns()

    def hurry(self) -> None:
        """A reader begins to wait for what another process fetches."""
        if self._state is not None:
            self._state.hurried_ns = time.monotonic_ns()

    def give_way(self, flights: Sequence[Flight]) -> None:
        """Sleep a little while another reader waits for its first bytes, or just got them, and nobody waits for what comes next here."""
        until = time.monotonic() + PAUSE_SECONDS_MAX
        while self._state is not None and time.monotonic() < until and self._others_wait(self._state):
            if any(flight.awaited for flight in flights):
                return
            time.sleep(PAUSE_SECONDS)

    def _others_wait(self, state: PoolState) -> bool:
        now_ns, waited_ns, answered_ns = time.monotonic_ns(), state.waited_ns, state.answered_ns
        if waited_ns <= self._asked_ns or now_ns - state.hurried_ns < HURRY_SECONDS * 1e9:
            return False
        return answered_ns < waited_ns or now_ns - answered_ns < ANSWERED_SECONDS * 1e9
