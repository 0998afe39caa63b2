"""Work that nobody waits for gives way while objects come in: it rests for a multiple of the time that it took."""

import time
from collections.abc import Callable

from archive.index.environment import Environment

WORK_SECONDS = 0.001
"""Rests are made after so much work, since each costs a wake-up."""
RESTS = 9
"""A rest is so many times as long as the work before it."""
REST_SECONDS_MAX = 0.05


class GivingWay:
    """Called between two small pieces of work.

    A niceness alone does not do: who has the processor keeps it for its slice, and an object on its way in waits for it several times.

    Parameters
    ----------
    environment : Environment
        Its commits tell that objects come in.
    in_a_hurry : callable
        Whether somebody waits for the work after all; asked before each rest.
    clock : callable
        Seconds that the process worked, all its threads: while it waits for a disk or another machine it holds nobody up.
    """

    def __init__(
        self,
        environment: Environment,
        in_a_hurry: Callable[[], bool],
        clock: Callable[[], float] = time.process_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._environment, self._in_a_hurry, self._clock, self._sleep = environment, in_a_hurry, clock, sleep
        self._commits = environment.last_transaction()
        self._since = clock()

    def __call__(self) -> None:
        worked = self._clock() - self._since
        if worked < WORK_SECONDS:
            return
        commits = self._environment.last_transaction()
        if commits != self._commits and not self._in_a_hurry():
            self._sleep(min(RESTS * worked, REST_SECONDS_MAX))
        self._commits, self._since = commits, self._clock()
