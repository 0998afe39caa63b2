"""Data sets that are cut off or flipped: refused as bad input or described, never anything else, and at once."""

import logging
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from archive.dicom.describe import describe
from archive.dicom.part10 import read_file_meta
from archive.dicom.scan import scan_elements, scan_items, sniff_encoding
from archive.errors import BadInput, NotFound
from tests.dicom.build import UNDEFINED, element

NAMES = ["CT_small.dcm", "rtplan.dcm", "MR_small_implicit.dcm", "ExplVR_BigEnd.dcm", "emri_small_RLE.dcm", "image_dfl.dcm", "test-SR.dcm"]
FILES = {name: Path(str(get_testdata_file(name))).read_bytes() for name in NAMES}
SECONDS_MAX = 1.0


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)


def look_at(file: bytes) -> None:
    """Whatever it is: nothing but bad input may come of it."""
    started = process_time()
    try:
        meta = read_file_meta(file)
        data_set = file[meta.length :]
        found = describe(data_set, meta.transfer_syntax_uid, 1 << 22)
        if found.pixel_data is not None:
            whole = len(data_set) if meta.transfer_syntax_uid != "1.2.840.10008.1.2.1.99" else 1 << 22
            for number in {1, 2, found.pixel_data.number_of_frames}:
                try:
                    assert all(0 <= offset <= offset + length <= whole for offset, length in found.pixel_data.frame_ranges(number))
                except NotFound:
                    continue
    except BadInput:
        pass
    assert process_time() - started < SECONDS_MAX


@pytest.mark.parametrize("name", NAMES)
def test_cut_off_at_every_byte(name: str) -> None:
    for length in range(min(len(FILES[name]), 3000)):
        look_at(FILES[name][:length])


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(NAMES), changes=st.lists(st.tuples(st.integers(128, 6000), st.binary(min_size=1, max_size=4)), max_size=8))
def test_overwritten(name: str, changes: list[tuple[int, bytes]]) -> None:
    file = bytearray(FILES[name])
    for place, content in changes:
        file[place % len(file) : place % len(file) + len(content)] = content
    look_at(bytes(file))


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=400), st.sampled_from(["1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.50"])
)
def test_any_bytes(data: bytes, syntax: str) -> None:
    encoding = sniff_encoding(data, syntax)
    try:
        end = 0
        for found in scan_elements(data, encoding):
            assert end <= found.offset <= found.offset + found.length <= found.end <= len(data)
            end = found.end
            for inside in scan_items(data, found, encoding):
                assert found.offset <= inside.offset <= inside.offset + inside.length <= found.end
    except BadInput:
        pass


def test_a_long_row_of_openings_is_refused_at_once() -> None:
    opening = element(0x00400275, "SQ", b"\xfe\xff\x00\xe0\xff\xff\xff\xff", length=UNDEFINED)
    started = process_time()
    with pytest.raises(BadInput):
        list(scan_elements(opening * 100_000, sniff_encoding(opening, "1.2.840.10008.1.2.1")))
    assert process_time() - started < SECONDS_MAX
