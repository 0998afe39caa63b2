from struct import pack

import pytest

from archive.dicom.frames import PixelData
from archive.dicom.image import IMAGE_TAGS, locate_pixel_data
from archive.dicom.scan import PIXEL_DATA, PIXEL_DATA_TAGS, scan_elements
from archive.dicom.syntax import encoding_of
from tests.dicom.build import UNDEFINED, delimited, element, item

JPEG = "1.2.840.10008.1.2.4.50"
NATIVE = "1.2.840.10008.1.2.1"


def located(data: bytes, syntax: str = NATIVE) -> PixelData | None:
    encoding = encoding_of(syntax)
    return locate_pixel_data(data, {e.tag: e for e in scan_elements(data, encoding, wanted=IMAGE_TAGS | PIXEL_DATA_TAGS)}, encoding)


def image(rows: int, columns: int, bits: int, *, samples: int = 1, photometric: bytes = b"MONOCHROME2", frames: int | None = None) -> bytes:
    return b"".join(
        (
            element(0x00280002, "US", pack("<H", samples)),
            element(0x00280004, "CS", photometric),
            element(0x00280008, "IS", str(frames).encode()) if frames is not None else b"",
            element(0x00280010, "US", pack("<H", rows)),
            element(0x00280011, "US", pack("<H", columns)),
            element(0x00280100, "US", pack("<H", bits)),
        )
    )


def encapsulated(*items: bytes) -> bytes:
    return element(PIXEL_DATA, "OB", delimited(b"".join(item(content) for content in items)), length=UNDEFINED)


@pytest.mark.parametrize(
    ("description", "tag", "vr", "frame_bits"),
    [
        (image(2, 3, 16, frames=2), PIXEL_DATA, "OW", 96),
        (image(2, 4, 8, samples=3, photometric=b"RGB ", frames=2), PIXEL_DATA, "OB", 192),
        (image(2, 4, 8, samples=3, photometric=b"YBR_FULL_422", frames=2), PIXEL_DATA, "OB", 128),
        (image(2, 4, 8, samples=3, photometric=b"YBR_PARTIAL_420 ", frames=2), PIXEL_DATA, "OB", 96),
        (image(3, 3, 1, frames=2), PIXEL_DATA, "OB", 9),
        (image(2, 3, 32, frames=2), 0x7FE00008, "OF", 192),
        (image(2, 3, 64, frames=2), 0x7FE00009, "OD", 384),
    ],
)
def test_native_frames_have_the_size_that_the_image_says(description: bytes, tag: int, vr: str, frame_bits: int) -> None:
    length = -(-2 * frame_bits // 8) // 2 * 2 + 1  # no multiple of two frames: the description of the image decides
    found = located(description + element(tag, vr, bytes(length)))
    assert found is not None
    assert (found.tag, found.number_of_frames, found.length, found.frame_bits) == (f"{tag:08X}", 2, length, frame_bits)


@pytest.mark.parametrize("frames", [None, 0, -1, 1 << 40])
def test_a_number_of_frames_that_is_none_means_one(frames: int | None) -> None:
    found = located(image(2, 3, 8, frames=frames) + element(PIXEL_DATA, "OB", bytes(6)))
    assert found is not None
    assert found.number_of_frames == 1


def test_encapsulated_frames() -> None:
    data = image(2, 3, 8, frames=2) + encapsulated(b"", b"one", b"two2")
    found = located(data, JPEG)
    assert found is not None
    assert [[data[o : o + n] for o, n in found.frame_ranges(number)] for number in (1, 2)] == [[b"one"], [b"two2"]]


def test_the_basic_offset_table_is_read() -> None:
    data = image(2, 3, 8, frames=2) + encapsulated(pack("<II", 0, 20), b"o1", b"o2", b"t1")
    found = located(data, JPEG)
    assert found is not None
    assert [[data[o : o + n] for o, n in found.frame_ranges(number)] for number in (1, 2)] == [[b"o1", b"o2"], [b"t1"]]


def test_the_extended_offset_table_is_read() -> None:
    table = element(0x7FE00001, "OV", pack("<QQ", 0, 20)) + element(0x7FE00002, "OV", pack("<QQ", 4, 2))
    data = image(2, 3, 8, frames=2) + table + encapsulated(b"", b"o1", b"o2", b"t1")
    found = located(data, JPEG)
    assert found is not None
    assert found.starts == (0, 2)


def test_encapsulated_pixel_data_of_defined_length() -> None:
    data = image(2, 3, 8) + element(PIXEL_DATA, "OB", item(b"") + item(b"jpeg"))
    found = located(data, JPEG)
    assert found is not None
    assert found.frame_ranges(1) == [(len(data) - 4, 4)]


def test_fragments_whatever_the_transfer_syntax_says() -> None:
    data = image(2, 3, 8) + encapsulated(b"", b"jpeg")
    found = located(data, NATIVE)
    assert found is not None
    assert found.fragments == (4,)


@pytest.mark.parametrize("items", [(), (b"",), (b"\0\0\0\0",)])
def test_encapsulated_without_fragments(items: tuple[bytes, ...]) -> None:
    found = located(image(2, 3, 8) + encapsulated(*items), JPEG)
    assert found is not None
    assert (found.number_of_frames, found.length, found.fragments) == (1, 0, ())
