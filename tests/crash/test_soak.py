"""A short soak; what counts as growth; the chart."""

from pathlib import Path

import pytest

from tests.crash.soak import SETTINGS, soak
from tests.crash.soak_watch import DESCRIPTORS, INDEX, MEMORY, Series, draw, growing, table
from tests.kit import Node


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    """Nothing is lost or wrong; whether it stays flat takes longer to see."""
    node = Node(tmp_path / "data", SETTINGS)
    try:
        work, watch = soak(node, tmp_path, seed=3, seconds=12, every_seconds=0.5)
    finally:
        node.kill()
    for what in ("objects acknowledged", "images read", "studies read", "studies by C-GET", "studies deleted", "rude peers"):
        assert work.counts[what] > 0, work.counts
    assert {"supervisor", "dimse-0", "packer-0", "web-0"} <= set(watch.found[MEMORY])
    assert len(watch.found[INDEX]["index"].values) >= 10


@pytest.mark.parametrize(
    ("values", "grows"),
    [
        ([5, 90, 90, 90, 90, 90, 90, 90], False),  # It had to get warm.
        ([50, 50, 50, 50, 500, 60, 60, 50], False),  # A peak is none.
        ([50, 50, 50, 50, 70, 80, 90, 100], True),
    ],
)
def test_what_grows(values: list[float], grows: bool) -> None:
    found = {DESCRIPTORS: {"web-0": Series([float(n) for n in range(len(values))], values)}}
    assert growing(found) == (["descriptors of web-0 went from 50 to 95"] if grows else [])


def test_what_was_deleted_may_be_remembered() -> None:
    found = {INDEX: {"index": Series([float(n) for n in range(8)], [1.0, 2, 3, 4, 5, 6, 7, 8])}}
    assert growing(found, deleted=10_000) == []
    assert growing(found, deleted=1000) == ["pages of LMDB of index went from 4 to 8 MiB"]


def test_the_chart_and_the_table(tmp_path: Path) -> None:
    found = {MEMORY: {"web-0": Series([0.0, 60.0], [70.0, 71.0])}}
    for name in ("a.svg", "b.svg"):
        draw(tmp_path / name, "a minute", found)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert b"web-0" in (tmp_path / "a.svg").read_bytes()
    assert table(found)[-1] == "| memory besides mapped pages, web-0 (MiB) | 71 | 71 | 71 |"
