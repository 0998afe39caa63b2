"""An extent in this process: blocks, and when they were used."""

import mmap
import time
from collections.abc import Sequence

from archive.pack.checksum import BLOCK_BYTES
from archive.pool.extent_name import ExtentName
from archive.pool.mapped import Blocks
from archive.pool.shelf import Shelf
from archive.pool.state import SERVED_SLOTS


class Extent(Blocks):
    """Blocks that came near.

    Parameters
    ----------
    shelf : Shelf or None
        Where its file lies; None for one that could not be kept.
    """

    __slots__ = ("name", "shelf", "slot", "told_at", "used_at")

    def __init__(
        self, view: memoryview, mapped: mmap.mmap | None, name: ExtentName, crcs: Sequence[int], pack: str, shelf: Shelf | None
    ) -> None:
        super().__init__(view, mapped, name.first, crcs, pack)
        self.name, self.shelf = name, shelf
        self.slot = name.key % SERVED_SLOTS
        self.used_at = self.told_at = 0.0

    def __len__(self) -> int:
        return self.end - self.start

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes, counted as used."""
        found = super().view(offset, length)
        if self.shelf is not None:
            self.used_at = time.time()
            self.shelf.state.served[self.slot] += length
        return found


def block_range(start: int, end: int) -> tuple[int, int]:
    """First block, and the one behind the last, of bytes `start` to `end`."""
    return start // BLOCK_BYTES, -(-end // BLOCK_BYTES)
