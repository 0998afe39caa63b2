"""A data set written anew says the same: every sample file in every target, as pydicom reads both."""

import io
import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.filereader import read_dataset

from archive.dicom.decoding import Picture, decode_frame
from archive.dicom.inflate import inflate
from archive.dicom.part10 import read_file_meta
from archive.dicom.recode import TARGETS, recode
from archive.dicom.scan import Buffer
from archive.dicom.syntax import encoding_of
from archive.errors import NotUnderstood
from tests.dicom.build import UNDEFINED, delimited, element, identity, item
from tests.kit import sample_files

FILES = list(sample_files())
EXPLICIT, IMPLICIT, BIG = TARGETS
RLE, JPEG, JPEG_LS = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.80"

CANNOT = {
    "JPEG-lossy.dcm": "JPEG Extended of 12 bit has no decoder",
    "JPGExtended.dcm": "JPEG Extended of 12 bit has no decoder",
    "JPEG2000-embedded-sequence-delimiter.dcm": "its codestream is broken",
    "MR_truncated.dcm": "cut off",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "cut off",
    "rtplan_truncated.dcm": "cut off",
}
# Of what a codec changes in the description of an image.
PIXEL_ELEMENTS = {0x7FE00010, 0x7FE00001, 0x7FE00002, 0x00280004, 0x00280006, 0x00282110}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def memory(n: int) -> memoryview:
    return memoryview(bytearray(n))


def recoded(data_set: Buffer, source: str, target: str) -> bytes:
    return b"".join(recode(data_set, source, target, decode_frame, memory))


def read(data: bytes, target: str) -> pydicom.FileDataset:
    inner = read_dataset(io.BytesIO(data), target == IMPLICIT, target != BIG)
    meta = pydicom.dataset.FileMetaDataset()
    meta.TransferSyntaxUID = pydicom.uid.UID(target)
    return pydicom.FileDataset("", inner, file_meta=meta, is_implicit_VR=target == IMPLICIT, is_little_endian=target != BIG)


def differences(one: pydicom.Dataset, other: pydicom.Dataset, ignored: set[int]) -> list[object]:
    """Elements that are not the same, values compared as they are where the VR is lost on the way."""
    tags = {e.tag for e in one if e.tag.element and e.tag.group != 2}
    out: list[object] = [tag for tag in tags ^ {e.tag for e in other} if tag not in ignored]
    for tag in tags & {e.tag for e in other} - ignored:
        a, b = one[tag], other[tag]
        if "SQ" in (a.VR, b.VR):
            if a.VR != b.VR or len(a.value) != len(b.value):
                out.append((tag, a.VR, b.VR))
                continue
            for left, right in zip(a.value, b.value, strict=True):
                out += differences(left, right, ignored)
        elif a.value != b.value:
            out.append((tag, a.VR, b.VR, a.value, b.value))
    return out


@pytest.mark.parametrize("target", [EXPLICIT, BIG], ids=["explicit", "big"])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_sample_says_the_same(path: Path, target: str) -> None:
    file = path.read_bytes()
    meta = read_file_meta(file)
    data_set: Buffer = file[meta.length :]
    if encoding_of(meta.transfer_syntax_uid).deflated:
        data_set = inflate(data_set, 1 << 30)
    if path.name in CANNOT:
        with pytest.raises(NotUnderstood):
            recoded(data_set, meta.transfer_syntax_uid, target)
        return
    theirs = pydicom.dcmread(path)
    if target == BIG or meta.transfer_syntax_uid == BIG:
        # pydicom leaves OW as it lies, and two elements of these samples are UN, which is little endian everywhere: the way there and
        # back must be none.
        allocated = int(theirs.get("BitsAllocated", 8))
        if allocated > 16 or (allocated > 8 and theirs["PixelData"].VR == "OB" and not theirs["PixelData"].is_undefined_length):
            with pytest.raises(NotUnderstood, match="two orders"):
                recoded(data_set, meta.transfer_syntax_uid, target if target != meta.transfer_syntax_uid else EXPLICIT)
            return
        there = recoded(data_set, meta.transfer_syntax_uid, EXPLICIT)
        assert recoded(recoded(there, EXPLICIT, BIG), BIG, EXPLICIT) == there
    ours = read(recoded(data_set, meta.transfer_syntax_uid, target), target)
    encapsulated = "PixelData" in theirs and theirs["PixelData"].is_undefined_length
    if target == EXPLICIT and meta.transfer_syntax_uid != BIG:
        assert differences(theirs, ours, PIXEL_ELEMENTS if encapsulated else {0x00010001}) == []
    if "PixelData" in theirs and "Rows" in theirs:
        try:
            pixels = theirs.pixel_array
        except (AttributeError, ValueError, RuntimeError):
            return
        assert np.array_equal(ours.pixel_array, pixels)
        assert ours.PixelData is not None and len(ours.PixelData) % 2 == 0


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_implicit_and_back_loses_value_representations_alone(path: Path) -> None:
    file = path.read_bytes()
    meta = read_file_meta(file)
    if meta.transfer_syntax_uid == BIG or path.name in CANNOT or encoding_of(meta.transfer_syntax_uid).deflated:
        return  # Shown above.
    there = recoded(file[meta.length :], meta.transfer_syntax_uid, IMPLICIT)
    back = recoded(there, IMPLICIT, EXPLICIT)
    assert recoded(back, EXPLICIT, IMPLICIT) == there


