"""A far tier with a pack, and pools over it."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.disk import LOCAL_DISK
from archive.pool.pool import Pool
from tests.pool.far import FarTier, Placed, limits, place


@pytest.fixture
def tier(tmp_path: Path) -> FarTier:
    return FarTier(tmp_path / "far")


@pytest.fixture
def placed(tmp_path: Path) -> Placed:
    """A pack of 3 MiB and a bit: 13 blocks, 4 extents of 4 blocks."""
    return place(tmp_path / "far")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pool"


@pytest.fixture
def open_pool(tier: FarTier, folder: Path) -> Iterator[Callable[..., Pool]]:
    """`open_pool(bytes_max=...)`: a pool over the tier, closed at the end."""
    opened: list[Pool] = []

    def open_it(**changes: Any) -> Pool:
        disk = changes.pop("disk", LOCAL_DISK)
        pool = Pool(tier, folder, limits(**changes), disk)
        opened.append(pool)
        return pool

    yield open_it
    tier.gate.set()
    for pool in opened:
        pool.close()
