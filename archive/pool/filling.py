"""From a tier's bytes to extents: checked as they come, written to files where there is room, kept in memory where there is none."""

import contextlib
import mmap
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from archive.disk import Bytes
from archive.errors import Damaged, Exhausted
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES, BlockCrcs
from archive.pack.naming import PackName
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent
from archive.pool.health import TierHealth
from archive.pool.mapped import BadBlock
from archive.pool.shelf import KEPT, ExtentName, Filling, Shelf
from archive.pool.swapping import Swapping
from archive.tier.protocol import Tier

TRIES = 3
EARLY_BYTES_MAX = 1 << 20


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

    def fill(self, source: Source, wanted: Sequence[ExtentName], early: Callable[[Extent], None] | None) -> Iterator[Extent]:
        """Contiguous extents, in order, each as soon as it is whole; by one ranged read unless a block comes wrong.

        Parameters
        ----------
        early : callable, optional
            Gets each extent as soon as its bytes are right, in memory, before they are written to a file: a busy disk takes longer for
            that than the bytes took to come. For extents up to 1 MiB; larger ones come when they are kept.

        Raises
        ------
        Damaged
            Bytes came wrong again and again.
        NotFound, Unavailable
            As the tier says.
        """
        left, tries = list(wanted), TRIES
        while left:
            start = left[0].first * BLOCK_BYTES
            end = left[-1].first * BLOCK_BYTES + source.length_of(left[-1])
            try:
                with contextlib.closing(_Pieces(self._read(source.info.name, start, end - start), end - start, self._health)) as pieces:
                    while left:
                        extent = self._fill_one(source, left[0], pieces, early)
                        del left[0]
                        tries = TRIES
                        yield extent
            except BadBlock as error:
                tries -= 1
                self._counters.bad_extents += 1
                if not tries:
                    raise Damaged(f"{error}, {TRIES} times as it came from {self._tier.url}") from error

    def _read(self, name: PackName, offset: int, length: int) -> Iterator[Bytes]:
        self._counters.reads += 1
        self._counters.read_bytes += length
        return self._tier.stream(name, offset, length)

    def _fill_one(self, source: Source, name: ExtentName, pieces: "_Pieces", early: Callable[[Extent], None] | None) -> Extent:
        length = source.length_of(name)
        crcs = BlockCrcs()
        in_memory = early is not None and length <= EARLY_BYTES_MAX
        into = _Into(None if in_memory else self._room(), length)
        try:
            for piece in pieces.take(length):
                crcs.update(piece)
                into.write(piece)
            self._check(source, name, crcs.finish())
            self._health.answered()
            if in_memory and early is not None:
                memory = into.memory
                early(Extent(memoryview(memory).toreadonly(), None, name, source.crcs, str(source.info.name), None))
                into = _Into(self._room(), length)
                into.write(memoryview(memory))
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
    """An extent to its place; shorter ones of the same cell go, and what it inherits is their rank."""
    shelf, cell = room.shelf, room.swapping.cell_of(name)
    parts = [path for part, path in shelf.parts(cell) if part != name]
    kept = shelf.state.was_given_up(cell.key) or any(path.is_relative_to(shelf.folder / KEPT) for path in parts)
    shelf.state.served[name.key % len(shelf.state.served)] = 0
    mapped = filling.publish(name, length, kept=kept)
    for path in parts:
        shelf.remove(path)
    return mapped


class _Pieces:
    """A ranged read, cut where extents end; it is over for the tier with its last byte, whatever is done with it then."""

    def __init__(self, stream: Iterator[Bytes], length: int, health: TierHealth) -> None:
        self._stream, self._to_come, self._health = stream, length, health
        self._left = memoryview(b"")
        self._open = True
        health.begin()

    def take(self, length: int) -> Iterator[memoryview]:
        while length:
            if not self._left:
                piece = next(self._stream, None)
                if piece is None:
                    raise Damaged(f"a pack ends {length} bytes before it should")
                self._health.heard()
                self._left = memoryview(piece)
                self._to_come -= len(piece)
                if self._to_come <= 0:
                    self.close()
            now, self._left = self._left[:length], self._left[length:]
            length -= len(now)
            yield now

    def close(self) -> None:
        if self._open:
            self._open = False
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
