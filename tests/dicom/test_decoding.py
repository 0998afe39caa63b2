"""Frames are decoded right or not at all."""

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import convert_color_space

from archive.dicom.decoding import Picture, decode_frame
from archive.errors import NotUnderstood

pytestmark = pytest.mark.filterwarnings("ignore")


def picture_of(data_set: pydicom.Dataset, **changes: object) -> Picture:
    values = {
        "rows": data_set.Rows,
        "columns": data_set.Columns,
        "samples_per_pixel": data_set.SamplesPerPixel,
        "bits_allocated": data_set.BitsAllocated,
        "bits_stored": data_set.BitsStored,
        "pixel_representation": data_set.PixelRepresentation,
        "photometric_interpretation": data_set.PhotometricInterpretation,
        "planar_configuration": data_set.get("PlanarConfiguration", 0),
    }
    return Picture(**{**values, **changes})


def sample(name: str) -> tuple[pydicom.Dataset, bytes, str]:
    """A data set, its first frame as it is compressed, and its transfer syntax."""
    data_set = pydicom.dcmread(str(get_testdata_file(name)))
    frames = generate_frames(data_set.PixelData, number_of_frames=int(data_set.get("NumberOfFrames", 1)))
    return data_set, next(iter(frames)), str(data_set.file_meta.TransferSyntaxUID)


@pytest.mark.parametrize(
    "name",
    [
        "SC_rgb_jpeg_gdcm.dcm",  # lossless, of GDCM
        "JPEG-LL.dcm",
        "JPEGLSNearLossless_16.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "MR_small_jp2klossless.dcm",
        "MR_small_RLE.dcm",
        "SC_rgb_rle_16bit.dcm",
        "examples_ybr_color.dcm",
        "SC_rgb_small_odd_jpeg.dcm",
    ],
)
def test_codecs(name: str) -> None:
    data_set, frame, syntax = sample(name)
    decoded, photometric = decode_frame(syntax, picture_of(data_set), frame)
    pixels = data_set.pixel_array if data_set.get("NumberOfFrames", 1) == 1 else data_set.pixel_array[0]
    ours = np.frombuffer(decoded, pixels.dtype).reshape(pixels.shape)
    if photometric == data_set.PhotometricInterpretation and "YBR" in photometric:
        # pydicom's array is RGB; ours is what the codec gives.
        ours = convert_color_space(ours, photometric, "RGB")
    assert np.array_equal(ours, pixels)
    assert photometric != "YBR_FULL_422"


@pytest.mark.parametrize("changes", [{"rows": 63}, {"columns": 65}, {"samples_per_pixel": 3}, {"bits_allocated": 8, "bits_stored": 8}])
def test_a_picture_that_is_not_what_the_data_set_says(changes: dict[str, int]) -> None:
    data_set, frame, syntax = sample("MR_small_jp2klossless.dcm")
    with pytest.raises(NotUnderstood):
        decode_frame(syntax, picture_of(data_set, **changes), frame)


def test_syntaxes_without_a_decoder() -> None:
    data_set, frame, _ = sample("MR_small_RLE.dcm")
    with pytest.raises(NotUnderstood, match="no decoder"):
        decode_frame("1.2.840.10008.1.2.4.102", picture_of(data_set), frame)
    data_set, frame, syntax = sample("JPEG-lossy.dcm")
    with pytest.raises(NotUnderstood, match="12-bit"):
        decode_frame(syntax, picture_of(data_set), frame)


def test_encapsulated_uncompressed_is_taken_as_it_lies() -> None:
    picture = Picture(2, 2, 1, 8, 8, 0, "MONOCHROME2", 0)
    assert decode_frame("1.2.840.10008.1.2.1.98", picture, b"abcd") == (b"abcd", "MONOCHROME2")
    with pytest.raises(NotUnderstood):
        decode_frame("1.2.840.10008.1.2.1.98", picture, b"abc")
