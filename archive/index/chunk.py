"""Instances of one series that lie one after the other in a pack, up to 32 in one value of table `instances`.

A value: `_HEAD` (rows, code of the series, kinds, columns, base of the rests of the UIDs, length of what all UIDs begin with); what they
begin with; the kinds (`_KIND`); columns (`archive.index.columns`: ordinal, kind, offset, length, data set offset, CRC-32, sequence,
received, rest of the UID, numbers of the frame table); 16 bytes of digest a row; frame tables that are kept whole.
"""

import os.path
import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from archive.index.columns import Columns, pack_columns

ROWS_MAX = 32
"""Four chunks of plain images share a page of LMDB, and a lookup reads one chunk."""
DIGEST_BYTES = 16
_HEAD = struct.Struct("<HIHBBH")
_KIND = struct.Struct("<IIIIBB")


class Kind(NamedTuple):
    """What most instances of a series have in common.

    Attributes
    ----------
    node, sop_class, syntax, layout : int
        Codes; `layout` of the frame table without its numbers, 0 where there is none.
    is_whole : bool
        The frame table is kept whole.
    further : bool
        Another revision was known under the UID when this one came.
    """

    node: int
    sop_class: int
    syntax: int
    layout: int
    is_whole: bool
    further: bool


class InstanceRow(NamedTuple):
    """An instance as a chunk has it.

    Attributes
    ----------
    ordinal : int
        Among the instances of the pack, from 0.
    numbers : tuple of int
        Of the frame table, where its layout is a code.
    frames : bytes
        The frame table, where it is kept whole.
    """

    ordinal: int
    kind: Kind
    offset: int
    length: int
    data_set_offset: int
    crc: int
    sequence: int
    received_us: int
    sop_instance_uid: str
    digest: bytes
    numbers: tuple[int, ...]
    frames: bytes = b""

    @property
    def end(self) -> int:
        return self.offset + self.length


def pack_chunk(series: int, rows: Sequence[InstanceRow]) -> bytes:
    """Rows of one series, in order of their ordinals."""
    ordinals, kinds, *plain, uids, digests, numbers, frames = zip(*rows, strict=True)
    known = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    tables = b"".join(frames)
    if tables:
        at, placed = 0, []
        for row in rows:
            placed.append((at, len(row.frames)) if row.kind.is_whole else row.numbers)
            at += len(row.frames)
        numbers = tuple(placed)
    more = max(map(len, numbers))
    if any(len(n) < more for n in numbers):
        numbers = tuple((*n, *[0] * (more - len(n))) for n in numbers)
    begin, base, rests = _split_uids(uids)
    columns = [ordinals, [known[kind] for kind in kinds], *plain, rests, *zip(*numbers, strict=True)]
    return b"".join(
        [
            _HEAD.pack(len(rows), series, len(known), len(columns), base, len(begin)),
            begin,
            *[_KIND.pack(*kind) for kind in known],
            pack_columns(columns),
            *digests,
            tables,
        ]
    )


class Chunk:
    """A value of table `instances`, read row by row."""

    def __init__(self, value: bytes) -> None:
        self._value = value
        self.rows, self.series, kinds, columns, self._base, begin = _HEAD.unpack_from(value)
        at = _HEAD.size + begin
        self._begin = value[_HEAD.size : at].decode()
        self._kinds = [_kind(*_KIND.unpack_from(value, at + number * _KIND.size)) for number in range(kinds)]
        self._columns = Columns(value, at + kinds * _KIND.size, columns, self.rows)

    def __iter__(self) -> Iterator[InstanceRow]:
        return map(self._row, range(self.rows), self._columns.rows(self.rows))

    def row(self, line: int) -> InstanceRow:
        """A row by its place in the chunk; the last is -1."""
        line %= self.rows
        return self._row(line, self._columns.row(line))

    def find(self, ordinal: int) -> InstanceRow | None:
        line = self._columns.line_of(ordinal, self.rows)
        return None if line is None else self._row(line, self._columns.row(line))

    def _row(self, line: int, told: Sequence[int]) -> InstanceRow:
        ordinal, kind_number, offset, length, data_set_offset, crc, sequence, received_us, rest, *more = told
        kind, numbers, frames = self._kinds[kind_number], tuple(more), b""
        digests = self._columns.end
        if kind.is_whole:
            at = digests + DIGEST_BYTES * self.rows + numbers[0]
            frames, numbers = self._value[at : at + numbers[1]], ()
        at = digests + DIGEST_BYTES * line
        uid = self._begin + _rest_of_uid(self._base, rest)
        digest = self._value[at : at + DIGEST_BYTES]
        return InstanceRow(ordinal, kind, offset, length, data_set_offset, crc, sequence, received_us, uid, digest, numbers, frames)


def _kind(node: int, sop_class: int, syntax: int, layout: int, is_whole: int, further: int) -> Kind:
    return Kind(node, sop_class, syntax, layout, bool(is_whole), bool(further))


# --- UIDs: what all begin with as text, then a number; 1 goes before its digits, for they may begin with 0

_DECIMAL, _HEXADECIMAL, _BYTES = 10, 16, 0


def _split_uids(uids: Sequence[str]) -> tuple[bytes, int, list[int]]:
    common = os.path.commonprefix(uids)
    begin = common[: common.rfind(".") + 1]
    rests = [uid[len(begin) :] for uid in uids]
    every = "".join(rests)
    if every.isascii() and every.isdigit():
        return begin.encode(), _DECIMAL, [int(f"1{rest}") for rest in rests]
    if every.isascii() and every.replace(".", "").isdigit():
        return begin.encode(), _HEXADECIMAL, [int("1" + rest.replace(".", "a"), 16) for rest in rests]
    return begin.encode(), _BYTES, [int.from_bytes(b"\1" + rest.encode()) for rest in rests]


def _rest_of_uid(base: int, number: int) -> str:
    if base == _DECIMAL:
        return str(number)[1:]
    if base == _HEXADECIMAL:
        return f"{number:x}"[1:].replace("a", ".")
    return number.to_bytes(number.bit_length() // 8 + 1)[1:].decode()
