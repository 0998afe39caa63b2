"""docs/journal-format.md says what is written, column by column; its example is what the writer writes."""

from pathlib import Path

import pytest

from archive.disk import LOCAL_DISK
from archive.pack import segment
from archive.pack.checksum import crc32
from archive.pack.frame import HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind
from archive.pack.segment import Segment
from tests.pack.build import NODE
from tests.pack.pages import JOURNAL_PAGE, check_columns, check_example, columns

EPOCH = b"\x11" * 16
NOW_US = 1_700_000_000_000_000
PAYLOAD, DESCRIPTOR = b"PAYLOAD!", b"{}"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """Segment 1 with one record, of sequence 1."""
    monkeypatch.setattr("secrets.token_bytes", lambda length: EPOCH[:length])
    monkeypatch.setattr(segment, "now_us", lambda: NOW_US)
    made = Segment.start(LOCAL_DISK, tmp_path / "1.part", tmp_path / "1.seg", 1, NODE, 8192)
    made.append(Kind.INSTANCE, 0, 1, [PAYLOAD], crc32(PAYLOAD), DESCRIPTOR)
    LOCAL_DISK.close(made.fd)
    return made.path.read_bytes()


def numbers(data: bytes, rows: list[tuple[int, int, str]]) -> dict[str, int]:
    """Little-endian values by the first words of their column."""
    return {field: int.from_bytes(data[offset : offset + length], "little") for offset, length, field in rows}


def value(found: dict[str, int], start: str) -> int:
    (value,) = [number for field, number in found.items() if field.startswith(start)]
    return value


def test_the_segment_header_is_as_the_page_says(example: bytes) -> None:
    rows = columns(JOURNAL_PAGE, "## Segment")
    check_columns(rows, SEGMENT_HEADER_BYTES)
    found = numbers(example, rows)
    assert example[:8] == b"DCMJSEG\0"
    assert {start: value(found, start) for start in ("format version", "minor version", "flags", "segment number", "created")} == {
        "format version": 1,
        "minor version": 0,
        "flags": 0,
        "segment number": 1,
        "created": NOW_US,
    }
    assert value(found, "epoch") == int.from_bytes(EPOCH, "little")
    assert value(found, "UUID of the node") == int.from_bytes(NODE, "little")
    assert value(found, "CRC-32 of bytes 0 to 123") == crc32(example[:124])


def test_a_record_is_as_the_page_says(example: bytes) -> None:
    rows = columns(JOURNAL_PAGE, "## Record")
    check_columns(rows, HEADER_BYTES)
    record = example[SEGMENT_HEADER_BYTES:]
    found = numbers(record, rows)
    assert record[:4] == b"DCMr"
    wanted = {"kind": 1, "flags": 0, "sequence": 1, "payload length": 8, "descriptor length": 2, "written": NOW_US}
    wanted |= {"CRC-32 of the payload": crc32(PAYLOAD), "CRC-32 of the descriptor": crc32(DESCRIPTOR)}
    wanted |= {"CRC-32 of bytes 0 to 123": crc32(record[:124]), "epoch": int.from_bytes(EPOCH, "little")}
    assert {start: value(found, start) for start in wanted} == wanted
    assert record[128 : 128 + 10] == PAYLOAD + DESCRIPTOR
    assert set(record[138:]) == {0}


def test_the_examples(example: bytes) -> None:
    check_example(JOURNAL_PAGE, "segment", example[:HEADER_BYTES])
    check_example(JOURNAL_PAGE, "record", example[SEGMENT_HEADER_BYTES : SEGMENT_HEADER_BYTES + 192])
