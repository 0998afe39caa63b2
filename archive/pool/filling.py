"""From a tier's bytes to extents: checked as they come, written to files where there is room, kept in memory where there is none."""

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from archive.disk import Bytes
from archive.errors import Damaged, Exhausted
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES, BlockCrcs
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent
from archive.pool.extent_name import KEPT, ExtentName
from archive.pool.health import TierHealth
from archive.pool.mapped import BadBlock
from archive.pool.shelf import Filling, Shelf
from archive.pool.swapping import Swapping
from archive.tier.protocol import Tier

TRIES = 3


class Source(NamedTuple):
    """A pack that lies elsewhere."""

    info: PackInfo
    crcs: Sequence[int]

    def length_of(self, name: ExtentName) -> int:
        """Bytes of an extent: the last block of a pack may be short."""
        return min((name.first + name.blocks) * BLOCK_BYTES, self.info.covered) - name.first * BLOCK_BYTES


class Room(NamedTuple):
    """Where extents are kept."""

    shelf: Shelf
    swapping: Swapping


class Filler:
    """Reads ranges of packs.

    Parameters
    ----------
    room : callable
        Gives the room, None where there is none now.
    health : TierHealth
        Is told when the tier gave some bytes.
    """

    def __init__(self, tier: Tier, room: Callable[[], Room | None], counters: PoolCounters, health: TierHealth) -> None:
        self._tier, self._room, self._counters, self._health = tier, room, counters, health

    def find(self, source: Source, wanted: ExtentName, cell: ExtentName) -> Extent | None:
        """An extent that is here already, as another process fetched it."""
        room = self._room()
        name = mapped = None
        with contextlib.suppress(OSError):  # The pool's own troubles are no reason not to read.
            name = room.shelf.find(wanted, cell) if room else None
            mapped = room.shelf.open(name, source.info.covered) if room and name else None
        if room is None or name is None or mapped is None:
            return None
        return Extent(memoryview(mapped), mapped, name, source.crcs, str(source.info.name), room.shelf)

    def reading(self, source: Source) -> "Reading":
        """A ranged read that begins with the first extent that it is to fill; close it."""
        return Reading(self, source)

    def pieces(self, source: Source, first: int, last: int) -> "_Pieces":
        """The bytes of these blocks as the tier gives them."""
        start = first * BLOCK_BYTES
        length = min(last * BLOCK_BYTES, source.info.covered) - start
        self._counters.reads += 1
        return _Pieces(self._tier.stream(source.info.name, start, length), length, self._counters, self._health)

    def bad_block(self, error: BadBlock, tries_left: int) -> None:
        """Count it; `Damaged` where it came wrong again and again."""
        self._counters.bad_extents += 1
        if not tries_left:
            raise Damaged(f"{error}, {TRIES} times as it came from {self._tier.url}") from error

    def fill(
        self, source: Source, name: ExtentName, pieces: "_Pieces", early: ExtentName | None, arrive: Callable[[Extent], None]
    ) -> Extent:
        """The extent that comes next; its first blocks alone before the rest, if they are wanted `early`.

        These are handed out from memory as soon as their bytes are right: a busy disk takes longer to write them than they took to come.
        """
        length, crcs = source.length_of(name), BlockCrcs()
        head = bytearray()
        if early is not None:
            for piece in pieces.take(source.length_of(early)):
                crcs.update(piece)
                head += piece
            self._check(source, early, crcs.finish())
            self._health.answered()
            arrive(Extent(memoryview(head).toreadonly(), None, early, source.crcs, str(source.info.name), None))
        into = _Into(self._room(), length)
        try:
            if head:
                into.write(memoryview(head))
            for piece in pieces.take(length - len(head)):
                crcs.update(piece)
                into.write(piece)
            self._check(source, name, crcs.finish())
            if len(head) < length:
                self._health.answered()
            return self._publish(source, name, into)
        finally:
            into.close()

    @staticmethod
    def _check(source: Source, name: ExtentName, crcs: list[int]) -> None:
        for number, crc in enumerate(crcs, name.first):
            if crc != source.crcs[number]:
                raise BadBlock(f"pack {source.info.name}: block {number} does not match its CRC")

    def _publish(self, source: Source, name: ExtentName, into: "_Into") -> Extent:
        room, pack = into.room, str(source.info.name)
        if room is not None and into.filling is not None:
            with contextlib.suppress(OSError):
                mapped = publish(room, into.filling, name, into.filling.length)
                return Extent(memoryview(mapped), mapped, name, source.crcs, pack, room.shelf)
            into.to_memory()
        self._counters.unkept_bytes += len(into.memory)
        return Extent(memoryview(into.memory).toreadonly(), None, name, source.crcs, pack, None)


