"""Fetches: once for all who wait, never for ever, and wrong bytes are fetched again."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from archive.errors import Damaged, Unavailable
from archive.pack.checksum import BLOCK_BYTES
from archive.pool import health as health_module
from archive.pool.pool import Pool
from tests.pool.far import MIB, FarTier, Placed, ahead, extent_files, open_remote, place, settle, wait_until

OpenPool = Callable[..., Pool]
EXTENT_BYTES = 4 * BLOCK_BYTES


def test_concurrent_misses_are_one_fetch(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    tier.seconds = 0.1
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: bytes(opened.view(100 + n, 1000)), range(16)))
    assert found == [placed.covered[100 + n :][:1000] for n in range(16)]
    assert tier.reads == [(0, BLOCK_BYTES)]


def test_concurrent_misses_of_different_pools_are_one_fetch(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    """Two pools over one folder see each other as two processes do."""
    packs = [open_remote(open_pool(), placed) for _ in range(4)]
    tier.seconds = 0.1
    with ThreadPoolExecutor(16) as threads:
        found = list(threads.map(lambda n: bytes(packs[n % 4].view(100 + n, 1000)), range(16)))
    assert found == [placed.covered[100 + n :][:1000] for n in range(16)]
    assert tier.reads == [(0, BLOCK_BYTES)]


def test_reading_ahead_is_shared_by_pools(open_pool: OpenPool, tier: FarTier) -> None:
    large = place(tier._root, 2, 12 * MIB)
    pools = [open_pool() for _ in range(3)]
    tier.seconds = 0.01
    for pool in pools:
        open_remote(pool, large).view(0, 10, ahead(0, len(large.covered)))
    for pool in pools:
        settle(pool)
    assert len(extent_files(pools[0]._folder)) == -(-len(large.covered) // EXTENT_BYTES)
    assert tier.read_bytes == len(large.covered) + BLOCK_BYTES
    for pool in pools:
        assert b"".join(open_remote(pool, large).views(0, len(large.covered))) == large.covered
    assert tier.read_bytes == len(large.covered) + BLOCK_BYTES


def test_what_is_asked_for_does_not_wait_behind_what_is_read_ahead(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool(reads_max=2, ahead_reads_max=1)
    large = place(tier._root, 2, 12 * MIB)
    opened, other = open_remote(pool, large), open_remote(pool, placed)
    opened.view(0, 10, ahead(0, len(large.covered)))
    tier.seconds = 0.2
    wait_until(lambda: len(tier.reads) > 1)
    began = time.monotonic()
    other.view(0, 10)
    assert time.monotonic() - began < 0.4
    assert len(tier.reads) <= 5


# --- a tier that is away


def test_an_error_reaches_everybody_who_waits_and_nobody_after(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    tier.error, tier.seconds = Unavailable("HDFS is away"), 0.1
    with ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(opened.view, n, 10) for n in range(8)]:
            with pytest.raises(Unavailable, match="HDFS is away"):
                future.result()
    assert len(tier.reads) == 1
    tier.error = None
    assert bytes(opened.view(0, 10)) == placed.covered[:10]


def test_nobody_waits_for_a_tier_that_hangs(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(wait_seconds_max=0.2), placed)
    tier.gate.clear()
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"did not come within 0\.2 s") as raised:
        opened.view(0, 10)
    assert time.monotonic() - began < 2.0
    assert raised.value.retry_after_seconds > 0
    tier.gate.set()
    wait_until(lambda: bool(opened.cells))
    assert bytes(opened.view(0, 10)) == placed.covered[:10]
    assert len(tier.reads) == 1  # what came too late was kept


def test_while_the_tier_is_away_one_reader_tries_and_the_others_are_told_at_once(
    open_pool: OpenPool, tier: FarTier, placed: Placed
) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    opened.view(0, 10)
    tier.error = Unavailable("HDFS is away")
    with pytest.raises(Unavailable):
        opened.view(EXTENT_BYTES, 10)
    tier.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        trying = threads.submit(opened.view, EXTENT_BYTES, 10)
        wait_until(lambda: len(tier.reads) == 3)
        began = time.monotonic()
        for _ in range(20):
            with pytest.raises(Unavailable, match="its tier does not answer: HDFS is away"):
                opened.view(2 * EXTENT_BYTES, 10)
        assert time.monotonic() - began < 1.0
        assert pool.counters.refused == 20
        assert bytes(opened.view(0, 10)) == placed.covered[:10]  # near
        tier.error = None
        tier.gate.set()
        assert bytes(trying.result()) == placed.covered[EXTENT_BYTES:][:10]
    assert bytes(opened.view(2 * EXTENT_BYTES, 10)) == placed.covered[2 * EXTENT_BYTES :][:10]


def test_a_tier_that_says_nothing_counts_as_away(
    open_pool: OpenPool, tier: FarTier, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health_module, "STALL_SECONDS", 0.1)
    pool = open_pool()
    opened = open_remote(pool, placed)
    tier.gate.clear()
    with ThreadPoolExecutor(1) as threads:
        waiting: Future[memoryview] = threads.submit(opened.view, 0, 10)
        wait_until(lambda: len(tier.reads) == 1)
        time.sleep(0.2)
        with pytest.raises(Unavailable, match="has said nothing for"):
            opened.view(EXTENT_BYTES, 10)
        tier.gate.set()
        assert bytes(waiting.result()) == placed.covered[:10]
    assert bytes(opened.view(EXTENT_BYTES, 10)) == placed.covered[EXTENT_BYTES:][:10]


def test_reading_ahead_ends_where_the_tier_is_away(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool(ahead_reads_max=1)
    opened = open_remote(pool, placed)
    tier.bad = lambda count, offset, piece: tier_is_away() if count == 2 and offset else piece

    def tier_is_away() -> bytes:
        raise Unavailable("HDFS went away")

    opened.view(0, 10, ahead(0, len(placed.covered)))
    settle(pool)
    assert len(tier.reads) == 2
    tier.bad = None
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered


# --- a tier that is wrong


def flipping(reads: int, at: int) -> Callable[[int, int, bytes], bytes]:
    """Turn a bit over in the first so many reads."""

    def bad(count: int, offset: int, piece: bytes) -> bytes:
        if count > reads or not offset <= at < offset + len(piece):
            return piece
        changed = bytearray(piece)
        changed[at - offset] ^= 4
        return bytes(changed)

    return bad


@pytest.mark.parametrize("at", [0, BLOCK_BYTES - 1, 3 * BLOCK_BYTES, 6 * BLOCK_BYTES])
def test_bytes_that_come_wrong_are_fetched_again(open_pool: OpenPool, tier: FarTier, placed: Placed, at: int) -> None:
    pool = open_pool()
    tier.bad = flipping(2, at)
    assert b"".join(open_remote(pool, placed).views(0, 7 * BLOCK_BYTES)) == placed.covered[: 7 * BLOCK_BYTES]
    assert len(tier.reads) == 3
    assert pool.counters.bad_extents == 2


def test_bytes_that_come_wrong_again_and_again_are_refused(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    tier.bad = flipping(1000, BLOCK_BYTES + 5)
    with pytest.raises(Damaged, match="block 1 does not match its CRC, 3 times as it came from file://"):
        opened.view(BLOCK_BYTES, 10)
    assert len(tier.reads) == 3
    assert extent_files(pool._folder) == []
    assert bytes(opened.view(2 * BLOCK_BYTES, 10)) == placed.covered[2 * BLOCK_BYTES :][:10]


def test_no_thread_outlives_its_pool(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    before = set(threading.enumerate())
    pool = open_pool()
    view = open_remote(pool, placed).view(0, 10, ahead(0, len(placed.covered)))
    assert set(threading.enumerate()) > before
    pool.close()
    pool.close()
    assert set(threading.enumerate()) == before
    assert bytes(view) == placed.covered[:10]
