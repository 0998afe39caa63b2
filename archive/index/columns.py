"""Columns of whole numbers: each number is a straight line through its column plus a rest of a fixed width.

So numbers that are equal or grow evenly cost nothing, and one row is read without the others. First a byte a column, the width of its
rests; then the formats of all starts and all slopes (letters of Python's `struct`: b, h, i or q), these themselves, little endian, and
the rests, column by column.
"""

import struct
from collections.abc import Iterator, Sequence
from itertools import accumulate

_LETTERS = "bbhiiqqqq"
_SIGNED_64 = range(1 - (1 << 63), 1 << 63)


def pack_columns(columns: Sequence[Sequence[int]]) -> bytes:
    """Columns of as many numbers each, of any size from 0 on."""
    lines = [_line(numbers) for numbers in columns]
    told = [start for _, start, _, _ in lines] + [slope for _, _, slope, _ in lines]
    letters = "".join([_LETTERS[number.bit_length() // 8 + 1] for number in told])
    widths = bytes([width for width, _, _, _ in lines])
    return b"".join([widths, letters.encode(), struct.pack(f"<{letters}", *told), *[rests for _, _, _, rests in lines]])


def _line(numbers: Sequence[int]) -> tuple[int, int, int, bytes]:
    """Width, start, slope and rests of a column."""
    start, slope = numbers[0], 0
    if start in _SIGNED_64 and numbers.count(start) == len(numbers):
        return 0, start, 0, b""
    start = min(numbers)
    width = _width(max(numbers) - start)
    slanted = (numbers[-1] - numbers[0]) // (len(numbers) - 1 or 1)
    if slanted in _SIGNED_64:
        rests = [number - line * slanted for line, number in enumerate(numbers)]
        low = min(rests)
        if low in _SIGNED_64 and _width(max(rests) - low) < width:
            width, start, slope, numbers = _width(max(rests) - low), low, slanted, rests
    if start not in _SIGNED_64:
        start, slope, width = 0, 0, _width(max(numbers))
    return width, start, slope, b"".join([(number - start).to_bytes(width, "little") for number in numbers])


def _width(number: int) -> int:
    return (number.bit_length() + 7) // 8


class Columns:
    """Columns as they lie in some bytes.

    Attributes
    ----------
    end : int
        Where what follows them begins.
    """

    __slots__ = ("_columns", "_data", "end")

    def __init__(self, data: bytes, at: int, columns: int, rows: int) -> None:
        widths, letters = data[at : at + columns], f"<{data[at + columns : at + 3 * columns].decode()}"
        told = struct.unpack_from(letters, data, at + 3 * columns)
        *places, self.end = accumulate([width * rows for width in widths], initial=at + 3 * columns + struct.calcsize(letters))
        self._data = data
        self._columns = list(zip(widths, told[:columns], told[columns:], places, strict=True))

    def row(self, line: int) -> list[int]:
        """The numbers of one row."""
        data = self._data
        return [
            start + slope * line + int.from_bytes(data[at + width * line : at + width * (line + 1)], "little")
            if width
            else start + slope * line
            for width, start, slope, at in self._columns
        ]

    def rows(self, rows: int) -> Iterator[tuple[int, ...]]:
        """The numbers of every row."""
        return zip(*[self._numbers(rows, *column) for column in self._columns], strict=True)

    def _numbers(self, rows: int, width: int, start: int, slope: int, at: int) -> Sequence[int]:
        if not width:
            return range(start, start + slope * rows, slope) if slope else [start] * rows
        rests = [int.from_bytes(self._data[place : place + width], "little") for place in range(at, at + width * rows, width)]
        return [start + slope * line + rest for line, rest in enumerate(rests)] if slope else [start + rest for rest in rests]

    def line_of(self, number: int, rows: int) -> int | None:
        """The row that has a number in the first column, whose numbers are all different."""
        width, start, slope, _ = self._columns[0]
        if not width and slope:
            line, left = divmod(number - start, slope)
            return line if not left and 0 <= line < rows else None
        return next((line for line in range(rows) if self.row(line)[0] == number), None)
