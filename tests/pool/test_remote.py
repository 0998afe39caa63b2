"""Packs on another machine: exactly what is asked for first, whole extents then, the series behind it, always the pack's own bytes."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from archive.errors import Damaged, NotFound
from archive.pack.checksum import BLOCK_BYTES
from archive.pool.flights import Outlook
from archive.pool.pool import Pool
from archive.pool.remote import JOINED_BYTES_MAX
from tests.pool.far import MIB, FarTier, Placed, ahead, extent_files, open_remote, place, settle, wait_until

OpenPool = Callable[..., Pool]
EXTENT_BYTES = 4 * BLOCK_BYTES


def test_a_miss_reads_the_blocks_that_are_asked_for(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    assert bytes(opened.view(BLOCK_BYTES + 5, 10)) == placed.covered[BLOCK_BYTES + 5 :][:10]
    assert tier.reads == [(BLOCK_BYTES, BLOCK_BYTES)]
    assert bytes(opened.view(2 * BLOCK_BYTES - 1, 1)) == placed.covered[2 * BLOCK_BYTES - 1 :][:1]
    assert len(tier.reads) == 1


def test_who_comes_back_for_more_of_an_extent_gets_all_of_it(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    opened.view(0, 10)
    opened.view(BLOCK_BYTES, 10)
    assert tier.reads == [(0, BLOCK_BYTES), (0, EXTENT_BYTES)]
    assert bytes(opened.view(0, EXTENT_BYTES)) == placed.covered[:EXTENT_BYTES]
    assert len(tier.reads) == 2


def test_a_range_over_several_extents_is_one_read_and_comes_in_pieces(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    start, length = 3 * BLOCK_BYTES + 7, 5 * BLOCK_BYTES
    pieces = opened.views(start, length)
    assert tier.reads == [(3 * BLOCK_BYTES, 6 * BLOCK_BYTES)]
    assert [len(piece) for piece in pieces] == [BLOCK_BYTES - 7, EXTENT_BYTES, 7]
    assert b"".join(pieces) == placed.covered[start:][:length] == bytes(opened.view(start, length))
    assert all(piece.readonly for piece in pieces)
    assert len(tier.reads) == 1


def test_a_range_of_many_extents_is_several_reads(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    large = place(tier._root, 2, 9 * MIB)
    assert b"".join(open_remote(open_pool(), large).views(100, 8 * MIB)) == large.covered[100:][: 8 * MIB]
    assert sorted(tier.reads) == [(0, 4 * EXTENT_BYTES), (4 * EXTENT_BYTES, 4 * EXTENT_BYTES), (8 * EXTENT_BYTES, BLOCK_BYTES)]


@pytest.mark.parametrize("what", ["view", "views", "whole"])
def test_the_end_of_a_pack_and_empty_ranges(open_pool: OpenPool, tier: FarTier, placed: Placed, what: str) -> None:
    opened = open_remote(open_pool(), placed)
    end = len(placed.covered)
    for offset in (0, 1, BLOCK_BYTES, end):
        assert b"".join(opened.views(offset, 0)) == b"" == bytes(opened.view(offset, 0)) == bytes(opened.whole(offset, 0))
    assert tier.reads == []
    assert bytes(opened.view(end - 3, 3)) == placed.covered[-3:]
    for offset, length in ((0, end + 1), (end, 1), (-1, 2), (1, -1), (2**40, 1)):
        with pytest.raises(Damaged, match="lie outside of what its CRCs cover"):
            getattr(opened, what)(offset, length)


def test_what_is_wanted_at_once_comes_in_the_same_read_and_the_series_behind_it(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    outlook = Outlook(((0, 2 * BLOCK_BYTES - 100), (2 * BLOCK_BYTES - 100, 3 * BLOCK_BYTES)), (0, len(placed.covered)))
    opened.view(0, 500, lambda: outlook)
    assert tier.reads[0] == (0, 3 * BLOCK_BYTES)
    wait_until(lambda: pool.counters.ahead_bytes == len(placed.covered))
    settle(pool)
    reads = len(tier.reads)
    assert [path.name for path in extent_files(pool._folder)] == ["0000000-4", "0000004-4", "0000008-4", "0000012-1"]
    assert tier.read_bytes == len(placed.covered) + 3 * BLOCK_BYTES
    assert b"".join(opened.views(0, len(placed.covered))) == placed.covered
    assert len(tier.reads) == reads == 2


def test_what_is_wanted_at_once_elsewhere_comes_at_the_same_time(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    far_frame = (9 * BLOCK_BYTES, 10 * BLOCK_BYTES)
    opened.view(0, 500, lambda: Outlook((far_frame,)))
    wait_until(lambda: len(tier.reads) == 2)
    opened.view(*far_frame[:1], BLOCK_BYTES)
    assert sorted(tier.reads) == [(0, BLOCK_BYTES), (9 * BLOCK_BYTES, BLOCK_BYTES)]


def test_the_outlook_is_only_asked_for_where_something_is_missing(open_pool: OpenPool, placed: Placed) -> None:
    opened = open_remote(open_pool(), placed)
    opened.view(0, 10)

    def outlook() -> Outlook:
        raise AssertionError("nobody needs it")

    opened.view(20, 10, outlook)


@pytest.mark.parametrize(("bound", "extents"), [({"ahead_bytes_max": 2 * EXTENT_BYTES}, 2), ({"ahead_bytes_max": 0}, 0)])
def test_no_more_is_read_ahead_than_the_bound(
    open_pool: OpenPool, tier: FarTier, placed: Placed, bound: dict[str, int], extents: int
) -> None:
    pool = open_pool(**bound)
    opened = open_remote(pool, placed)
    opened.view(0, BLOCK_BYTES, ahead(0, len(placed.covered)))
    settle(pool)
    assert pool.counters.ahead_bytes == extents * EXTENT_BYTES
    assert len(extent_files(pool._folder)) == max(1, extents)


def test_reading_ahead_goes_on_behind_the_reader_and_ends_before_it(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    start = 2 * EXTENT_BYTES + BLOCK_BYTES
    opened.view(start, 10, ahead(0, len(placed.covered)))
    settle(pool)
    assert [offset for offset, _ in tier.reads] == [start, 2 * EXTENT_BYTES, 0]
    assert pool.counters.read_bytes == tier.read_bytes == len(placed.covered) + BLOCK_BYTES


def test_who_misses_a_second_frame_of_a_series_is_reading_it_through(open_pool: OpenPool, tier: FarTier) -> None:
    """From then on one read goes on behind what is asked for, as long as nobody else was at it."""
    pool = open_pool()
    large = place(tier._root, 2, 12 * MIB)
    opened, series = open_remote(pool, large), ahead(0, len(large.covered))
    opened.view(0, 10, series)
    opened.view(EXTENT_BYTES, 10, series)
    settle(pool)
    assert tier.reads[:2] == [(0, BLOCK_BYTES), (EXTENT_BYTES, -(-len(large.covered) // BLOCK_BYTES) * BLOCK_BYTES - EXTENT_BYTES)] or (
        tier.reads[1] == (EXTENT_BYTES, len(large.covered) - EXTENT_BYTES)
    )
    assert len(tier.reads) == 3  # and what lay before
    assert opened.cells.keys() == set(range(-(-len(large.covered) // EXTENT_BYTES)))


def test_a_series_that_is_read_through_is_one_read_from_the_first_byte_on(open_pool: OpenPool, tier: FarTier) -> None:
    pool = open_pool()
    large = place(tier._root, 2, 12 * MIB)
    opened = open_remote(pool, large)
    start, end = BLOCK_BYTES + 100, 10 * MIB + 5
    found = [
        piece
        for at in range(start, end, MIB)
        for piece in opened.views(at, min(MIB, end - at), lambda: Outlook(ahead=(start, end), through=True))
    ]
    assert b"".join(found) == large.covered[start:end]
    settle(pool)
    assert tier.reads == [(BLOCK_BYTES, 10 * MIB)]
    assert tier.read_bytes == 10 * MIB


def test_a_reader_elsewhere_goes_before_what_is_read_ahead(open_pool: OpenPool, tier: FarTier) -> None:
    """Somebody who jumps from series to series waits for none of them."""
    pool = open_pool()
    large = place(tier._root, 2, 12 * MIB)
    opened = open_remote(pool, large)
    for at in range(0, 12 * MIB, 2 * MIB):
        opened.view(at, 10, ahead(at, at + 2 * MIB))
    assert len(tier.reads) == 6
    settle(pool)
    assert len(tier.reads) == 12


def test_a_large_range_in_one_piece_takes_no_memory_of_its_own(open_pool: OpenPool, tier: FarTier) -> None:
    large = place(tier._root, 3, 24 * MIB)
    pool = open_pool()
    whole = open_remote(pool, large).whole(1000, 20 * MIB)
    assert len(whole) == 20 * MIB > JOINED_BYTES_MAX
    assert bytes(whole) == large.covered[1000:][: 20 * MIB]
    assert type(whole.obj).__name__ == "mmap"
    assert len(list((pool._folder / "filling").rglob("*"))) == 2  # the folder of this process, and the file that says so


def test_a_range_inside_of_one_extent_is_not_copied(open_pool: OpenPool, placed: Placed) -> None:
    pool = open_pool()
    opened = open_remote(pool, placed)
    opened.view(5, 3 * BLOCK_BYTES)
    settle(pool)
    view = opened.view(5, 100)
    assert view.obj is opened.view(7, 50).obj is opened.whole(5, 3 * BLOCK_BYTES - 5).obj
    assert type(view.obj).__name__ == "mmap"


def test_a_missing_pack_is_to_be_looked_up_again(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    (tier._root / str(placed.name)).unlink()
    opened = open_remote(open_pool(), placed)
    with pytest.raises(NotFound, match=f"pack {placed.name} is not in file://"):
        opened.view(0, 10)


def test_a_pack_that_ends_early_is_damaged(open_pool: OpenPool, tier: FarTier, placed: Placed) -> None:
    path = tier._root / str(placed.name)
    path.write_bytes(placed.data[: 2 * BLOCK_BYTES])
    opened = open_remote(open_pool(), placed)
    with pytest.raises(Damaged):
        opened.view(2 * BLOCK_BYTES - 10, 20)
    assert bytes(opened.view(0, 10)) == placed.data[:10]


def test_an_index_with_another_number_of_blocks_is_damaged(open_pool: OpenPool, placed: Placed) -> None:
    with pytest.raises(Damaged, match="the index has 12 block CRCs"):
        open_pool().open(placed.info, lambda: placed.tail.block_crcs[:-1])


def test_packs_are_told_apart_by_their_digest(open_pool: OpenPool, tier: FarTier, placed: Placed, folder: object) -> None:
    """Another index may give them other numbers."""
    other = place(tier._root, 2)
    first, second = open_pool(), open_pool()
    assert bytes(open_remote(first, placed).view(0, 100)) == placed.covered[:100]
    assert bytes(open_remote(first, other).view(0, 100)) == other.covered[:100]
    swapped = second.open(replace(other.info, pack_id=1), lambda: other.tail.block_crcs)
    assert bytes(swapped.view(0, 100)) == other.covered[:100]
    assert len(tier.reads) == 2
