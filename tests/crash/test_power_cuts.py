"""Randomised power cuts, a short run of them (the long one: `python -m tests.crash.power_cuts --cuts 10000`); it finds what it is for."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.flow.recovery import _Recovery
from archive.index.packed import PackedIndex
from archive.pack.journal import Journal
from tests.crash.power_cuts import run, tell
from tests.crash.simulated import SimulatedDisk
from tests.crash.wide_world import WideWorld


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_power_cuts() -> None:
    counts = run(seed=1000, stories=30, cuts=1 << 30, seconds=200)
    assert counts["power cuts"] > 100
    assert min(counts[what] for what in ("kills", "failed calls", "acknowledged", "deleted", "flipped bits")) > 0


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_power_cuts_in_a_wider_world() -> None:
    counts = run(seed=1, stories=12, cuts=1 << 30, seconds=200, kind=WideWorld)
    assert counts["stories"] == 12 and counts["power cuts"] > 40


@pytest.mark.parametrize("seed", [20037, 50066, 70148, 300316, 600122, 701066, 710310, 720849])
def test_stories_that_went_wrong_once(seed: int, tmp_path: Path) -> None:
    """Each is a defect that was mended.

    20037: a pack was believed whose name was not durable, since its writer was killed before it synced the folder. 50066: a deletion that
    had failed was done by the next start. 70148: a refused object was taken in. 300316: records went on behind one whose sync had failed.
    600122: the list of segments that hold something was believed though its name was not durable. 701066: a start released the segment of
    a void record before the release of the segment that it spoke of was durable. 710310: a plan's number was published as void, an error
    came behind that, and all records of the plan were forgotten. 720849: a record whose sync had failed was believed by the start after a
    kill, since the kernel still held it.
    """
    tell(seed, tmp_path, Counter())


def nothing(*_: object) -> None:
    """What a node leaves out that is broken."""


def no(*_: object) -> bool:
    return False


BROKEN: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "success is sent before the journal is synced": lambda patch: patch.setattr(Journal, "sync", nothing),
    "a new segment's name is not synced": lambda patch: patch.setattr(SimulatedDisk, "sync_folder", nothing),
    "deletions in the journal are forgotten": lambda patch: patch.setattr(_Recovery, "_take_deletions", nothing),
    "deletions in packs are forgotten": lambda patch: patch.setattr(PackedIndex, "is_revision_deleted", no),
}


@pytest.mark.slow
@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_node_is_found_out(how: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    BROKEN[how](monkeypatch)
    with pytest.raises(AssertionError) as found:
        for seed in range(60):
            tell(seed, tmp_path / str(seed), Counter())
    assert any("seed " in note for note in found.value.__notes__)