def publish(room: Room, filling: Filling, name: ExtentName, length: int) -> mmap.mmap:
    """An extent to its place; those that lie inside of it go, and what it inherits is their rank."""
    shelf, cell = room.shelf, room.swapping.cell_of(name)
    parts = [path for part, path in shelf.parts(cell) if part != name and name.covers(part)]
    kept = shelf.state.was_given_up(cell.key) or any(path.is_relative_to(shelf.folder / KEPT) for path in parts)
    shelf.state.served[name.key % len(shelf.state.served)] = 0
    mapped = filling.publish(name, length, kept=kept)
    for path in parts:
        shelf.remove(path)
    return mapped


class Reading:
    """One ranged read that extents are filled from, one behind the other; another where a block comes wrong or lies elsewhere."""

    def __init__(self, filler: Filler, source: Source) -> None:
        self._filler, self._source = filler, source
        self._pieces: _Pieces | None = None
        self._at = -1

    def fill(
        self, name: ExtentName, last: int, early: ExtentName | None = None, arrive: Callable[[Extent], None] = lambda _: None
    ) -> Extent:
        """An extent.

        Parameters
        ----------
        last : int
            The block up to which extents will be wanted behind this one.
        early : ExtentName, optional
            The blocks at its start that are handed to `arrive` before the rest has come.

        Raises
        ------
        Damaged
            Bytes came wrong again and again.
        NotFound, Unavailable
            As the tier says.
        """
        tries = TRIES
        while True:
            if self._pieces is None or self._at != name.first or not self._pieces:
                self.close()
                self._pieces = self._filler.pieces(self._source, name.first, max(last, name.last))
            self._at = -1
            try:
                extent = self._filler.fill(self._source, name, self._pieces, early, arrive)
            except BadBlock as error:
                tries -= 1
                self._filler.bad_block(error, tries)
            else:
                self._at = name.last
                return extent

    def close(self) -> None:
        if self._pieces is not None:
            self._pieces.close()


class _Pieces:
    """A ranged read, cut where extents end; it is over for the tier with its last byte, whatever is done with it then."""

    def __init__(self, stream: Iterator[Bytes], length: int, counters: PoolCounters, health: TierHealth) -> None:
        self._stream, self._to_come, self._counters, self._health = stream, length, counters, health
        self._left = memoryview(b"")
        self._is_open = True
        health.begin()

    def __bool__(self) -> bool:
        return bool(self._left) or self._is_open

    def take(self, length: int) -> Iterator[memoryview]:
        while length:
            if not self._left:
                piece = next(self._stream, None)
                if piece is None:
                    raise Damaged(f"a pack ends {length} bytes before it should")
                self._health.heard()
                self._left = memoryview(piece)
                self._to_come -= len(piece)
                self._counters.read_bytes += len(piece)
                if self._to_come <= 0:
                    self.close()
            now, self._left = self._left[:length], self._left[length:]
            length -= len(now)
            yield now

    def close(self) -> None:
        if self._is_open:
            self._is_open = False
            self._health.end()
            closing = getattr(self._stream, "close", None)
            if closing is not None:
                closing()


class _Into:
    """A file of the pool, or memory where the disk does not take it."""

    def __init__(self, room: Room | None, length: int) -> None:
        self.room = room
        self.filling = room.swapping.begin(length) if room else None
        self.memory = bytearray()

    def write(self, piece: memoryview) -> None:
        if self.filling is not None:
            try:
                self.filling.write(piece)
                return
            except (Exhausted, OSError):
                self.to_memory()
        self.memory += piece

    def to_memory(self) -> None:
        if self.filling is not None:
            self.memory = self.filling.read_back()
            self.filling.abandon()
            self.filling = None

    def close(self) -> None:
        if self.filling is not None:
            self.filling.abandon()
