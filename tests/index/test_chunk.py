"""Instances of a series in one value, frame tables and attributes beside them: what goes in comes out."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.dicom.json import dumps
from archive.index.attribute_rows import INSTANCE_LEVEL, SERIES_LEVEL, only, pack_rows, unpack_rows
from archive.index.chunk import Chunk, InstanceRow, Kind, pack_chunk
from archive.index.frame_table import join_frames, split_frames, whole_frames

KINDS = [Kind(1, 2, 3, 4, is_whole=False, further=False), Kind(9, 2, 1 << 31, 0, is_whole=False, further=True)]
WHOLE = Kind(1, 2, 3, 0, is_whole=True, further=False)


def rows_of(uids: list[str]) -> list[InstanceRow]:
    random.seed(len(uids))
    out = []
    for n, uid in enumerate(uids):
        kind = [*KINDS, WHOLE][n % 3]
        frames = random.randbytes(n * 10) if kind.is_whole else b""
        numbers = () if kind.is_whole else tuple(random.randrange(1 << 40) for _ in range(n % 5))
        offset, length, start, crc, sequence, received_us = [random.randrange(1 << bits) for bits in (40, 34, 12, 32, 50, 51)]
        plain = (offset, length, start, crc, sequence, received_us)
        out.append(InstanceRow(7 + 2 * n, kind, *plain, uid, random.randbytes(16), numbers, frames))
    return out


@pytest.mark.parametrize(
    "uids",
    [
        ["1.2.3"],
        [f"1.2.840.113619.{n}" for n in range(1, 33)],
        [f"1.2.{n}.1.{n * 7}" for n in range(32)],
        [f"2.25.{random.Random(n).getrandbits(128)}" for n in range(32)],
        ["1.2.01", "1.2.1", "1.2.001", "1.2.0", "1.2.0.1"],
        ["1.2.3", "1.2.3", "1.2.3"],
        ["1.2.", "1.2.3", "1.2..", ""],
        ["1.2.3", "no UID", "1.2.ä", "1.2.¼", "1.2.a"],
        ["1.2.²", "1.2.٣"],
        ["9" * 64, "1" * 64],
    ],
)
def test_a_chunk_gives_back_its_rows(uids: list[str]) -> None:
    rows = rows_of(uids)
    chunk = Chunk(pack_chunk(77, rows))

    def same(found: InstanceRow, row: InstanceRow) -> bool:
        numbers = found.numbers[: len(row.numbers)]  # The others may have more.
        return found._replace(numbers=numbers) == row

    assert chunk.series == 77
    assert all(same(found, row) for found, row in zip(chunk, rows, strict=True))
    assert same(chunk.row(-1), rows[-1])
    for row in rows:
        found = chunk.find(row.ordinal)
        assert found is not None and same(found, row)
        assert chunk.find(row.ordinal + 1) is None


def test_plain_images_take_27_bytes_each() -> None:
    random.seed(1)
    numbers, length = (1, 1200, 524_288, 0), 526_000
    rows = [
        InstanceRow(n, KINDS[0], n * 526_016, length, 300, random.getrandbits(32), n, n, f"1.2.{n}", random.randbytes(16), numbers, b"")
        for n in range(32)
    ]
    assert len(pack_chunk(1, rows)) < 27 * 32


@pytest.mark.parametrize(
    ("pixels", "is_whole"),
    [
        ({"tag": "7FE00010", "number_of_frames": 1, "offset": 5964, "length": 32768, "frame_bits": 262144}, False),
        ({"tag": "7FE00010", "number_of_frames": 1, "offset": 10, "length": 0, "frame_bits": 0, "fragments": [4711]}, False),
        ({"tag": "7FE00010", "fragments": list(range(1000)), "starts": [0, 500]}, True),
        ({"text": ":7,", "other": [-5, 1.5, None, True], "nested": {"a": [[0], 12]}}, False),
        ({"text": "#", "number": 5}, True),
        ({"text": ":007,"}, True),
        ({}, False),
    ],
)
def test_frame_tables(pixels: dict[str, Any], is_whole: bool) -> None:
    layout, numbers, frames = split_frames(pixels)
    assert bool(frames) == is_whole
    found = whole_frames(frames) if is_whole else join_frames(layout, (*numbers, 0, 0))
    assert dumps(found) == dumps(pixels)


def test_layouts_are_few() -> None:
    layouts = {
        split_frames({"tag": "7FE00010", "number_of_frames": 1, "offset": n, "length": 3 * n, "frame_bits": 0, "fragments": [n]})[0]
        for n in range(100)
    }
    assert len(layouts) == 1


VALUES = st.sampled_from(
    [
        {"vr": "IS", "Value": [1]},
        {"vr": "IS", "Value": [2]},
        {"vr": "LO"},
        {"vr": "LO", "Value": ["ä"]},
        {"vr": "LO", "Value": ["a", "b"]},
        {"vr": "LO", "Value": [None]},
        {"vr": "SQ", "Value": [{}]},
        {"vr": "OB", "InlineBinary": "AA=="},
    ]
)
ATTRIBUTES = st.dictionaries(st.sampled_from(["00080020", "00080060", "00100010", "00200013", "00080018", "00091001"]), VALUES)


@given(st.lists(ATTRIBUTES, min_size=1, max_size=6))
def test_rows_of_attributes(attributes: list[dict[str, Any]]) -> None:
    packed = pack_rows(attributes)
    for level in (INSTANCE_LEVEL, SERIES_LEVEL):
        found = unpack_rows(packed, level)
        assert found == [only(one, level) for one in attributes]
        assert all(list(one) == sorted(one) for one in found)
