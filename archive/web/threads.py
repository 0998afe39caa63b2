"""Where blocking work runs, and when it is quick enough to run at once."""

import asyncio
import contextlib
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

READ_PLACES = 16
SEARCH_THREADS = 4
QUICK_SECONDS = 0.001
WARM_SECONDS = 30.0
WARM_KEYS_MAX = 65536


class _NotAtOnce(Exception):
    """What was to be done at once on the event loop would wait for another machine."""


class _Place:
    """One of the reads that run at once; given back when the work is done, or waits for another machine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, give_back: Callable[[], None]) -> None:
        self._loop, self._give_back, self._taken = loop, give_back, True

    def leave(self) -> None:
        """On the event loop; a second time makes no difference."""
        if self._taken:
            self._taken = False
            self._give_back()

    def leave_soon(self) -> None:
        """From the thread that has it."""
        if self._taken and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.leave)


class Threads:
    """Two bounded pools, so that slow searches never keep frames waiting, and a memory of what was quick.

    A hop to a thread and back costs about as much as reading a small frame whose pages are in memory. What took less than a
    millisecond when it was last done, not long ago, is therefore done at once; the first slow answer ends that.

    A read that waits for another machine (`give_way`) leaves its place to the next one: however many wait for a tier that hangs,
    what is near is read.

    Parameters
    ----------
    reads_max : int
        Reads that may be begun at once, those that wait included; as many as there are requests.
    """

    def __init__(self, reads_max: int = 200) -> None:
        self._reads = ThreadPoolExecutor(READ_PLACES + reads_max, "read")
        self._searches = ThreadPoolExecutor(SEARCH_THREADS, "search")
        self._places = READ_PLACES
        self._queue: deque[Callable[[], None]] = deque()
        self._here = threading.local()
        self._warm: OrderedDict[Hashable, float] = OrderedDict()

    def read(self, work: Callable[[], T]) -> "asyncio.Future[T]":
        """Start work that may touch the disk, or wait for another machine."""
        loop = asyncio.get_running_loop()
        if self._places:
            return self._begin(loop, work)
        waiting: asyncio.Future[T] = loop.create_future()

        def begin() -> None:
            if not waiting.cancelled():
                self._begin(loop, work).add_done_callback(lambda done: _pass_on(done, waiting))

        self._queue.append(begin)
        return waiting

    def _begin(self, loop: asyncio.AbstractEventLoop, work: Callable[[], T]) -> "asyncio.Future[T]":
        self._places -= 1
        place = _Place(loop, self._next)

        def run() -> T:
            self._here.leave = place.leave_soon
            return work()

        future = loop.run_in_executor(self._reads, run)
        future.add_done_callback(lambda _: place.leave())
        return future

    def _next(self) -> None:
        self._places += 1
        while self._places and self._queue:
            self._queue.popleft()()

    def give_way(self) -> None:
        """Called by a read, in its thread, before it waits for another machine."""
        leave: Callable[[], None] | None = getattr(self._here, "leave", None)
        if leave is not None:
            leave()

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
            Without arguments; it may be begun twice.
        """
        now = time.monotonic()
        if self._warm.get(key, 0.0) > now:
            with contextlib.suppress(_NotAtOnce):
                return self._at_once(key, work, now)
        took, done = await self.read(lambda: _timed(work))
        if took < QUICK_SECONDS:
            self._warm[key] = now + WARM_SECONDS
            if len(self._warm) > WARM_KEYS_MAX:
                self._warm.popitem(last=False)
        return done

    def _at_once(self, key: Hashable, work: Callable[[], T], now: float) -> T:
        self._here.leave = _not_at_once
        try:
            done = work()
        except BaseException:
            del self._warm[key]
            raise
        finally:
            del self._here.leave
        if time.monotonic() - now > QUICK_SECONDS:
            del self._warm[key]
        return done

    def close(self) -> None:
        """End the threads; what they do is finished first."""
        self._reads.shutdown(cancel_futures=True)
        self._searches.shutdown(cancel_futures=True)


def _not_at_once() -> None:
    raise _NotAtOnce


def _pass_on(done: "asyncio.Future[T]", waiting: "asyncio.Future[T]") -> None:
    if done.cancelled():
        waiting.cancel()
        return
    error = done.exception()
    if waiting.cancelled():
        return  # Nobody wants it any more.
    if error is not None:
        waiting.set_exception(error)
    else:
        waiting.set_result(done.result())


def _timed(work: Callable[[], T]) -> tuple[float, T]:
    began = time.monotonic()
    done = work()
    return time.monotonic() - began, done
