"""The bound holds, readers are not harmed, and a scan flushes nothing that is read again and again."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from archive.disk import Disk
from archive.pack.checksum import BLOCK_BYTES
from archive.pool import pool as pool_module
from archive.pool.counters import PoolCounters
from archive.pool.pool import Pool
from archive.pool.remote import RemotePack
from tests.kit import ROOT
from tests.pool.far import MIB, FarTier, Placed, ahead, extent_files, limits, open_remote, place, settle, wait_until

OpenPool = Callable[..., Pool]
EXTENT_BYTES = 4 * BLOCK_BYTES
BOUND = 16 * MIB


def read_through(pool: Pool, placed: Placed, step: int = 300_000) -> None:
    """As a viewer does: image by image, reading ahead."""
    opened = open_remote(pool, placed)
    for at in range(0, len(placed.covered), step):
        opened.views(at, min(step, len(placed.covered) - at), ahead(0, len(placed.covered)))


def disk_bytes(pool: Pool) -> int:
    return sum(path.stat().st_size for path in pool._folder.rglob("*") if path.is_file() and path.name not in ("state", "owner"))


@pytest.fixture
def packs(tier: FarTier) -> list[Placed]:
    """Ten packs of 4 MiB each; the pool holds four of them at most."""
    return [place(tier._root, n, 4 * MIB - BLOCK_BYTES) for n in range(1, 11)]


def test_the_bound_holds(open_pool: OpenPool, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    most = 0
    for placed in packs:
        read_through(pool, placed)
        most = max(most, pool.used_bytes, disk_bytes(pool))
    settle(pool)
    assert BOUND // 2 < most <= BOUND
    assert pool.used_bytes == disk_bytes(pool)
    assert pool.counters.evictions > 0
    assert pool.counters.evicted_bytes == pool.counters.read_bytes - disk_bytes(pool) - replaced(pool)


def replaced(pool: Pool) -> int:
    """Bytes that came as a part of an extent, and again with all of it."""
    return pool.counters.read_bytes - pool.counters.evicted_bytes - disk_bytes(pool)


def test_a_pool_of_several_processes_keeps_one_bound(open_pool: OpenPool, packs: list[Placed]) -> None:
    pools = [open_pool(bytes_max=BOUND) for _ in range(3)]
    for number, placed in enumerate(packs):
        read_through(pools[number % 3], placed)
        settle(pools[number % 3])
        assert disk_bytes(pools[0]) <= BOUND
    assert pools[0].used_bytes == pools[1].used_bytes == disk_bytes(pools[0])


def test_a_view_outlives_its_extent_and_the_next_reader_fetches_it_anew(open_pool: OpenPool, tier: FarTier, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    opened = open_remote(pool, packs[0])
    views = opened.views(0, len(packs[0].covered))
    for placed in packs[1:]:
        read_through(pool, placed)
        settle(pool)
    pool.sweep()
    assert not any(packs[0].name.digest in str(path) for path in extent_files(pool._folder))
    assert b"".join(views) == packs[0].covered
    assert opened.cells == {}
    reads = len(tier.reads)
    assert bytes(opened.view(0, 10)) == packs[0].covered[:10]
    assert len(tier.reads) == reads + 1


def test_what_another_process_gave_up_is_let_go(open_pool: OpenPool, packs: list[Placed]) -> None:
    """Its disk space comes back once nobody has it mapped."""
    first, second = open_pool(bytes_max=BOUND), open_pool(bytes_max=BOUND)
    opened = open_remote(first, packs[0])
    opened.views(0, len(packs[0].covered))
    for placed in packs[1:]:
        read_through(second, placed)
    wait_until(lambda: opened.cells == {})


# --- scans


def warm(pool: Pool, placed: Placed, times: int = 3) -> None:
    for _ in range(times):
        read_through(pool, placed)
        settle(pool)


def misses_of(pool: Pool, placed: Placed) -> int:
    before = pool.counters.misses
    read_through(pool, placed)
    return pool.counters.misses - before


def test_a_scan_does_not_flush_what_is_read_again(open_pool: OpenPool, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    hot = packs[:2]
    for placed in hot:
        warm(pool, placed)
    for placed in packs[2:] * 2:  # four times the bound, once each and again
        read_through(pool, placed)
    settle(pool)
    assert [misses_of(pool, placed) for placed in hot] == [0, 0]


def test_what_is_read_once_is_what_goes(open_pool: OpenPool, packs: list[Placed]) -> None:
    """The same without reading again: this is what the other test would see if nothing were kept apart."""
    pool = open_pool(bytes_max=BOUND)
    for placed in packs[:2]:
        warm(pool, placed, times=1)
    for placed in packs[2:]:
        read_through(pool, placed)
    settle(pool)
    assert all(misses_of(pool, placed) for placed in packs[:2])


def test_frames_read_again_through_several_processes_count_together(open_pool: OpenPool, packs: list[Placed]) -> None:
    pools = [open_pool(bytes_max=BOUND) for _ in range(4)]
    for pool in pools:
        read_through(pool, packs[0])
        settle(pool)
    for pool in pools:
        pool.sweep()
    assert {path.relative_to(pools[0]._folder).parts[0] for path in extent_files(pools[0]._folder)} == {"kept"}


def test_frames_of_one_reading_do_not_count_as_reading_again(open_pool: OpenPool, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    opened = open_remote(pool, packs[0])
    for at in range(0, 3 * MIB, 50_000):  # header, then frame
        opened.view(at, 2000)
        opened.view(at, 50_000)
    pool.sweep()
    assert {path.relative_to(pool._folder).parts[0] for path in extent_files(pool._folder)} == {"new"}


def test_the_kept_are_not_kept_for_ever(open_pool: OpenPool, tier: FarTier) -> None:
    """When others are read again and again, those that are not any more make room."""
    packs = [place(tier._root, n, MIB) for n in range(20, 40)]
    pool = open_pool(bytes_max=BOUND)
    for placed in packs:
        warm(pool, placed, times=3)
    assert disk_bytes(pool) <= BOUND
    assert misses_of(pool, packs[0]) > 0
    assert misses_of(pool, packs[-1]) == 0


def test_what_was_given_up_lately_and_comes_back_is_kept(open_pool: OpenPool, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    for placed in packs[:5]:
        read_through(pool, placed)
        settle(pool)
    pool.sweep()
    given_up = [n for n, placed in enumerate(packs[:5]) if not any(placed.name.digest in str(path) for path in extent_files(pool._folder))]
    assert given_up
    opened = open_remote(pool, packs[given_up[-1]])
    opened.view(0, EXTENT_BYTES)
    settle(pool)
    assert [path.relative_to(pool._folder).parts[0] for path in extent_files(pool._folder) if opened.digest in str(path)] == ["kept"]


def test_the_longest_unused_goes_first(open_pool: OpenPool, tier: FarTier, packs: list[Placed]) -> None:
    pool = open_pool(bytes_max=BOUND)
    for placed in packs[:3]:
        read_through(pool, placed)
        settle(pool)
    pool.tell_use()
    now = time.time()
    for age, placed in ((300, packs[1]), (200, packs[0]), (100, packs[2])):
        for path in extent_files(pool._folder):
            if placed.name.digest in str(path):
                os.utime(path, (now - age, now - age))
    room = pool.room()
    assert room is not None
    assert room.swapping.make_room(0, least=3 * EXTENT_BYTES + BLOCK_BYTES) == len(packs[1].covered)
    left = [sum(placed.name.digest in str(path) for path in extent_files(pool._folder)) for placed in packs[:3]]
    assert left == [4, 0, 4]


def test_what_all_processes_counted(open_pool: OpenPool, packs: list[Placed]) -> None:
    pools = [open_pool(bytes_max=BOUND) for _ in range(2)]
    for number, placed in enumerate(packs):
        read_through(pools[number % 2], placed)
        settle(pools[number % 2])
    for pool in pools:
        pool.sweep()
        pool.sweep()  # which counts nothing twice
    for name in PoolCounters.__dataclass_fields__:
        assert getattr(pools[0].totals(), name) == sum(getattr(pool.counters, name) for pool in pools), name
    assert pools[0].totals().evictions > 0
    before = pools[0].totals()
    for pool in pools:
        pool.close()
    assert open_pool(bytes_max=BOUND).totals() == before


# --- room on the disk


class SmallDisk(Disk):
    """A disk of so many bytes beside which only the pool lives."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder, self.size_bytes = folder, size

    def free_bytes(self, path: Path) -> int:
        used = 0
        for path in self.folder.rglob("*"):
            with suppress(FileNotFoundError):
                used += path.stat().st_size if path.is_file() and path.name != "state" else 0
        return self.size_bytes - used


