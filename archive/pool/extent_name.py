"""What an extent is called, and where a file of that name lies in `DIR/pool`."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from archive.pack.checksum import BLOCK_BYTES

NEW, KEPT = "new", "kept"
_EXTENT = re.compile(r"([0-9a-f]{64})/([0-9]+)-([0-9]+)\Z")


class ExtentName(NamedTuple):
    """Blocks `first` to `first + blocks` of the pack with this digest."""

    digest: str
    first: int
    blocks: int

    @classmethod
    def of(cls, path: str) -> "ExtentName | None":
        """What the file at a path is; None where it is no extent, as what a network file system leaves for a while."""
        found = _EXTENT.search(path)
        return cls(found[1], int(found[2]), int(found[3])) if found else None

    def __str__(self) -> str:
        return f"{self.digest[:2]}/{self.digest}/{self.first:07d}-{self.blocks}"

    @property
    def last(self) -> int:
        """The block behind it."""
        return self.first + self.blocks

    def covers(self, other: "ExtentName") -> bool:
        """Whether the other one's blocks are among these, of the same pack."""
        return self.digest == other.digest and self.first <= other.first and other.last <= self.last

    @property
    def key(self) -> int:
        """62 bits that stand for an extent that starts here, whatever its length."""
        return ((int(self.digest[:16], 16) + self.first * 0x9E3779B97F4A7C15) & ((1 << 62) - 1)) or 1


def kept_copies(folder: Path, digest: str, number: int) -> Iterator[bytes]:
    """What files of a pool have of one block of a pack; whoever takes it holds it against its CRC."""
    for part in (NEW, KEPT):
        for path in sorted((folder / part / digest[:2] / digest).glob("*-*")):
            name = ExtentName.of(str(path))
            if name is not None and name.first <= number < name.last:
                with path.open("rb") as file:
                    file.seek((number - name.first) * BLOCK_BYTES)
                    yield file.read(BLOCK_BYTES)
