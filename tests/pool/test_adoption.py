"""A pack is kept while it is written, as far as there is room, and never held up by that."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.disk import LOCAL_DISK
from archive.pack.checksum import BLOCK_BYTES
from archive.pool import state
from archive.pool.pool import Pool
from archive.tier.directory import DirectoryTier
from tests.pool.far import MIB, FarTier, Placed, extent_files, limits, open_remote, place, wait_until
from tests.pool.test_shelf import FullDisk

OpenPool = Callable[..., Pool]
EXTENT_BYTES = 4 * BLOCK_BYTES


def chunks(data: bytes, size: int = 300_007) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def temporary_files(pool: Pool) -> list[Path]:
    return [path for path in (pool._folder / "filling").glob("*/*") if path.name != "owner"]


def held_open(pool: Pool) -> int:
    """Files on their way that this process has open."""
    names = {str(path) for path in temporary_files(pool)}
    return sum(os.path.realpath(f"/proc/self/fd/{fd}") in names for fd in os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("size", [1, 300_007, 5 * MIB])
def test_what_was_adopted_is_near(open_pool: OpenPool, tier: FarTier, size: int) -> None:
    placed = place(tier._root, 1, 3 * MIB if size > 1 else 200_000)
    pool = open_pool()
    with pool.adopt(len(placed.data)) as adoption:
        assert b"".join(adoption.tee(chunks(placed.data, size))) == placed.data
        assert extent_files(pool._folder) == []
        adoption.keep(placed.name, len(placed.covered))
    assert b"".join(open_remote(pool, placed).views(0, len(placed.covered))) == placed.covered
    assert tier.reads == []
    assert pool.counters.adopted_bytes == len(placed.covered) == pool.used_bytes
    assert temporary_files(pool) == []


def test_a_pack_of_many_extents_holds_few_files_open(open_pool: OpenPool, tier: FarTier) -> None:
    placed = place(tier._root, 1, 24 * MIB)
    pool = open_pool()
    with pool.adopt(len(placed.data)) as adoption:
        for _ in adoption.tee(chunks(placed.data)):
            pass
        wait_until(lambda: len(temporary_files(pool)) == 25)
        assert held_open(pool) <= 2
        adoption.keep(placed.name, len(placed.covered))
    assert held_open(pool) == 0
    assert b"".join(open_remote(pool, placed).views(0, len(placed.covered))) == placed.covered
    assert tier.reads == []


def test_a_pack_that_is_not_stored_leaves_nothing(open_pool: OpenPool, placed: Placed) -> None:
    pool = open_pool()
    with pytest.raises(ValueError, match="the tier failed"), pool.adopt(len(placed.data)) as adoption:
        for number, _ in enumerate(adoption.tee(chunks(placed.data))):
            if number == 5:
                wait_until(lambda: len(temporary_files(pool)) == 2)
                raise ValueError("the tier failed")
    assert temporary_files(pool) == extent_files(pool._folder) == []
    assert pool.used_bytes == 0


def test_a_disk_that_is_full_does_not_hold_a_pack_up(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    disk = FullDisk(free=1 << 40)
    pool = open_pool(disk=disk)
    open_remote(pool, place(tier._root, 2)).view(0, 1)
    disk.writes_left = 7
    with pool.adopt(len(placed.data)) as adoption:
        assert b"".join(adoption.tee(chunks(placed.data))) == placed.data
        adoption.keep(placed.name, len(placed.covered))
    assert pool.counters.adopted_bytes in (EXTENT_BYTES, 2 * EXTENT_BYTES)  # what was whole by then
    deadline = time.monotonic() + 20
    while temporary_files(pool) and time.monotonic() < deadline:  # The first view's extent is written behind it.
        time.sleep(0.05)
    assert temporary_files(pool) == []
    disk.writes_left = 1 << 30
    assert b"".join(open_remote(pool, placed).views(0, len(placed.covered))) == placed.covered


def test_a_pack_that_is_large_for_the_pool_is_not_adopted(open_pool: OpenPool, placed: Placed) -> None:
    pool = open_pool(bytes_max=4 * MIB)
    with pool.adopt(len(placed.data)) as adoption:
        assert b"".join(adoption.tee(chunks(placed.data))) == placed.data
        adoption.keep(placed.name, len(placed.covered))
    assert pool.counters.adopted_bytes == 0


def test_a_tier_on_this_machine_needs_no_adoption(tmp_path: Path, folder: Path, placed: Placed) -> None:
    pool = Pool(DirectoryTier(tmp_path / "far"), folder, limits())
    with pool.adopt(len(placed.data)) as adoption:
        assert b"".join(adoption.tee(chunks(placed.data))) == placed.data
        adoption.keep(placed.name, len(placed.covered))
    assert not folder.exists()


def test_adopting_gives_up_what_was_not_used_for_long(open_pool: OpenPool, tier: FarTier) -> None:
    pool = open_pool(bytes_max=16 * MIB)
    for number in range(1, 8):
        placed = place(tier._root, number, 4 * MIB)
        with pool.adopt(len(placed.data)) as adoption:
            for _ in adoption.tee(chunks(placed.data)):
                assert pool.used_bytes <= 16 * MIB
            adoption.keep(placed.name, len(placed.covered))
    opened = open_remote(pool, placed)
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered
    assert tier.reads == []


def test_a_byte_that_turned_over_since_is_found(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool()
    with pool.adopt(len(placed.data)) as adoption:
        for _ in adoption.tee(chunks(placed.data)):
            pass
        adoption.keep(placed.name, len(placed.covered))
    path = extent_files(pool._folder)[0]
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    assert bytes(open_remote(pool, placed).view(0, 200)) == placed.covered[:200]
    assert tier.reads == [(0, BLOCK_BYTES)]


@pytest.mark.parametrize("byte", [0, 1], ids=["counting", "making-room"])
def test_a_process_that_is_stopped_with_a_lock_does_not_hold_a_pack_up(
    open_pool: OpenPool, tier: FarTier, folder: Path, monkeypatch: pytest.MonkeyPatch, byte: int
) -> None:
    monkeypatch.setattr(state, "LOCK_SECONDS_MAX", 0.3, raising=False)
    pool = open_pool(bytes_max=16 * MIB)
    packs = [place(tier._root, number, 4 * MIB) for number in range(1, 9)]

    def adopt(*packs: Placed) -> None:
        for placed in packs:
            with pool.adopt(len(placed.data)) as adoption:
                assert b"".join(adoption.tee(chunks(placed.data))) == placed.data
                adoption.keep(placed.name, len(placed.covered))

    adopt(*packs[:5])
    before = pool.counters.adopted_bytes
    other = LOCAL_DISK.open_write(folder / "state")
    try:
        LOCAL_DISK.lock_byte(other, byte)
        running = threading.Thread(target=adopt, args=packs[5:7], daemon=True)
        running.start()
        running.join(5)
        assert not running.is_alive()
        assert pool.counters.adopted_bytes < before + 4 * MIB
    finally:
        LOCAL_DISK.close(other)
    running.join()
    assert temporary_files(pool) == []
    before = pool.counters.adopted_bytes
    adopt(packs[7])
    assert pool.counters.adopted_bytes == before + len(packs[7].covered)
