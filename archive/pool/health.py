"""Whether a tier answers: while it does not, one reader tries and the others are told at once."""

import threading
import time

from archive.errors import Unavailable
from archive.pool.counters import PoolCounters

STALL_SECONDS = 3.0
RETRY_AFTER_SECONDS = 5


class TierHealth:
    """What the reads of this process say about the tier.

    A tier that hangs must not fill the threads of a process with readers who wait for it, or those whose bytes are near wait too.
    """

    def __init__(self, url: str, counters: PoolCounters) -> None:
        self._url, self._counters = url, counters
        self._lock = threading.Lock()
        self._open = 0
        self._heard = 0.0
        self._error = ""

    def check(self) -> None:
        """
        Raises
        ------
        Unavailable
            Another read is waiting for a tier that failed before, or that says nothing for long.
        """
        with self._lock:
            if not self._open:
                return
            silent = time.monotonic() - self._heard
            if not self._error and silent <= STALL_SECONDS:
                return
            self._counters.refused += 1
            reason = self._error or f"{self._url} has said nothing for {silent:.0f} s"
        raise Unavailable(f"what is asked for is not near, and its tier does not answer: {reason}", RETRY_AFTER_SECONDS)

    def begin(self) -> None:
        """A ranged read begins."""
        with self._lock:
            if not self._open:
                self._heard = time.monotonic()
            self._open += 1

    def end(self) -> None:
        with self._lock:
            self._open -= 1

    def heard(self) -> None:
        """Some bytes came."""
        self._heard = time.monotonic()

    def answered(self) -> None:
        """It gave what was asked for, or said that it has no such thing."""
        self._heard = time.monotonic()
        self._error = ""

    def failed(self, error: Unavailable) -> None:
        self._error = str(error)
