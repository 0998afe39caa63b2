"""Headers of segments and records: what is written is read, what is not whole is none."""

import pytest

from archive.errors import UnknownFormat
from archive.pack.checksum import crc32
from archive.pack.frame import HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind, RecordHeader, SegmentHeader, align
from tests.pack.build import NODE, flipped

EPOCH = bytes(range(100, 116))
SEGMENT = SegmentHeader(EPOCH, NODE, 7, 1_700_000_000_000_000)
RECORD = RecordHeader(Kind.INSTANCE, 0, EPOCH, 2**40, 2**33, 513, 1_700_000_000_000_000, 0xFFFFFFFF, 1)


def with_crc(header: bytes) -> bytes:
    return header[:124] + crc32(header[:124]).to_bytes(4, "little") + header[128:]


def test_a_segment_header_comes_back() -> None:
    data = SEGMENT.pack()
    assert len(data) == SEGMENT_HEADER_BYTES
    assert SegmentHeader.unpack(data) == SEGMENT


def test_a_segment_header_with_any_bit_turned_over_is_none() -> None:
    data = SEGMENT.pack()
    assert all(SegmentHeader.unpack(flipped(data, bit // 8, bit % 8)) is None for bit in range(8 * HEADER_BYTES))


def test_a_short_segment_header_is_none() -> None:
    data = SEGMENT.pack()
    assert all(SegmentHeader.unpack(data[:length]) is None for length in range(HEADER_BYTES))


@pytest.mark.parametrize(("at", "value", "said"), [(8, 2, "format version 2"), (12, 4, "flags 0x4")])
def test_a_newer_segment_is_refused_by_name(at: int, value: int, said: str) -> None:
    newer = bytearray(SEGMENT.pack())
    newer[at] = value
    with pytest.raises(UnknownFormat, match=f"journal segment 7 has .*{said}.*knows version 1"):
        SegmentHeader.unpack(with_crc(bytes(newer)))


def test_a_minor_version_is_no_matter() -> None:
    newer = bytearray(SEGMENT.pack())
    newer[10] = 9
    assert SegmentHeader.unpack(with_crc(bytes(newer))) == SEGMENT


def test_a_record_header_comes_back() -> None:
    data = RECORD.pack()
    assert len(data) == HEADER_BYTES
    assert RecordHeader.unpack(data, EPOCH) == RECORD
    assert RECORD.descriptor_offset == HEADER_BYTES + 2**33
    assert RECORD.total_length == align(HEADER_BYTES + 2**33 + 513)


def test_a_record_header_with_any_bit_turned_over_is_none() -> None:
    data = RECORD.pack()
    assert all(RecordHeader.unpack(flipped(data, bit // 8, bit % 8), EPOCH) is None for bit in range(8 * HEADER_BYTES))


def test_a_record_of_another_life_is_none() -> None:
    assert RecordHeader.unpack(RECORD.pack(), bytes(16)) is None


def test_a_kind_that_is_not_known_is_read_all_the_same() -> None:
    data = with_crc(b"DCMr" + (99).to_bytes(2, "little") + b"\1\0" + RECORD.pack()[8:])
    found = RecordHeader.unpack(data, EPOCH)
    assert found is not None
    assert (found.kind, found.flags) == (99, 1)


def test_align() -> None:
    assert [align(n) for n in (0, 1, 63, 64, 65)] == [0, 64, 64, 64, 128]
    assert align(4097, 4096) == 8192
