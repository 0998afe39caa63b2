"""A pack that lies on another machine, seen through its extents."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from archive.errors import Damaged
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent
from archive.pool.extent_name import ExtentName
from archive.pool.filling import Source
from archive.pool.flights import Outlook
from archive.pool.mapped import check_covered, check_crcs

TRIES = 3
JOINED_BYTES_MAX = 4 << 20


class Near(Protocol):
    """What a pack needs of its pool."""

    counters: PoolCounters

    def bring(self, pack: "RemotePack", start: int, end: int, outlook: Callable[[], Outlook] | None) -> list[Extent]: ...

    def drop(self, extent: Extent) -> None: ...

    def assemble(self, length: int, pieces: Iterator[memoryview]) -> memoryview: ...


class RemotePack:
    """Checked bytes of a pack; what is not near is fetched.

    Parameters
    ----------
    extent_bytes : int
        The grid of extents.
    """

    def __init__(self, near: Near, info: PackInfo, block_crcs: Sequence[int], extent_bytes: int) -> None:
        check_crcs(info, block_crcs)
        self.info, self.digest = info, info.name.digest
        self.source = Source(info, block_crcs)
        self.cells: dict[int, Extent] = {}
        self._near, self._cell_bytes = near, extent_bytes
        self._cell_blocks = extent_bytes // BLOCK_BYTES
        self._blocks = -(-info.covered // BLOCK_BYTES)

    # --- for readers

    def view(self, offset: int, length: int, outlook: Callable[[], Outlook] | None = None) -> memoryview:
        """Checked bytes in one piece; copied where they lie in several extents, so not for long ranges.

        Raises
        ------
        Damaged
            What the tier has is not what was stored.
        NotFound
            The pack is gone: look the instance up again, it may have been compacted.
        Unavailable
            The tier does not answer.
        """
        pieces = self.views(offset, length, outlook)
        return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))

    def views(self, offset: int, length: int, outlook: Callable[[], Outlook] | None = None) -> list[memoryview]:
        """Checked bytes in pieces, none of them copied; raises as `view` does."""
        check_covered(self.info, offset, length)
        if not length:
            return [memoryview(b"")]
        for left in reversed(range(TRIES)):
            extents = self._covering(offset, offset + length)
            if extents is None:
                extents = self._near.bring(self, offset, offset + length, outlook)
            else:
                self._near.counters.hits += 1
            pieces = self._pieces(extents, offset, offset + length, final=not left)
            if pieces is not None:
                return pieces
        raise AssertionError("the last try raises")

    def whole(self, offset: int, length: int) -> memoryview:
        """A range in one piece however large it is: put together in a file without a name where it lies in several extents."""
        if length <= JOINED_BYTES_MAX or self._covering(offset, offset + length, most=1):
            return self.view(offset, length)

        def outlook() -> Outlook:
            return Outlook(ahead=(offset, offset + length))

        def pieces() -> Iterator[memoryview]:
            for at in range(offset, offset + length, JOINED_BYTES_MAX):
                yield from self.views(at, min(JOINED_BYTES_MAX, offset + length - at), outlook)

        return self._near.assemble(length, pieces())

    def _covering(self, start: int, end: int, most: int = 1 << 60) -> list[Extent] | None:
        size, out = self._cell_bytes, []
        for cell in range(start // size, (end - 1) // size + 1):
            extent = self.cells.get(cell)
            if extent is None or extent.start > max(start, cell * size) or extent.end < min(end, cell * size + size):
                return None
            out.append(extent)
        return out if len(out) <= most else None

    def _pieces(self, extents: list[Extent], start: int, end: int, *, final: bool) -> list[memoryview] | None:
        """Views of the extents; None where one was bad, which is gone then and fetched again."""
        out = []
        for extent in extents:
            at = max(start, extent.start // self._cell_bytes * self._cell_bytes)
            until = min(end, (extent.start // self._cell_bytes + 1) * self._cell_bytes)
            try:
                out.append(extent.view(at, until - at))
            except Damaged:
                self.cells.pop(extent.start // self._cell_bytes, None)
                self._near.drop(extent)
                if final:
                    raise
                return None
        return out

    # --- for those who fetch

    def cell_name(self, cell: int) -> ExtentName:
        """The whole extent of a cell; the last one may be short."""
        first = cell * self._cell_blocks
        return ExtentName(self.digest, first, min(self._cell_blocks, self._blocks - first))

    def cut(self, first: int, last: int) -> Iterator[tuple[int, ExtentName]]:
        """A range of blocks, cut where cells end."""
        last = min(last, self._blocks)
        while first < last:
            cell = first // self._cell_blocks
            count = min(last, (cell + 1) * self._cell_blocks) - first
            yield cell, ExtentName(self.digest, first, count)
            first += count

    def cell_part(self, cell: int, span: tuple[int, int] | None) -> ExtentName:
        """What of a cell belongs to a span of blocks; the whole cell where there is none."""
        name = self.cell_name(cell)
        if span is None:
            return name
        first = max(name.first, span[0])
        return ExtentName(self.digest, first, min(name.last, span[1]) - first)

    def put(self, cell: int, extent: Extent) -> None:
        """Keep an extent at hand, unless a longer one is."""
        present = self.cells.get(cell)
        if present is None or present.name.blocks <= extent.name.blocks:
            self.cells[cell] = extent

    def put_away(self, cell: int, extent: Extent) -> None:
        """No longer at hand, as it could not be kept."""
        if self.cells.get(cell) is extent:
            del self.cells[cell]
