"""Several processes over one pool: one fetch, no wrong byte, and what dies leaves no trace that harms."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from archive.pack.checksum import BLOCK_BYTES
from archive.pool.pool import Pool
from tests.kit import ROOT
from tests.pool.far import MIB, FarTier, extent_files, limits, open_remote, place, settle, wait_until

EXTENT_BYTES = 4 * BLOCK_BYTES

READER = """
import os, sys, time
from pathlib import Path
from archive.pool.pool import Pool
from tests.pool.far import FarTier, ahead, limits, open_remote, place, settle, wait_until
root, folder, seconds, log, start = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), Path(sys.argv[4]), float(sys.argv[5])

class Logged(FarTier):
    def stream(self, name, offset, length):
        taken = 0
        log.touch()
        try:
            for number, piece in enumerate(super().stream(name, offset, length)):
                time.sleep(seconds if number else 0)
                taken += len(piece)
                yield piece
        finally:
            with log.open("a") as file:
                file.write(f"{os.getpid()} {offset} {taken}\\n")

placed = place(root, 1, 6 << 20)
pool = Pool(Logged(root), folder, limits(bytes_max=16 << 20))
opened = open_remote(pool, placed)
print("ready", flush=True)
time.sleep(max(0.0, start - time.time()))
for at in range(0, len(placed.covered), 500_000):
    length = min(500_000, len(placed.covered) - at)
    assert b"".join(opened.views(at, length, ahead(0, len(placed.covered)))) == placed.covered[at:][:length], at
print("done", flush=True)
pool.close()
"""


@contextmanager
def readers(count: int, root: Path, folder: Path, log: Path, seconds: float, wait: float = 0.0) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that read a pack through, each piece of the tier's answers this slow; they start together after `wait` seconds."""
    arguments = [str(root), str(folder), str(seconds), str(log), str(time.time() + wait)]
    running = [
        subprocess.Popen([sys.executable, "-c", READER, *arguments], stdout=subprocess.PIPE, text=True, cwd=ROOT) for _ in range(count)
    ]
    try:
        yield running
    finally:
        for process in running:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def being_filled(folder: Path) -> list[Path]:
    return [path for path in (folder / "filling").glob("*/*") if path.name != "owner"]


def _stopped_while_filling(process: subprocess.Popen[str], folder: Path) -> bool:
    """Stop a process, and let it go on where it is not filling an extent just then."""
    process.send_signal(signal.SIGSTOP)
    if being_filled(folder):
        return True
    process.send_signal(signal.SIGCONT)
    return False


def test_processes_that_miss_at_once_fetch_once(tmp_path: Path) -> None:
    placed = place(tmp_path / "far", 1, 6 * MIB)
    log = tmp_path / "reads"
    with readers(3, tmp_path / "far", tmp_path / "pool", log, 0.001, wait=2.0) as running:
        assert [said(process) for process in running] == ["ready"] * 3
        assert [said(process) for process in running] == ["done"] * 3
        assert [process.wait(10) for process in running] == [0] * 3
    reads = [tuple(map(int, line.split())) for line in log.read_text().splitlines()]
    counts = [0] * -(-len(placed.covered) // EXTENT_BYTES)
    for _, offset, length in reads:
        for cell in range(offset // EXTENT_BYTES, -(-(offset + length) // EXTENT_BYTES)):
            counts[cell] += 1
    # An extent is fetched once; where only some blocks of it were asked for first, it is fetched as a whole after them.
    assert max(counts) <= 2, reads
    assert sum(length for _, _, length in reads) <= len(placed.covered) + 2 * EXTENT_BYTES, reads


def test_a_process_killed_while_it_fills_leaves_nothing_that_harms(tmp_path: Path) -> None:
    placed = place(tmp_path / "far", 1, 6 * MIB)
    folder, log = tmp_path / "pool", tmp_path / "reads"
    for _ in range(2):
        with readers(1, tmp_path / "far", folder, log, 0.02) as (process,):
            assert said(process) == "ready"
            wait_until(lambda: _stopped_while_filling(process, folder))  # noqa: B023
            process.kill()
            process.wait()
    assert len(being_filled(folder)) >= 1
    tier = FarTier(tmp_path / "far")
    pool = Pool(tier, folder, limits())
    opened = open_remote(pool, placed)
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered
    settle(pool)
    assert being_filled(folder) == []
    assert len(list((folder / "filling").iterdir())) == 1
    assert pool.used_bytes == sum(path.stat().st_size for path in extent_files(folder))
    assert all(
        path.stat().st_size in (int(path.name[8:]) * BLOCK_BYTES, len(placed.covered) % EXTENT_BYTES) for path in extent_files(folder)
    )
    pool.close()


def test_a_process_that_is_stopped_while_it_fetches_stops_nobody_else(tmp_path: Path) -> None:
    placed = place(tmp_path / "far", 1, 6 * MIB)
    folder, log = tmp_path / "pool", tmp_path / "reads"
    with readers(1, tmp_path / "far", folder, log, 0.05) as (process,):
        wait_until(lambda: log.exists())
        os.kill(process.pid, signal.SIGSTOP)
        pool = Pool(FarTier(tmp_path / "far"), folder, limits(wait_seconds_max=3.0))
        began = time.monotonic()
        assert bytes(open_remote(pool, placed).view(0, 1000)) == placed.covered[:1000]
        assert time.monotonic() - began < 5.0
        pool.close()
        os.kill(process.pid, signal.SIGCONT)
        assert [said(process), said(process)] == ["ready", "done"]