def test_the_pool_gives_up_space_where_the_disk_runs_short(open_pool: OpenPool, folder: Path, packs: list[Placed]) -> None:
    disk = SmallDisk(folder, 100 * MIB)
    pool = open_pool(bytes_max=64 * MIB, free_bytes_min=50 * MIB, disk=disk)
    for placed in packs[:5]:
        read_through(pool, placed)
        settle(pool)
    assert disk_bytes(pool) > 15 * MIB
    disk.size_bytes = 60 * MIB  # Somebody else writes.
    read_through(pool, packs[5])
    settle(pool)
    assert disk_bytes(pool) <= 10 * MIB + 4 * EXTENT_BYTES  # as many may come at once
    assert disk.free_bytes(folder) >= 50 * MIB - 4 * EXTENT_BYTES
    assert misses_of(pool, packs[5]) == 0
    assert limits().bytes_max > disk_bytes(pool)


@pytest.mark.parametrize("name", [".nfs0001", "1-", "x/0000000-4"])
def test_a_file_that_is_no_extent_is_left_alone(open_pool: OpenPool, packs: list[Placed], name: str) -> None:
    pool = open_pool(bytes_max=BOUND)
    read_through(pool, packs[0])
    stray = extent_files(pool._folder)[0].parent / name
    if "/" in name:
        stray = stray.parent.parent.parent / name
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"stray")
    os.utime(stray, (1, 1))
    for placed in packs[1:]:
        read_through(pool, placed)
    assert stray.read_bytes() == b"stray"
    assert pool.counters.evictions


