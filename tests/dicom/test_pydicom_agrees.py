"""What `describe` finds in every file that pydicom and pydicom-data ship is what pydicom finds there."""

import logging
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import get_expected_length

from archive.dicom.attributes import INSTANCE_ATTRIBUTES, PATIENT_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES, vr_of
from archive.dicom.describe import Description, describe
from archive.dicom.inflate import inflate
from archive.dicom.part10 import read_file_meta
from archive.dicom.syntax import encoding_of
from archive.errors import BadInput
from tests.kit import sample_files

FILES = list(sample_files())
ALL = PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES + SERIES_ATTRIBUTES + INSTANCE_ATTRIBUTES

# pydicom gives up on the whole data set where we leave out the element that is cut off.
MORE_THAN_PYDICOM = {"emri_small_jpeg_2k_lossless_too_short.dcm"}
# A number of frames that is no number: pydicom can do nothing with it.
BAD_NUMBER_OF_FRAMES = "badVR.dcm"

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def quiet() -> None:
    logging.getLogger("pydicom").setLevel(logging.CRITICAL)


def opened(path: Path) -> tuple[bytes, Description | None, pydicom.Dataset]:
    """The data set, inflated; our description, if it is not refused; pydicom's."""
    file = path.read_bytes()
    meta = read_file_meta(file)
    data_set = file[meta.length :]
    theirs = pydicom.dcmread(path)
    try:
        ours = describe(data_set, meta.transfer_syntax_uid)
    except BadInput:
        ours = None
    if encoding_of(meta.transfer_syntax_uid).deflated:
        data_set = inflate(data_set, 1 << 30)
    return data_set, ours, theirs


def agreed(attribute: dict[str, Any] | None, vr: str) -> Any:
    """The attribute without what we do differently on purpose: null for empty values, text by the dictionary's VR."""
    if attribute is None:
        return None
    values = [None if value == "" else value for value in attribute.get("Value", [])]
    return (vr if attribute["vr"] == "LO" else attribute["vr"]), values


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_attributes(path: Path) -> None:
    _, ours, theirs = opened(path)
    if ours is None:
        uids = [str(theirs.get(keyword, "")) for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
        assert not all(uid.replace(".", "").isdigit() for uid in uids)
        return
    assert path.name in MORE_THAN_PYDICOM or ours.sop_instance_uid == theirs.SOPInstanceUID
    for tag in ALL:
        if path.name in MORE_THAN_PYDICOM or (path.name, tag) == (BAD_NUMBER_OF_FRAMES, "00280008"):
            assert path.name in MORE_THAN_PYDICOM or tag not in ours.attributes
        else:
            element = theirs.get(int(tag, 16))
            expected = None if element is None else element.to_json_dict(None, 0)
            assert agreed(ours.attributes.get(tag), vr_of(tag)) == agreed(expected, vr_of(tag)), tag


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_frames(path: Path) -> None:
    data_set, ours, theirs = opened(path)
    if ours is None or "PixelData" not in theirs:
        assert ours is None or ours.pixel_data is None or path.name in MORE_THAN_PYDICOM
        return
    pixels = ours.pixel_data
    assert pixels is not None
    count = pixels.number_of_frames
    if pixels.frame_bits:
        if path.name == BAD_NUMBER_OF_FRAMES:
            theirs.NumberOfFrames = "1"
        size = get_expected_length(theirs) // count
        expected = [theirs.PixelData[index * size : (index + 1) * size] for index in range(count)]
    else:
        expected = list(generate_frames(theirs.PixelData, number_of_frames=count))
    found = []
    for number in range(1, count + 1):
        parts = [data_set[offset : offset + length] for offset, length in pixels.frame_ranges(number)]
        found.append(b"".join(bytes(part) for part in pixels.cut_frame(number, parts)))
    assert found == expected
