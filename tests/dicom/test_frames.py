from itertools import pairwise

import pytest

from archive.dicom.frames import PixelData, encapsulated_pixel_data, native_pixel_data, scan_fragments
from archive.dicom.json import dumps, loads
from archive.errors import NotFound, NotUnderstood
from tests.dicom.build import item

TAG = "7FE00010"


def encapsulated(*fragments: bytes, frames: int | None, table: tuple[int, ...] = ()) -> tuple[bytes, PixelData]:
    data = item(b"") + b"".join(item(fragment) for fragment in fragments)
    return data, encapsulated_pixel_data(TAG, data, 16, [len(fragment) for fragment in fragments], frames, table)


def frame(data: bytes, pixels: PixelData, number: int) -> list[bytes]:
    return [data[offset : offset + length] for offset, length in pixels.frame_ranges(number)]


def test_native_frames_lie_one_after_the_other() -> None:
    pixels = native_pixel_data(TAG, 100, 12, 3, 32)
    assert [pixels.frame_ranges(number) for number in (1, 2, 3)] == [[(100, 4)], [(104, 4)], [(108, 4)]]


@pytest.mark.parametrize("number", [-1, 0, 4])
def test_there_is_no_frame_beyond(number: int) -> None:
    with pytest.raises(NotFound):
        native_pixel_data(TAG, 100, 12, 3, 32).frame_ranges(number)


def test_padding_is_no_part_of_a_native_frame() -> None:
    assert native_pixel_data(TAG, 0, 4, 1, 24).frame_ranges(1) == [(0, 3)]


def test_a_smaller_value_than_described_is_right_where_it_divides() -> None:
    pixels = native_pixel_data(TAG, 0, 8, 2, 64)
    assert [pixels.frame_ranges(number) for number in (1, 2)] == [[(0, 4)], [(4, 4)]]


def test_native_frames_that_are_cut_off() -> None:
    pixels = native_pixel_data(TAG, 0, 7, 2, 32)
    assert pixels.frame_ranges(1) == [(0, 4)]
    with pytest.raises(NotFound, match="ends before"):
        pixels.frame_ranges(2)
    assert native_pixel_data(TAG, 0, 3, 1, 32).frame_ranges(1) == [(0, 3)]
    with pytest.raises(NotFound):
        native_pixel_data(TAG, 0, 0, 1, 32).frame_ranges(1)


def test_an_undescribed_image_is_divided_by_its_frames() -> None:
    assert native_pixel_data(TAG, 0, 8, 2, 0).frame_ranges(2) == [(4, 4)]


def test_single_bit_frames_are_cut_out_of_their_bytes() -> None:
    bits = [1, 0, 1, 1, 0, 0, 0, 1, 1, 1, 0, 0, 1, 1, 1]  # three frames of five
    data = sum(bit << place for place, bit in enumerate(bits)).to_bytes(2, "little")
    pixels = native_pixel_data(TAG, 0, 2, 3, 5)
    found = [pixels.cut_frame(number, frame(data, pixels, number)) for number in (1, 2, 3)]
    assert [bytes(part) for (part,) in found] == [bytes([0b01101]), bytes([0b11100]), bytes([0b11100])]


def test_whole_bytes_are_not_touched() -> None:
    part = memoryview(b"1234")
    assert native_pixel_data(TAG, 0, 8, 2, 32).cut_frame(2, [part])[0] is part


def test_a_single_frame_is_all_fragments() -> None:
    data, pixels = encapsulated(b"ab", b"", b"cdef", frames=1)
    assert frame(data, pixels, 1) == [b"ab", b"", b"cdef"]
    assert (pixels.offset, pixels.length, pixels.frame_bits) == (16, len(data) - 16, 0)


def test_frames_by_offset_table() -> None:
    data, pixels = encapsulated(b"ab", b"cd", b"ef", b"gh", frames=2, table=(0, 10))
    assert [frame(data, pixels, n) for n in (1, 2)] == [[b"ab"], [b"cd", b"ef", b"gh"]]


def test_the_offset_table_counts_the_frames_where_nothing_else_does() -> None:
    assert encapsulated(b"ab", b"cd", frames=None, table=(0, 10))[1].number_of_frames == 2


