"""Reads in threads: how many at once, and who gives way to whom."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from archive.web.threads import READ_PLACES, Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    made = Threads(reads_max=50)
    yield made
    made.close()


class Reads:
    """Reads that last until they are let go."""

    def __init__(self, before: Callable[[], None] = lambda: None) -> None:
        self._before, self._go, self._lock = before, threading.Event(), threading.Lock()
        self.begun = 0

    def one(self) -> str:
        with self._lock:
            self.begun += 1
        self._before()
        assert self._go.wait(10)
        return "read"

    def let_go(self) -> None:
        self._go.set()


async def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def test_so_many_run_at_once_and_the_others_after_them(threads: Threads) -> None:
    reads = Reads()

    async def main() -> None:
        asked = [threads.read(reads.one) for _ in range(READ_PLACES + 3)]
        await until(lambda: reads.begun == READ_PLACES)
        await asyncio.sleep(0.05)
        assert reads.begun == READ_PLACES
        asked[-1].cancel()
        reads.let_go()
        assert await asyncio.gather(*asked[:-1]) == ["read"] * (READ_PLACES + 2)
        assert await threads.read(lambda: "next") == "next"
        assert reads.begun == READ_PLACES + 2

    asyncio.run(main())


def test_who_waits_for_another_machine_gives_way(threads: Threads) -> None:
    waiting, near = Reads(threads.give_way), Reads()

    async def main() -> None:
        asked = [threads.read(waiting.one) for _ in range(2 * READ_PLACES)]
        await until(lambda: waiting.begun == 2 * READ_PLACES)
        asked += [threads.read(near.one) for _ in range(READ_PLACES + 1)]
        await until(lambda: near.begun == READ_PLACES)
        await asyncio.sleep(0.05)
        assert near.begun == READ_PLACES
        waiting.let_go()
        near.let_go()
        assert await asyncio.gather(*asked) == ["read"] * len(asked)
        again = [threads.read(lambda: 1) for _ in range(3 * READ_PLACES)]
        assert sum(await asyncio.gather(*again)) == len(again)

    asyncio.run(main())


def test_an_error_reaches_who_was_queued(threads: Threads) -> None:
    reads = Reads()

    def fail() -> None:
        raise ValueError("as it is")

    async def main() -> None:
        asked = [threads.read(reads.one) for _ in range(READ_PLACES)]
        failing = threads.read(fail)
        reads.let_go()
        with pytest.raises(ValueError, match="as it is"):
            await failing
        await asyncio.gather(*asked)

    asyncio.run(main())


def test_what_was_warm_and_would_wait_now_does_so_in_a_thread(threads: Threads) -> None:
    """The event loop itself never waits for another machine."""
    by: list[int] = []
    cold = False

    def read() -> str:
        if cold:
            threads.give_way()
            time.sleep(0.05)
        by.append(threading.get_ident())
        return "read"

    async def main() -> None:
        nonlocal cold
        loop = threading.get_ident()
        for _ in range(50):  # until it was quick
            assert await threads.read_warm("key", read) == "read"
        assert by[-1] == loop
        cold = True
        assert await threads.read_warm("key", read) == "read"
        assert by[-1] != loop
        assert len(by) == 51

    asyncio.run(main())
