"""A run of blocks of a pack in memory, each checked the first time that this process touches it."""

import mmap
from collections.abc import Sequence
from pathlib import Path

from archive.disk import Disk, populate
from archive.errors import Damaged
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES, crc32


class BadBlock(Damaged):
    """A block does not match its CRC."""


class Blocks:
    """Contiguous blocks of one pack. Offsets are those of the pack.

    Parameters
    ----------
    view : memoryview
        The bytes, from the first one of block `first` on.
    mapped : mmap or None
        What they are mapped from; None for plain memory.
    first : int
        Number of the first block.
    crcs : sequence of int
        CRC-32 of every block of the pack.
    name : str
        Of the pack, for errors.
    """

    __slots__ = ("_checked", "_crcs", "_file_length", "_mapped", "_name", "_view", "end", "first", "last", "start")

    def __init__(self, view: memoryview, mapped: mmap.mmap | None, first: int, crcs: Sequence[int], name: str) -> None:
        self._view, self._mapped, self._crcs, self._name = view, mapped, crcs, name
        self._file_length = len(mapped) if mapped is not None else 0
        self.first, self.start = first, first * BLOCK_BYTES
        self.last = first + -(-len(view) // BLOCK_BYTES)
        self.end = self.start + len(view)
        self._checked = bytearray(self.last - first)

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes, all inside of this run; they stay valid as long as the view is held.

        Raises
        ------
        BadBlock
            They are not those of the pack.
        Damaged
            They cannot be read.
        """
        at = offset - self.start
        if self._mapped is not None:
            populate(self._mapped, at, length)
            if self._mapped.size() != self._file_length:  # Zeros would stand behind its new end, up to the end of the page.
                raise Damaged(f"pack {self._name}: a file is {self._mapped.size()} bytes long by now, should be {self._file_length}")
        checked = self._checked
        for block in range(at // BLOCK_BYTES, max(at, at + length - 1) // BLOCK_BYTES + 1):
            if not checked[block]:
                self._check(block)
        return self._view[at : at + length]

    def _check(self, block: int) -> None:
        start = block * BLOCK_BYTES
        end = min(start + BLOCK_BYTES, len(self._view))
        if self._mapped is not None:
            populate(self._mapped, start, end - start)
        if crc32(self._view[start:end]) != self._crcs[self.first + block]:
            raise BadBlock(
                f"pack {self._name}: block {self.first + block} (bytes {self.start + start}..{self.start + end}) does not match its CRC"
            )
        self._checked[block] = 1


class MappedPack:
    """One pack that lies on this machine, mapped in place."""

    def __init__(self, path: Path, info: PackInfo, block_crcs: Sequence[int], disk: Disk) -> None:
        fd = disk.open_read(path)
        try:
            length = disk.size(fd)
            if length != info.length:
                raise Damaged(f"pack {info.name} is {length} bytes long, should be {info.length}")
            mapped: mmap.mmap = disk.map_read(fd, length)
        finally:
            disk.close(fd)
        check_crcs(info, block_crcs)
        self.path, self._info = path, info
        self._blocks = Blocks(memoryview(mapped)[: info.covered], mapped, 0, block_crcs, str(info.name))

    def view(self, offset: int, length: int, outlook: object = None) -> memoryview:
        """Checked bytes; they stay valid as long as the view is held. What is read next makes no difference here."""
        check_covered(self._info, offset, length)
        return self._blocks.view(offset, length) if length else memoryview(b"")

    def views(self, offset: int, length: int, outlook: object = None) -> list[memoryview]:
        """The same, in pieces: one."""
        return [self.view(offset, length)]

    def whole(self, offset: int, length: int) -> memoryview:
        """A large range in one piece."""
        return self.view(offset, length)


def check_covered(info: PackInfo, offset: int, length: int) -> None:
    """
    Raises
    ------
    Damaged
        The range is not one that the pack's CRCs cover: what asks for it believes something wrong.
    """
    if offset < 0 or length < 0 or offset + length > info.covered:
        raise Damaged(f"bytes {offset}..{offset + length} of pack {info.name} lie outside of what its CRCs cover")


def check_crcs(info: PackInfo, block_crcs: Sequence[int]) -> None:
    """
    Raises
    ------
    Damaged
        There are not as many as the pack has blocks.
    """
    if len(block_crcs) != -(-info.covered // BLOCK_BYTES):
        raise Damaged(f"the index has {len(block_crcs)} block CRCs of pack {info.name}; stop the node and run rebuild-index")
