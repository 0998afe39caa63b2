"""Columns of numbers: what goes in comes out, row by row, and even columns cost next to nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.index.columns import Columns, pack_columns

NUMBERS = st.integers(0, 1 << 70) | st.integers((1 << 63) - 2, (1 << 63) + 2) | st.integers(0, 300)


@given(st.integers(1, 40).flatmap(lambda rows: st.lists(st.lists(NUMBERS, min_size=rows, max_size=rows), min_size=1, max_size=5)))
def test_what_goes_in_comes_out(columns: list[list[int]]) -> None:
    rows = len(columns[0])
    packed = b"before" + pack_columns(columns) + b"behind"
    found = Columns(packed, 6, len(columns), rows)
    assert [found.row(line) for line in range(rows)] == [list(row) for row in zip(*columns, strict=True)]
    assert packed[found.end :] == b"behind"


@pytest.mark.parametrize("start", [(1 << 63) - 40, (1 << 63) - 1, 1 << 63, 10**20, 10**55])
@pytest.mark.parametrize("slope", [1, 7, -1])
def test_lines_beyond_64_bits(start: int, slope: int) -> None:
    """As those of UIDs whose last component has twenty digits and more."""
    numbers = [start + slope * n + n % 2 for n in range(32)]
    found = Columns(pack_columns([numbers]), 0, 1, len(numbers))
    assert [found.row(line)[0] for line in range(len(numbers))] == numbers
    assert [number for (number,) in found.rows(len(numbers))] == numbers


@pytest.mark.parametrize(
    ("numbers", "width"),
    [
        ([7] * 32, 0),
        ([1 << 62] * 32, 0),
        (list(range(5, 5 + 32)), 0),
        (list(range(10**15, 10**15 + 32 * 526_016, 526_016)), 0),
        (list(range(100, 0, -2)), 0),
        ([1000 * n + n % 3 for n in range(32)], 1),
        ([0, 0xFFFFFFFF] * 16, 4),
    ],
)
def test_width_of_the_rests(numbers: list[int], width: int) -> None:
    assert pack_columns([numbers])[0] == width


def test_the_least_start_there_may_be() -> None:
    slope = 7 * 10**18
    numbers = [0, slope, 2 * slope - (1 << 63), 3 * slope]
    found = Columns(pack_columns([numbers]), 0, 1, 4)
    assert [found.row(line)[0] for line in range(4)] == numbers


def test_the_line_of_a_number() -> None:
    for numbers in (list(range(3, 20)), list(range(2, 20, 3)), [3, 4, 9, 11], [5]):
        found = Columns(pack_columns([numbers]), 0, 1, len(numbers))
        assert [found.line_of(n, len(numbers)) for n in range(25)] == [numbers.index(n) if n in numbers else None for n in range(25)]