def test_headers_are_written_anew_and_large_values_are_not_copied() -> None:
    pixels = element(0x7FE00010, "OW", bytes(range(256)) * 4096, explicit=False)
    reference = item(element(0x00081155, "UI", b"1.2\0", explicit=False), defined=False)
    sequence = element(0x00081140, "SQ", delimited(reference), explicit=False, length=UNDEFINED)
    source = element(0x00080000, "UL", b"\1\0\0\0", explicit=False) + identity(explicit=False) + sequence + pixels
    parts = recode(source, IMPLICIT, EXPLICIT, decode_frame, memory)
    assert max(parts, key=len).obj is source  # type: ignore[union-attr]
    wanted = (
        element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0")
        + element(0x00080018, "UI", b"1.2.3.4.5\0")
        + element(0x00081140, "SQ", item(element(0x00081155, "UI", b"1.2\0")))
        + element(0x0020000D, "UI", b"1.2.3\0")
        + element(0x0020000E, "UI", b"1.2.3.4\0")
        + element(0x7FE00010, "OW", bytes(range(256)) * 4096)
    )
    assert b"".join(parts) == wanted


def test_a_value_too_long_for_its_value_representation_is_un() -> None:
    source = element(0x00104000, "LT", b"x" * 0x10001, explicit=False)
    assert recoded(source, IMPLICIT, EXPLICIT) == element(0x00104000, "UN", b"x" * 0x10001 + b" ")


def test_numbers_change_their_byte_order_and_bytes_do_not() -> None:
    def written(little: bool) -> bytes:
        order = "little" if little else "big"
        return (
            element(0x00280010, "US", (0x0102).to_bytes(2, order), little=little)  # type: ignore[arg-type]
            + element(0x00280009, "AT", (0x0018).to_bytes(2, order) + (0x1063).to_bytes(2, order), little=little)  # type: ignore[arg-type]
            + element(0x00281054, "LO", b"US", little=little)
            + element(0x00409225, "FD", (0x0102030405060708).to_bytes(8, order), little=little)  # type: ignore[arg-type]
            + element(0x7FE00010, "OB", b"\1\2\3\4", little=little)
        )

    ordered = element(0x00280009, "AT", b"") and written(True)
    big = recoded(ordered, EXPLICIT, BIG)
    assert sorted(big) == sorted(written(False))
    assert recoded(big, BIG, EXPLICIT) == recoded(ordered, EXPLICIT, EXPLICIT)


def image(frames: list[bytes], *, photometric: bytes = b"MONOCHROME2 ", samples: int = 1, declared: int = 1) -> bytes:
    """A 2 x 2 picture of 8 bits, encapsulated."""
    fragments = item(b"") + b"".join(item(frame) for frame in frames)
    return (
        identity()
        + element(0x00280002, "US", samples.to_bytes(2, "little"))
        + element(0x00280004, "CS", photometric)
        + element(0x00280006, "US", b"\1\0")
        + element(0x00280008, "IS", f"{declared} ".encode())
        + element(0x00280010, "US", b"\2\0")
        + element(0x00280011, "US", b"\2\0")
        + element(0x00280100, "US", b"\x08\0")
        + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
    )


def fake(photometric: str, size: int = 12) -> object:
    def decode(transfer_syntax_uid: str, picture: Picture, frame: bytes) -> tuple[bytes, str]:
        assert (picture.rows, picture.columns, picture.bits_allocated) == (2, 2, 8)
        return bytes([frame[0]]) * size, photometric

    return decode


def test_what_describes_the_pixels_is_put_right() -> None:
    source = image([b"ab", b"cd"], photometric=b"YBR_FULL_422", samples=3, declared=2)
    new = read(b"".join(recode(source, JPEG, EXPLICIT, fake("RGB"), memory)), EXPLICIT)  # type: ignore[arg-type]
    assert (new.PhotometricInterpretation, new.PlanarConfiguration, new.LossyImageCompression) == ("RGB", 0, "01")
    assert new.PixelData == b"a" * 12 + b"c" * 12
    assert new["PixelData"].VR == "OB" and not new["PixelData"].is_undefined_length
    assert [e.tag for e in new] == sorted(e.tag for e in new)


def test_lossless_codecs_leave_no_mark_of_loss() -> None:
    new = read(b"".join(recode(image([b"ab"]), JPEG_LS, EXPLICIT, fake("MONOCHROME2", 4), memory)), EXPLICIT)  # type: ignore[arg-type]
    assert "LossyImageCompression" not in new and new.PhotometricInterpretation == "MONOCHROME2"


@pytest.mark.parametrize(
    ("source", "why"),
    [
        (image([b"ab", b"cd"], declared=3), "2 compressed frames|0 compressed frames"),
        (image([b"ab"])[:-12], "cut off"),
        (image([b"not RLE"]), "cannot be decoded"),
    ],
)
def test_what_cannot_be_decoded_is_an_error(source: bytes, why: str) -> None:
    with pytest.raises(NotUnderstood, match=why):
        recoded(source, RLE, EXPLICIT)


def test_an_icon_inside_is_decoded_too() -> None:
    outer, icon = image([b"xy"]), image([b"ab"])[len(identity()) :]
    sequence = element(0x00880200, "SQ", item(icon))
    pixels = outer.rindex(b"\xe0\x7f\x10\0OB")
    source = outer[:pixels] + sequence + outer[pixels:]
    new = read(b"".join(recode(source, JPEG_LS, EXPLICIT, fake("MONOCHROME2", 4), memory)), EXPLICIT)  # type: ignore[arg-type]
    assert new.IconImageSequence[0].PixelData == b"aaaa" and new.PixelData == b"xxxx"
