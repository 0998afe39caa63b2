"""Ranges of packs as mapped memory. Packs of a tier on this machine are mapped in place; others come with extents of their own."""

import contextlib
import mmap
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from archive.disk import LOCAL_DISK, Disk, populate
from archive.errors import Damaged, NotFound, Unavailable
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.tier.protocol import Tier

MAPPED_PACKS_MAX = 256


class MappedPack:
    """One pack in memory; each block is checked the first time that this process touches it.

    Parameters
    ----------
    block_crcs : sequence of int
        CRC-32 of each 256 KiB of the first `covered` bytes.
    """

    def __init__(self, path: Path, info: PackInfo, block_crcs: Sequence[int], disk: Disk) -> None:
        fd = disk.open_read(path)
        try:
            length = disk.size(fd)
            if length != info.length:
                raise Damaged(f"pack {info.name} is {length} bytes long, should be {info.length}")
            self._mapped: mmap.mmap = disk.map_read(fd, length)
        finally:
            disk.close(fd)
        if len(block_crcs) != -(-info.covered // BLOCK_BYTES):
            raise Damaged(f"the index has {len(block_crcs)} block CRCs of pack {info.name}; stop the node and run rebuild-index")
        self._info, self._crcs = info, block_crcs
        self._view = memoryview(self._mapped)
        self._checked = bytearray(len(block_crcs))

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes; they stay valid as long as the view is held."""
        if offset < 0 or length < 0 or offset + length > self._info.covered:
            raise Damaged(f"bytes {offset}..{offset + length} of pack {self._info.name} lie outside of what its CRCs cover")
        populate(self._mapped, offset, length)
        if self._mapped.size() != self._info.length:  # Zeros would stand behind its new end, up to the end of the page.
            raise Damaged(f"pack {self._info.name} is {self._mapped.size()} bytes long by now, should be {self._info.length}")
        for block in range(offset // BLOCK_BYTES, -(-(offset + length) // BLOCK_BYTES)):
            if not self._checked[block]:
                self._check(block)
        return self._view[offset : offset + length]

    def _check(self, block: int) -> None:
        start = block * BLOCK_BYTES
        end = min(start + BLOCK_BYTES, self._info.covered)
        populate(self._mapped, start, end - start)
        if crc32(self._view[start:end]) != self._crcs[block]:
            raise Damaged(f"pack {self._info.name}: block {block} (bytes {start}..{end}) does not match its CRC")
        self._checked[block] = 1


class Pool:
    """Packs that this process has mapped, the least recently used given up beyond a bound."""

    def __init__(self, tier: Tier, disk: Disk = LOCAL_DISK) -> None:
        self._tier, self._disk = tier, disk
        self._lock = threading.Lock()
        self._mapped: OrderedDict[int, MappedPack] = OrderedDict()

    def open(self, info: PackInfo, block_crcs: Callable[[], Sequence[int]]) -> MappedPack:
        """A pack, ready to be viewed.

        Raises
        ------
        NotFound
            The pack is not in the tier: look the instance up again, it may have been compacted.
        Damaged
            It has another length than it should.
        """
        with self._lock:
            found = self._mapped.get(info.pack_id)
            if found is not None:
                self._mapped.move_to_end(info.pack_id)
                return found
        path = self._tier.local_path(info.name)
        if path is None:
            raise Unavailable(f"pack {info.name} does not lie on this machine")
        try:
            opened = MappedPack(path, info, block_crcs(), self._disk)
        except FileNotFoundError:
            raise NotFound(f"pack {info.name} is not in {self._tier.url}") from None
        except OSError as error:
            raise Unavailable(f"pack {info.name}: {error.strerror}") from error
        with self._lock:
            self._mapped[info.pack_id] = opened
            while len(self._mapped) > MAPPED_PACKS_MAX:
                self._mapped.popitem(last=False)  # Views that are out keep their mapping alive.
        return opened

    def forget(self, pack_id: int) -> None:
        with self._lock, contextlib.suppress(KeyError):
            del self._mapped[pack_id]
