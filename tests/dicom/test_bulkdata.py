"""Bulk data is found by the path that metadata names (DICOM PS3.18 F.2.6)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive.dicom.bulkdata import find_bulk_data
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.errors import NotFound
from tests.dicom.build import UNDEFINED, delimited, element, identity, item

LONG = bytes(range(256)) * 5
SHORT = b"\1\2\3\4"


def waveforms(*, defined: bool, **encoding: bool) -> bytes:
    little = encoding.get("little", True)
    second = element(0x54001010, "OW", LONG, **encoding) + element(0x5400100A, "OW", SHORT, **encoding)
    items = item(element(0x003A0005, "US", b"\1\0", **encoding), defined=defined, little=little) + item(
        second, defined=defined, little=little
    )
    value = items if defined else delimited(items, little=little)
    return element(0x54000100, "SQ", value, length=None if defined else UNDEFINED, **encoding)


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize(
    ("syntax", "explicit", "little"),
    [(EXPLICIT_VR_LITTLE_ENDIAN, True, True), (IMPLICIT_VR_LITTLE_ENDIAN, False, True), (EXPLICIT_VR_BIG_ENDIAN, True, False)],
)
def test_values_in_items(syntax: str, explicit: bool, little: bool, defined: bool) -> None:
    data_set = identity(explicit=explicit, little=little) + waveforms(defined=defined, explicit=explicit, little=little)
    found = find_bulk_data(memoryview(data_set), syntax, "54000100/1/54001010")
    assert data_set[found.offset : found.offset + found.length] == LONG
    assert found.vr == "OW"


def test_pixel_data_however_short() -> None:
    data_set = identity() + element(0x00280100, "US", b"\x08\0") + element(0x7FE00010, "OB", SHORT)
    found = find_bulk_data(data_set, EXPLICIT_VR_LITTLE_ENDIAN, "7FE00010")
    assert data_set[found.offset :][: found.length] == SHORT


def test_encapsulated_pixel_data_is_all_items() -> None:
    fragments = item(b"") + item(b"frame 1 ") + item(b"frame 2 ")
    data_set = identity() + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
    found = find_bulk_data(data_set, "1.2.840.10008.1.2.4.50", "7FE00010")
    assert data_set[found.offset : found.offset + found.length] == fragments


def test_of_two_elements_with_one_tag_the_last_counts() -> None:
    data_set = identity() + element(0x00420011, "OB", bytes(2000)) + element(0x00420011, "OB", LONG)
    found = find_bulk_data(data_set, EXPLICIT_VR_LITTLE_ENDIAN, "00420011")
    assert data_set[found.offset :][: found.length] == LONG


@pytest.mark.parametrize(
    "path",
    [
        "54000100/2/54001010",  # no such item
        "54000100/0/54001010",  # not in that item
        "54000100/1/5400100A",  # stands in the metadata
        "54000100",  # a sequence
        "00080018",
        "00080018/0/54001010",  # no sequence
        "7FE00010",
        "7fe00010",
        "",
        "/",
        "54000100/1",
        "54000100/-1/54001010",
        "54000100/1/54001010/",
        "../7FE00010",
        "54000100/٣/54001010",
        "54000100/1/" * 70 + "54001010",
    ],
)
def test_paths_that_lead_nowhere(path: str) -> None:
    with pytest.raises(NotFound, match="no bulk data"):
        find_bulk_data(identity() + waveforms(defined=True), EXPLICIT_VR_LITTLE_ENDIAN, path)


@pytest.mark.parametrize("garbage", [b"", b"\0", b"\xff" * 40, identity() + b"\xfe\xff\x00\xe0\0\0\0\0"])
def test_garbage(garbage: bytes) -> None:
    with pytest.raises(NotFound):
        find_bulk_data(garbage, EXPLICIT_VR_LITTLE_ENDIAN, "7FE00010")


WHOLE = identity() + waveforms(defined=False) + element(0x7FE00010, "OB", LONG)


@given(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=6), st.sampled_from(["7FE00010", "54000100/1/54001010"]))
def test_damage_leads_to_something_inside_or_nowhere(at: int, damage: bytes, path: str) -> None:
    damaged = WHOLE[:at] + damage + WHOLE[at + len(damage) :]
    with suppress(NotFound):
        found = find_bulk_data(damaged, EXPLICIT_VR_LITTLE_ENDIAN, path)
        assert 0 <= found.offset <= found.offset + found.length <= len(damaged)
