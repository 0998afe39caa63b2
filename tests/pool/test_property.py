"""Whatever is read, given up, damaged and restarted in whatever order: the bytes are those of the pack, and the bound holds."""

import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archive.pack.checksum import BLOCK_BYTES
from archive.pool.pool import Pool
from tests.pool.far import MIB, FarTier, Placed, ahead, extent_files, limits, open_remote, place, settle

PACKS = 3
BOUND = 4 * MIB
STEP = st.one_of(
    st.tuples(st.just("view"), st.integers(0, PACKS - 1), st.integers(0, 2**31), st.integers(0, 700_000), st.booleans()),
    st.tuples(st.just("whole"), st.integers(0, PACKS - 1), st.integers(0, 2**31), st.integers(0, 1_500_000)),
    st.tuples(st.just("evict"), st.integers(0, 3 * MIB)),
    st.tuples(st.just("flip"), st.integers(0, 2**31)),
    st.tuples(st.just("cut"), st.integers(0, 2**31)),
    st.tuples(st.just("remove"), st.integers(0, 2**31)),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("restart")),
    st.tuples(st.just("other")),
)


class Machine:
    """Two pools over one folder, and the plain bytes that they must give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tier = FarTier(folder / "far")
        self.packs: list[Placed] = [place(folder / "far", n, 1_200_000 + 77 * n) for n in range(1, PACKS + 1)]
        self.pools = [self.opened(), self.opened()]
        self.kept: list[tuple[memoryview, bytes]] = []

    def opened(self) -> Pool:
        return Pool(self.tier, self.folder / "pool", limits(bytes_max=BOUND, extent_bytes=2 * BLOCK_BYTES))

    def run(self, step: tuple[object, ...]) -> None:
        method: Callable[..., None] = getattr(self, f"do_{step[0]}")
        spoils = step[0] in ("flip", "cut", "remove")
        with suppress(FileNotFoundError) if spoils else nullcontext():  # The sweeper may move a file that is about to be spoiled.
            method(*step[1:])
        for pool in self.pools:
            settle(pool)
        total = 0
        for path in extent_files(self.folder / "pool"):
            with suppress(FileNotFoundError):
                total += path.stat().st_size
        assert total <= BOUND

    def do_view(self, number: int, at: int, length: int, reads_ahead: bool) -> None:
        data = self.packs[number].covered
        offset = at % len(data)
        length = min(length, len(data) - offset)
        opened = open_remote(self.pools[0], self.packs[number])
        pieces = opened.views(offset, length, ahead(0, len(data)) if reads_ahead else None)
        assert b"".join(pieces) == data[offset : offset + length] == bytes(opened.view(offset, length))
        self.kept += [(piece, bytes(piece)) for piece in pieces[:1]]

    def do_whole(self, number: int, at: int, length: int) -> None:
        data = self.packs[number].covered
        offset = at % len(data)
        length = min(length, len(data) - offset)
        assert bytes(open_remote(self.pools[0], self.packs[number]).whole(offset, length)) == data[offset : offset + length]

    def do_evict(self, least: int) -> None:
        room = self.pools[0].room()
        assert room is not None
        room.swapping.make_room(0, least=least)

    def pick(self, seed: int) -> Path | None:
        """An extent's file; its mapped views are forgotten, for what follows changes what they are views of."""
        for pool in self.pools:
            settle(pool)
        files = extent_files(self.folder / "pool")
        if files:
            self.kept.clear()
        return files[seed % len(files)] if files else None

    def do_flip(self, seed: int) -> None:
        self.restart()  # Who checked the block before would not look again.
        path = self.pick(seed)
        if path is not None:
            data = bytearray(path.read_bytes() or b"x")
            data[seed % len(data)] ^= 1 << seed % 8
            path.write_bytes(data)

    def do_cut(self, seed: int) -> None:
        path = self.pick(seed)
        if path is not None:
            with path.open("r+b") as file:
                file.truncate(seed % max(1, path.stat().st_size))

    def do_remove(self, seed: int) -> None:
        path = self.pick(seed)
        if path is not None:
            path.unlink()

    def do_sweep(self) -> None:
        self.pools[0].sweep()

    def do_other(self) -> None:
        self.pools.reverse()

    def do_restart(self) -> None:
        self.restart()

    def restart(self) -> None:
        for pool in self.pools:
            pool.close()
        self.pools = [self.opened(), self.opened()]

    def close(self) -> None:
        assert all(bytes(view) == data for view, data in self.kept)  # What was given out stays as it was.
        for pool in self.pools:
            pool.close()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(STEP, min_size=3, max_size=12))
def test_views_are_the_bytes_of_packs(steps: list[tuple[object, ...]]) -> None:
    folder = Path(tempfile.mkdtemp())
    machine = Machine(folder)
    try:
        for step in steps:
            machine.run(step)
    finally:
        machine.close()
        shutil.rmtree(folder)


@pytest.mark.parametrize("seed", range(2))
def test_long_lives(seed: int, tmp_path: Path) -> None:
    """More steps in a row than the shrinking search tries."""
    chosen = random.Random(seed)
    machine = Machine(tmp_path)
    for _ in range(80):
        kind = chosen.choice(("view", "view", "view", "whole", "evict", "flip", "cut", "remove", "sweep", "other", "restart"))
        numbers = {
            "view": (chosen.randrange(PACKS), chosen.getrandbits(31), chosen.randrange(700_000), chosen.random() < 0.5),
            "whole": (chosen.randrange(PACKS), chosen.getrandbits(31), chosen.randrange(1_500_000)),
            "evict": (chosen.randrange(3 * MIB),),
        }
        seeded = (chosen.getrandbits(31),) if kind in ("flip", "cut", "remove") else ()
        machine.run((kind, *numbers.get(kind, seeded)))
    machine.close()
