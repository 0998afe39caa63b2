"""Where blocking work runs, and when it is quick enough to run at once."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

READ_THREADS = 16
SEARCH_THREADS = 4
QUICK_SECONDS = 0.001
WARM_SECONDS = 30.0
WARM_KEYS_MAX = 65536


class Threads:
    """Two bounded pools, so that slow searches never keep frames waiting, and a memory of what was quick.

    A hop to a thread and back costs about as much as reading a small frame whose pages are in memory. What took less than a
    millisecond when it was last done, not long ago, is therefore done at once; the first slow answer ends that.
    """

    def __init__(self) -> None:
        self._reads = ThreadPoolExecutor(READ_THREADS, "read")
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, "search")
        self._warm: OrderedDict[Hashable, float] = OrderedDict()

    def read(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Start work that may touch the disk."""
        return asyncio.get_running_loop().run_in_executor(self._reads, work)

    def search(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Start work that may take long."""
        return asyncio.get_running_loop().run_in_executor(self._searches, work)

    async def read_warm(self, key: Hashable, work: Callable[[], T]) -> T:
        """Do work at once where the same was quick a moment ago, else in a thread.

        Parameters
        ----------
        key : hashable
            What is read; equal keys must mean equal bytes at rest.
        work : callable
            Without arguments.
        """
        now = time.monotonic()
        if self._warm.get(key, 0.0) > now:
            try:
                done = work()
            except BaseException:
                del self._warm[key]
                raise
            if time.monotonic() - now > QUICK_SECONDS:
                del self._warm[key]
            return done
        took, done = await self.read(lambda: _timed(work))
        if took < QUICK_SECONDS:
            self._warm[key] = now + WARM_SECONDS
            if len(self._warm) > WARM_KEYS_MAX:
                self._warm.popitem(last=False)
        return done

    def close(self) -> None:
        """End the threads; what they do is finished first."""
        self._reads.shutdown(cancel_futures=True)
        self._searches.shutdown(cancel_futures=True)


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    done = work()
    return time.monotonic() - began, done
