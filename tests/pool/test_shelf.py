"""Extents as files: what is damaged is dropped and fetched again, what a dead process left is cleared, the folder may be gone."""

import gc
import os
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from archive.disk import Bytes, Disk
from archive.errors import Damaged, Exhausted
from archive.pack.checksum import BLOCK_BYTES
from archive.pool import pool as pool_module
from archive.pool import remote as remote_module
from archive.pool.pool import Pool
from archive.pool.shelf import Shelf
from tests.pool.far import MIB, FarTier, Placed, ahead, extent_files, limits, open_remote, place, settle, wait_until

OpenPool = Callable[..., Pool]
EXTENT_BYTES = 4 * BLOCK_BYTES


def fill(pool: Pool, placed: Placed) -> None:
    """All of a pack, near."""
    opened = open_remote(pool, placed)
    for start in range(0, len(placed.covered), EXTENT_BYTES):
        opened.views(start, min(EXTENT_BYTES, len(placed.covered) - start))
    settle(pool)


def poke(path: Path, at: int) -> None:
    """Turn a bit over in a file that the pool does not expect to change."""
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes((byte[0] ^ 1,)))


def test_what_is_near_stays_near_over_a_restart(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    first = open_pool()
    fill(first, placed)
    used = first.used_bytes
    assert used == len(placed.covered) == sum(path.stat().st_size for path in extent_files(first._folder))
    first.close()
    tier.reads.clear()
    second = open_pool()
    assert b"".join(open_remote(second, placed).views(0, len(placed.covered))) == placed.covered
    assert tier.reads == []
    assert (second.counters.hits, second.counters.misses) == (1, 0)
    assert second.used_bytes == used


def test_the_folder_may_be_deleted_while_nobody_uses_it(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    first = open_pool()
    fill(first, placed)
    first.close()
    shutil.rmtree(first._folder)
    second = open_pool()
    assert bytes(open_remote(second, placed).view(0, 100)) == placed.covered[:100]
    settle(second)
    assert second.used_bytes == BLOCK_BYTES


@pytest.mark.parametrize("gone", ["", "filling"])
def test_a_folder_that_goes_while_it_is_used_is_made_anew(
    open_pool: OpenPool, folder: Path, tier: FarTier, placed: Placed, monkeypatch: pytest.MonkeyPatch, gone: str
) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_SECONDS", 0.05)
    monkeypatch.setattr(pool_module, "ANONYMOUS_BYTES_MAX", 0)
    pool = open_pool()
    view = open_remote(pool, placed).view(5, EXTENT_BYTES)
    settle(pool)
    shutil.rmtree(folder / gone)
    wait_until(lambda: (folder / "filling").exists() or pool._opened is None)
    assert bytes(view) == placed.covered[5:][:EXTENT_BYTES]
    other = place(tier._root, 2)
    assert bytes(open_remote(pool, other).view(0, EXTENT_BYTES)) == other.covered[:EXTENT_BYTES]
    settle(pool)
    assert any(other.name.digest in str(path) for path in extent_files(folder))
    assert bytes(pool.assemble(10, iter([memoryview(b"0123456789")]))) == b"0123456789"
    del view
    gc.collect()
    assert [path for fd in os.listdir("/proc/self/fd") if "(deleted)" in (path := _target(fd)) and str(folder) in path] == []


def test_an_extent_that_comes_while_the_folder_is_made_anew_is_locked_no_longer_than_that(
    open_pool: OpenPool, folder: Path, tier: FarTier, placed: Placed
) -> None:
    """Its lock is one of the file that it was taken on, which may be there again."""
    pool, other = open_pool(wait_seconds_max=3.0), open_pool(wait_seconds_max=3.0)
    tier.gate.clear()
    reading = threading.Thread(target=lambda: open_remote(pool, placed).view(0, 1))
    reading.start()
    wait_until(lambda: bool(tier.reads))
    shelf = pool._opened
    shutil.rmtree(folder / "filling")
    pool.sweep()
    assert pool.room() is not shelf
    tier.gate.set()
    reading.join()
    settle(pool)
    began = time.monotonic()
    open_remote(other, placed).view(EXTENT_BYTES - 1, 1)
    settle(other)
    assert time.monotonic() - began < 1


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except FileNotFoundError:
        return ""


@pytest.mark.parametrize("at", [0, BLOCK_BYTES + 7, EXTENT_BYTES - 1])
def test_a_flipped_byte_in_an_extent_is_fetched_again(open_pool: OpenPool, tier: FarTier, placed: Placed, at: int) -> None:
    first = open_pool()
    fill(first, placed)
    first.close()
    poke(extent_files(first._folder)[1], at)
    tier.reads.clear()
    second = open_pool()
    opened = open_remote(second, placed)
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered
    assert tier.reads == [(EXTENT_BYTES, EXTENT_BYTES)]
    assert second.counters.bad_extents == 1
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered
    assert len(tier.reads) == 1


def test_a_block_that_is_not_touched_is_not_checked(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    first = open_pool()
    fill(first, placed)
    first.close()
    poke(extent_files(first._folder)[0], 3 * BLOCK_BYTES)
    opened = open_remote(open_pool(), placed)
    tier.reads.clear()
    assert bytes(opened.view(0, 3 * BLOCK_BYTES)) == placed.covered[: 3 * BLOCK_BYTES]
    assert tier.reads == []


def test_a_disk_that_turns_bytes_over_again_and_again_is_damage(
    open_pool: OpenPool, tier: FarTier, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    fetch = pool._fetcher.bring

    def bring_and_poke(*arguments: object) -> object:
        fetch(*arguments)  # type: ignore[arg-type]
        settle(pool)
        found = fetch(*arguments)  # type: ignore[arg-type]
        poke(extent_files(pool._folder)[0], 10)
        return found

    monkeypatch.setattr(pool._fetcher, "bring", bring_and_poke)
    with pytest.raises(Damaged, match="block 0 .* does not match its CRC"):
        opened.view(0, 100)
    assert len(tier.reads) == 3
    assert extent_files(pool._folder) == []


@pytest.mark.parametrize("length", [0, 4096, EXTENT_BYTES - 1, EXTENT_BYTES + 1])
def test_an_extent_of_a_wrong_length_is_fetched_again(open_pool: OpenPool, tier: FarTier, placed: Placed, length: int) -> None:
    first = open_pool()
    fill(first, placed)
    first.close()
    os.truncate(extent_files(first._folder)[0], length)
    tier.reads.clear()
    opened = open_remote(open_pool(), placed)
    assert bytes(opened.view(0, EXTENT_BYTES)) == placed.covered[:EXTENT_BYTES]
    assert tier.reads == [(0, EXTENT_BYTES)]


def test_an_extent_that_shrinks_while_it_is_mapped_is_fetched_again(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    opened.view(0, EXTENT_BYTES)
    settle(pool)
    os.truncate(extent_files(pool._folder)[0], 4096 + 5)
    assert bytes(opened.view(0, 3 * BLOCK_BYTES)) == placed.covered[: 3 * BLOCK_BYTES]
    assert len(tier.reads) == 2


def test_what_a_dead_process_left_is_cleared_and_what_a_living_one_fills_is_not(folder: Path) -> None:
    dead, living = (Shelf(folder, limits(), Disk()) for _ in range(2))
    left, filling = dead.begin(MIB), living.begin(MIB)
    dead.disk.close(dead._own_lock)  # as a death does
    dead.disk.close(left._fd)
    dead.state.close()
    third = Shelf(folder, limits(), Disk())
    assert not left._path.exists() and filling._path.exists()
    assert third.state.used == MIB
    filling.abandon()
    assert third.state.used == 0
    living.close()
    third.close()
    assert sorted(path.name for path in folder.iterdir()) == ["filling", "state"]
    assert list((folder / "filling").iterdir()) == [dead._own] or list((folder / "filling").iterdir()) == []


def test_a_count_that_is_wrong_is_set_right_by_the_first_process(open_pool: OpenPool, placed: Placed) -> None:
    first = open_pool()
    fill(first, placed)
    room = first.room()
    assert room is not None
    room.shelf.state.set_used(10**12)
    second = open_pool()
    open_remote(second, placed).view(0, 1)
    assert second.used_bytes == 10**12  # It is not alone.
    second.close()
    first.close()
    third = open_pool()
    open_remote(third, placed).view(0, 1)
    assert third.used_bytes == len(placed.covered)


# --- a disk that gives no room


class FullDisk(Disk):
    """A disk with so much free space, which takes so many writes."""

    def __init__(self, free: int) -> None:
        self.free = free
        self.writes_left = 1 << 30

    def free_bytes(self, path: Path) -> int:
        return self.free

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        if not self.writes_left:
            raise Exhausted("the disk is full")
        self.writes_left -= 1
        return super().write(fd, parts, offset)


def test_a_full_disk_is_no_reason_not_to_read(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool(disk=FullDisk(free=0))
    opened = open_remote(pool, placed)
    for _ in range(2):
        assert b"".join(opened.views(5, 6 * BLOCK_BYTES)) == placed.covered[5:][: 6 * BLOCK_BYTES]
        settle(pool)
    assert len(tier.reads) == 2
    assert pool.counters.unkept_bytes == sum(length for _, length in tier.reads)
    assert extent_files(pool._folder) == []
    assert pool.used_bytes == 0


@pytest.mark.parametrize(("extent_blocks", "writes"), [(4, 0), (8, 3)])
def test_a_disk_that_is_full_in_the_middle_of_an_extent(open_pool: OpenPool, placed: Placed, extent_blocks: int, writes: int) -> None:
    disk = FullDisk(free=1 << 40)
    length = extent_blocks * BLOCK_BYTES
    pool = open_pool(disk=disk, extent_bytes=length)
    opened = open_remote(pool, placed)
    opened.view(0, 1)
    settle(pool)
    disk.writes_left = writes
    assert bytes(opened.view(0, length)) == placed.covered[:length]
    settle(pool)
    assert pool.counters.unkept_bytes == length
    disk.writes_left = 1 << 30
    assert bytes(opened.view(0, length)) == placed.covered[:length]
    settle(pool)
    assert pool.used_bytes == length
    assert [path for path in (pool._folder / "filling").glob("*/*") if path.name != "owner"] == []


def test_a_large_range_in_one_piece_needs_a_disk(
    open_pool: OpenPool, tier: FarTier, placed: Placed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "JOINED_BYTES_MAX", BLOCK_BYTES)
    pool = open_pool(disk=FullDisk(free=0))
    assert bytes(open_remote(pool, placed).whole(0, 2 * MIB)) == placed.covered[: 2 * MIB]
    monkeypatch.setattr(pool_module, "ANONYMOUS_BYTES_MAX", MIB)
    with pytest.raises(Exhausted, match="need a file, and there is no room for one"):
        open_remote(pool, placed).whole(0, 2 * MIB)


def test_a_folder_that_cannot_be_made_is_no_reason_not_to_read(open_pool: OpenPool, folder: Path, tier: FarTier, placed: Placed) -> None:
    folder.write_text("in the way")
    pool = open_pool()
    opened = open_remote(pool, placed)
    assert bytes(opened.view(0, 100, ahead(0, len(placed.covered)))) == placed.covered[:100]
    wait_until(lambda: not pool._fetcher._flights and not pool._fetcher._aheads)
    assert len(tier.reads) <= 2  # What cannot be kept is not read ahead.
