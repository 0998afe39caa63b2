"""One damaged pack put together again, block by block, from wherever a block is still whole; its digest proves the outcome."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator

from archive.errors import ArchiveError, Damaged, NotFound, Unavailable, UnknownFormat
from archive.flow.copies import JournalCopies
from archive.flow.home import Home
from archive.index.located import Located, PackPlace
from archive.index.packed import Extent, PackInfo
from archive.pack.bit_flip import without_flip
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.locator import LOCATOR_BYTES, Locator
from archive.pack.naming import BLOCK_CRCS_ENTRY, PackName
from archive.pack.pack_reader import PackTail, read_blocks, read_tail
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX, tail_of
from archive.pack.walking import walk
from archive.pack.zip_format import place
from archive.pool.extent_name import kept_copies
from archive.tier.protocol import Tier


class Mending:
    """A pack's bytes, each block from the first place that has it whole.

    Attributes
    ----------
    info : PackInfo or None
        What the index says of it.
    length, covered : int
        Of the pack; 0 where nothing says it.
    used : Counter of str
        From where how many blocks came.
    """

    def __init__(self, home: Home, name: PackName, copies: JournalCopies, replica: Tier | None = None) -> None:
        self._home, self.name, self._copies = home, name, copies
        self._tiers = {"the tier": home.tier, **({"the replica": replica} if replica else {})}
        self.used: Counter[str] = Counter()
        self._last: tuple[int, bytes | None] = (-1, None)
        self._tail: bytes | None = None
        self.info, self.rows = self._indexed()
        self.length, self.covered, self._crcs = self._frame()

    def _indexed(self) -> tuple[PackInfo | None, list[Located]]:
        packed = self._home.index.packed
        try:
            with packed.environment.reading() as t:
                info = packed.find_pack(t, self.name.node, self.name.sequence)
                if info is None or info.name != self.name:
                    return None, []
                return info, [i for _, i in packed.instances(t, Extent(info.pack_id, 0, INSTANCES_PER_PACK_MAX, 0, 0, 0))]
        except Damaged:
            return None, []

    def _frame(self) -> tuple[int, int, list[int]]:
        for tier in self._tiers.values():
            try:
                locator, crcs = read_blocks(tier.length(self.name), lambda offset, length, tier=tier: tier.read(self.name, offset, length))  # type: ignore[misc]
            except (Unavailable, UnknownFormat):
                raise
            except ArchiveError:
                continue
            return locator.length, locator.covered, crcs
        if self.info is None:
            return 0, 0, []
        try:
            with self._home.index.packed.environment.reading() as t:
                return self.info.length, self.info.covered, list(self._home.index.packed.block_crcs(t, self.info.pack_id))
        except Damaged:
            return 0, 0, []

    # --- bytes

    def raw(self, offset: int, length: int, label: str = "the tier") -> bytes:
        """Bytes as they rest, checked by nothing; fewer, or none, where the file ends."""
        tier = self._tiers[label]
        try:
            there = tier.length(self.name)
            return tier.read(self.name, offset, min(length, there - offset)) if offset < there else b""
        except (Unavailable, UnknownFormat):
            raise
        except (ArchiveError, OSError):
            return b""

    def block(self, number: int) -> bytes | None:
        """A block that matches its CRC; None where there is none."""
        if self._last[0] != number:
            self._last = (number, self._find(number) if number < len(self._crcs) else None)
        return self._last[1]

    def _find(self, number: int) -> bytes | None:
        start, wanted = number * BLOCK_BYTES, self._crcs[number]
        length = min(BLOCK_BYTES, self.covered - start)
        tries: list[tuple[str, Callable[[], Iterator[bytes]]]] = [
            *((label, lambda label=label: iter([self.raw(start, length, label)])) for label in self._tiers),
            ("the pool", lambda: kept_copies(self._home.settings.node.data / "pool", self.name.digest, number)),
            ("the journal", lambda: iter([self._overlaid(start, length)])),
            ("its checksum", lambda: iter([without_flip(self.raw(start, length), wanted) or b""])),
            ("the journal and its checksum", lambda: iter([without_flip(self._overlaid(start, length), wanted) or b""])),
        ]
        for label, found in tries:
            for data in found():
                if len(data) == length and crc32(data) == wanted:
                    self.used[label] += 1
                    return data
        return None

    def _overlaid(self, start: int, length: int) -> bytes:
        """The block with every object in it as the journal has it."""
        data = bytearray(self.raw(start, length).ljust(length, b"\0"))
        for row in self.rows:
            assert isinstance(row.place, PackPlace)
            first, last = max(start, row.place.offset), min(start + length, row.place.offset + row.length)
            if first < last:
                found = self._copies.read(row.length, row.crc, first - row.place.offset, last - first)
                if found is not None:
                    data[first - start : last - start] = found
        return bytes(data)

    def read(self, offset: int, length: int) -> bytes:
        """Checked bytes of the whole pack.

        Raises
        ------
        Damaged
            They are nowhere whole.
        """
        if not self.length:
            raise Damaged(f"pack {self.name}: nothing says what lies in it")
        parts: list[bytes] = []
        end = min(offset + length, self.covered)
        at = offset
        while at < end:
            number = at // BLOCK_BYTES
            block = self.block(number)
            if block is None:
                raise Damaged(f"pack {self.name}: block {number} is nowhere whole")
            parts.append(block[at - number * BLOCK_BYTES : end - number * BLOCK_BYTES])
            at += len(parts[-1])
        if offset + length > self.covered:
            start = max(offset, self.covered) - self.covered
            parts.append(self.tail()[start : offset + length - self.covered])
        return b"".join(parts)

    def tail(self) -> bytes:
        """What follows the covered bytes: as it rests where it is whole, else made anew from what it describes."""
        if self._tail is None:
            for label in self._tiers:
                data = self.raw(self.covered, self.length - self.covered, label)
                if len(data) == self.length - self.covered and _is_whole(data):
                    self._tail = data
                    self.used[label] += 1
                    break
            else:
                entries = list(walk(self.read, 0, self.covered))
                table = place(BLOCK_CRCS_ENTRY, 4 * len(self._crcs), self.covered)
                self._tail = b"".join(tail_of(entries, table, self._crcs))
                self.used["what it describes"] += 1
        return self._tail

    # --- the outcome

    def stream(self) -> Iterator[bytes]:
        """The whole pack; `Damaged` where a part of it is nowhere."""
        self.read(0, 0)
        for number in range(len(self._crcs)):
            yield self.read(number * BLOCK_BYTES, min(BLOCK_BYTES, self.covered - number * BLOCK_BYTES))
        yield self.tail()

    def is_possible(self) -> bool:
        """Whether all of it can be had, as it was: its digest says so."""
        whole = hashlib.sha256()
        self.used.clear()
        self._last = (-1, None)
        try:
            for piece in self.stream():
                whole.update(piece)
        except Damaged:
            return False
        return whole.hexdigest() == self.name.digest

    def is_resting(self) -> bool:
        """Whether it rests as it was, after `is_possible`."""
        return set(self.used) <= {"the tier"} and self.rest_length() == self.length

    def rest_length(self) -> int:
        """Of what rests under its name; 0 without anything."""
        try:
            return self._home.tier.length(self.name)
        except NotFound:
            return 0

    def content(self) -> PackTail | None:
        """What the pack says of itself, where that can be had."""
        try:
            return read_tail(self.length, self.read) if self.length else None
        except Damaged:
            return None


def _is_whole(tail: bytes) -> bool:
    try:
        locator = Locator.unpack(tail[-LOCATOR_BYTES:])
    except (Damaged, UnknownFormat):
        return False
    return crc32(tail[:-LOCATOR_BYTES]) == locator.tail_crc