@pytest.mark.parametrize("table", [(0,), (0, 9), (10, 20), (0, 0), (0, 1000), (0, 10, 20)])
def test_a_wrong_offset_table_is_passed_over(table: tuple[int, ...]) -> None:
    data, pixels = encapsulated(b"ab", b"cd", frames=2, table=table)
    assert [frame(data, pixels, n) for n in (1, 2)] == [[b"ab"], [b"cd"]]


@pytest.mark.parametrize("table", [(10, 20), (0, 13), (0, 11)])
def test_an_offset_table_that_points_elsewhere_is_not_followed(table: tuple[int, ...]) -> None:
    with pytest.raises(NotFound, match="apart"):
        encapsulated(b"ab", b"cd", b"ef", frames=2, table=table)[1].frame_ranges(1)


@pytest.mark.parametrize("beginning", [b"\xff\xd8\xff\xe0", b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  ", b"\xff\x0a"])
def test_frames_by_their_beginnings(beginning: bytes) -> None:
    data, pixels = encapsulated(beginning + b"1", b"2", b"3", beginning + b"4", frames=2)
    assert [frame(data, pixels, n) for n in (1, 2)] == [[beginning + b"1", b"2", b"3"], [beginning + b"4"]]


def test_frames_by_their_ends() -> None:
    data, pixels = encapsulated(b"1", b"2\xff\xd9\0", b"3\xff\xd9", frames=2)
    assert [frame(data, pixels, n) for n in (1, 2)] == [[b"1", b"2\xff\xd9\0"], [b"3\xff\xd9"]]


def test_what_nothing_tells_apart_is_not_guessed() -> None:
    _, pixels = encapsulated(b"video", b"video", frames=30)
    with pytest.raises(NotFound, match="apart"):
        pixels.frame_ranges(1)


def test_no_fragments_no_frame() -> None:
    with pytest.raises(NotFound):
        encapsulated(frames=1)[1].frame_ranges(1)


def test_a_hundred_thousand_fragments() -> None:
    count = 100_000
    lengths = [2 + i % 3 for i in range(count)]
    pixels = encapsulated_pixel_data(TAG, b"", 16, lengths, count, ())
    assert pixels.frame_ranges(count) == [(16 + sum(lengths[:-1]) + 8 * (count - 1), lengths[-1])]
    ranges = [pixels.frame_ranges(number)[0] for number in range(1, count + 1)]
    assert all(before[0] + before[1] + 8 == after[0] for before, after in pairwise(ranges))
    assert PixelData.from_json(loads(dumps(pixels.to_json()))) == pixels


@pytest.mark.parametrize(
    "pixels",
    [
        native_pixel_data(TAG, 100, 12, 3, 32),
        encapsulated(b"ab", b"cd", frames=2)[1],
        encapsulated(b"ab", b"cd", b"ef", frames=2, table=(0, 20))[1],
        encapsulated(b"ab", b"cd", frames=30)[1],
        encapsulated(frames=1)[1],
    ],
)
def test_json_and_back(pixels: PixelData) -> None:
    assert PixelData.from_json(loads(dumps(pixels.to_json()))) == pixels


@pytest.mark.parametrize(
    "value", [None, [], {}, {"tag": TAG}, {"tag": TAG, "number_of_frames": 1, "offset": 0, "length": 0, "frame_bits": 0, "starts": 7}]
)
def test_json_of_something_else_is_refused(value: object) -> None:
    with pytest.raises(NotUnderstood):
        PixelData.from_json(value)  # type: ignore[arg-type]


@pytest.mark.parametrize("little", [True, False])
def test_fragments_are_located(little: bool) -> None:
    data = b"??" + item(b"", little=little) + item(b"ab", little=little) + item(b"cdef", little=little)
    assert scan_fragments(data, 2, len(data), little) == [(10, 0), (18, 2), (28, 4)]
    assert scan_fragments(data, 2, len(data) - 3, little) == [(10, 0), (18, 2), (28, 1)]
    assert scan_fragments(data, 0, len(data), little) == []