def test_the_sweeper_outlives_what_it_does_not_know(
    open_pool: OpenPool, packs: list[Placed], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pool_module, "SWEEP_SECONDS", 0.01)
    pool = open_pool(bytes_max=BOUND)
    monkeypatch.setattr(pool, "tell_use", lambda: 1 // 0)
    open_remote(pool, packs[0]).view(0, 1)
    wait_until(lambda: caplog.text.count("ZeroDivisionError") > 2)


def test_readers_and_evictions_at_once(open_pool: OpenPool, packs: list[Placed]) -> None:
    """Several readers of more than the pool holds: every byte is right, and the bound holds."""
    pools = [open_pool(bytes_max=BOUND) for _ in range(2)]
    errors: list[BaseException] = []

    def read(number: int) -> None:
        try:
            for turn in range(12):
                placed = packs[(number * 3 + turn) % len(packs)]
                opened: RemotePack = open_remote(pools[number % 2], placed)
                offset = turn * 250_000
                assert b"".join(opened.views(offset, 700_000, ahead(0, len(placed.covered)))) == placed.covered[offset:][:700_000]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=read, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    for pool in pools:
        settle(pool)
    assert disk_bytes(pools[0]) <= BOUND
    assert abs(pools[0].used_bytes - disk_bytes(pools[0])) <= EXTENT_BYTES


PRESENT = """
import resource, sys
from pathlib import Path
from tests.pool.far import FarTier, limits, open_remote, place
from archive.pool import pool as pool_module
from archive.pool.counters import PoolCounters
from archive.pool.pool import Pool
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
pool = Pool(FarTier(Path(sys.argv[1])), Path(sys.argv[2]), limits())
placed = place(Path(sys.argv[1]), 1, 24 << 20)
opened = open_remote(pool, placed)
for at in range(0, len(placed.covered), 500_000):
    assert b"".join(opened.views(at, min(500_000, len(placed.covered) - at))) == placed.covered[at:][:500_000]
print(len(opened.cells))
pool.close()
"""


def test_no_more_extents_are_mapped_than_a_process_may_open_files(tier: FarTier, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PRESENT, tier._root, folder], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 15
