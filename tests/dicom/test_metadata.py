"""Metadata by the DICOM JSON model (DICOM PS3.18 annex F), rule by rule."""

import zlib
from pathlib import Path
from struct import pack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from archive.dicom import metadata
from archive.dicom.json import loads
from archive.dicom.metadata import MetadataWriter
from archive.dicom.part10 import read_file_meta
from archive.dicom.syntax import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
)
from archive.errors import NotUnderstood
from tests.dicom.build import UNDEFINED, delimited, element, identity, item

IMPLICIT = {"explicit": False}


def write(data_set: bytes, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> dict[str, Any]:
    attributes: dict[str, Any] = loads(MetadataWriter().write(data_set, syntax))
    return attributes


def test_one_line_in_the_order_of_tags_without_group_lengths() -> None:
    text = MetadataWriter().write(
        element(0x00080000, "UL", pack("<I", 100)) + element(0x00104000, "LT", b"two\r\nlines ") + identity(), EXPLICIT_VR_LITTLE_ENDIAN
    )
    assert b"\n" not in text
    assert list(loads(text)) == ["00080016", "00080018", "00104000", "0020000D", "0020000E"]


def test_of_two_elements_with_one_tag_the_last_counts() -> None:
    assert write(identity() + element(0x00100020, "LO", b"A ") + element(0x00100020, "LO", b"B "))["00100020"]["Value"] == ["B"]


def test_commands_and_file_meta_information_are_no_part_of_it() -> None:
    assert set(write(element(0x00020010, "UI", b"1.2 ") + identity())) == {"00080016", "00080018", "0020000D", "0020000E"}


def test_bulk_data_is_named_relative_to_the_metadata() -> None:
    inner = item(element(0x54001010, "OW", bytes(1026))) + item(element(0x54001010, "OW", bytes(1024)))
    outer = item(element(0x54000100, "SQ", inner))
    found = write(
        identity() + element(0x00420011, "OB", bytes(1026)) + element(0x54000100, "SQ", outer) + element(0x7FE00010, "OB", bytes(2)),
    )
    way = "instances/1.2.3.4.5/bulkdata/"
    assert found["00420011"] == {"vr": "OB", "BulkDataURI": way + "00420011"}
    assert found["7FE00010"] == {"vr": "OB", "BulkDataURI": way + "7FE00010"}
    items = found["54000100"]["Value"][0]["54000100"]["Value"]
    assert items[0]["54001010"] == {"vr": "OW", "BulkDataURI": way + "54000100/0/54000100/0/54001010"}
    assert set(items[1]["54001010"]) == {"vr", "InlineBinary"}


def test_long_values_of_other_kinds_are_bulk_data_too() -> None:
    found = write(identity() + element(0x00660016, "UT", b"x" * ((1 << 20) + 2)) + element(0x00660018, "UT", b"x" * (1 << 20)))
    assert found["00660016"] == {"vr": "UT", "BulkDataURI": "instances/1.2.3.4.5/bulkdata/00660016"}
    assert len(found["00660018"]["Value"][0]) == 1 << 20


def test_uris_hold_whatever_the_uid_is() -> None:
    found = write(element(0x00080018, "UI", b'1.2"/\\3 ') + element(0x7FE00010, "OB", bytes(2)))
    assert found["7FE00010"]["BulkDataURI"] == "instances/1.2%22%2F/bulkdata/7FE00010"


def test_a_nul_inside_text_is_not_taken_for_a_way() -> None:
    found = write(identity() + element(0x00100020, "LO", b"A\0B ") + element(0x7FE00010, "OB", bytes(2)))
    assert found["00100020"]["Value"] == ["A\0B"]


def test_items_inherit_character_set_and_sign() -> None:
    content = element(0x00080100, "SH", "ж ".encode("iso8859_5"), **IMPLICIT) + element(0x00280106, "", pack("<h", -5), **IMPLICIT)
    own = element(0x00080005, "CS", b"ISO_IR 100", **IMPLICIT) + element(0x00080100, "SH", "é ".encode("latin_1"), **IMPLICIT)
    data_set = element(0x00080005, "CS", b"ISO_IR 144", **IMPLICIT) + element(0x00280103, "US", b"\1\0", **IMPLICIT)
    found = write(data_set + element(0x00400275, "SQ", item(content) + item(own), **IMPLICIT), IMPLICIT_VR_LITTLE_ENDIAN)
    first, second = found["00400275"]["Value"]
    assert first == {"00080100": {"vr": "SH", "Value": ["ж"]}, "00280106": {"vr": "SS", "Value": [-5]}}
    assert second["00080100"]["Value"] == ["é"]


@pytest.mark.parametrize(("representation", "expected"), [(b"\0\0", ("US", 65531)), (b"\1\0", ("SS", -5))])
def test_one_writer_keeps_signs_apart(representation: bytes, expected: tuple[str, int]) -> None:
    writer = MetadataWriter()
    for value in (b"\1\0", b"\0\0", representation):
        data_set = element(0x00280103, "US", value, **IMPLICIT) + element(0x00280106, "", pack("<h", -5), **IMPLICIT)
        found = loads(writer.write(data_set, IMPLICIT_VR_LITTLE_ENDIAN))["00280106"]
    assert (found["vr"], found["Value"][0]) == expected


def test_one_writer_keeps_private_creators_apart() -> None:
    writer = MetadataWriter()
    found = []
    for creator in (b"GEMS_PARM_01", b"NOBODY", b"GEMS_PARM_01"):
        data_set = element(0x00430010, "LO", creator, **IMPLICIT) + element(0x00431001, "", b"\1\0", **IMPLICIT)
        found.append(loads(writer.write(data_set, IMPLICIT_VR_LITTLE_ENDIAN))["00431001"])
    assert found[0] == found[2] == {"vr": "SS", "Value": [1]}
    assert found[1] == {"vr": "UN", "InlineBinary": "AQA="}


@pytest.mark.parametrize(
    ("entries", "vr"),
    [(1, "US"), (256, "OW")],
)
def test_lut_data_by_its_descriptor(entries: int, vr: str) -> None:
    content = element(0x00283002, "", pack("<HHH", entries, 0, 16), **IMPLICIT) + element(0x00283006, "", b"\1\0", **IMPLICIT)
    found = write(element(0x00283000, "SQ", item(content), **IMPLICIT), IMPLICIT_VR_LITTLE_ENDIAN)
    assert found["00283000"]["Value"][0]["00283006"]["vr"] == vr


def test_lut_descriptors_count_up() -> None:
    found = write(identity() + element(0x00281101, "SS", pack("<hhh", -2, -3, 16)))
    assert found["00281101"]["Value"] == [65534, -3, 16]


def test_elements_written_as_unknown_get_the_representation_of_the_dictionary() -> None:
    found = write(identity() + element(0x00100020, "UN", b"P1") + element(0x00081199, "UN", item(identity(**IMPLICIT))))
    assert found["00100020"] == {"vr": "LO", "Value": ["P1"]}
    assert found["00081199"]["Value"][0]["00080018"]["Value"] == ["1.2.3.4.5"]


def test_representations_of_the_future_are_unknown() -> None:
    assert write(identity() + element(0x00189999, "ZZ", b"ab"))["00189999"] == {"vr": "UN", "InlineBinary": "YWI="}


def test_empty_sequences_and_items() -> None:
    found = write(identity() + element(0x00081140, "SQ", b"") + element(0x00081199, "SQ", item(b"")))
    assert (found["00081140"], found["00081199"]) == ({"vr": "SQ"}, {"vr": "SQ", "Value": [{}]})


@pytest.mark.parametrize(
    ("damaged", "tag"),
    [
        (element(0x00280010, "US", b"\1"), "00280010"),
        (element(0x00200013, "IS", b"one "), "00200013"),
        (element(0x00081140, "SQ", b"no items here"), "00081140"),
        (element(0x00100020, "LO", b"cut", length=100), "00100020"),
    ],
)
def test_a_damaged_element_costs_nothing_else(damaged: bytes, tag: str, caplog: pytest.LogCaptureFixture) -> None:
    assert set(write(identity() + damaged)) == {"00080016", "00080018", "0020000D", "0020000E"}
    assert tag in caplog.text


def test_what_comes_before_garbage_is_kept(caplog: pytest.LogCaptureFixture) -> None:
    assert len(write(identity() + b"\xfe\xff\x00\xe0\0\0\0\0" + bytes(100))) == 4
    assert "ends early" in caplog.text


def test_items_before_a_bad_one_are_kept(caplog: pytest.LogCaptureFixture) -> None:
    found = write(identity() + element(0x00081140, "SQ", item(identity()) + b"garbage?garbage?"))
    assert len(found["00081140"]["Value"]) == 1
    assert "00081140 ends early" in caplog.text


def test_sequences_nested_without_end(caplog: pytest.LogCaptureFixture) -> None:
    nested = b""
    for _ in range(200):
        nested = element(0x00081199, "SQ", item(nested))
    found = write(identity() + nested)
    assert "nested deeper" in caplog.text
    assert "00080018" in found


def test_deflated_data_sets() -> None:
    data_set = identity() + element(0x7FE00010, "OB", bytes(2))
    deflate = zlib.compressobj(wbits=-15)
    deflated = deflate.compress(data_set) + deflate.flush()
    assert write(deflated, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN) == write(data_set)
    with pytest.raises(NotUnderstood):
        MetadataWriter(inflated_bytes_max=10).write(deflated, DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN)


def test_big_endian() -> None:
    data_set = identity(little=False) + element(0x00280010, "US", b"\2\0", little=False)
    assert write(data_set, EXPLICIT_VR_BIG_ENDIAN)["00280010"]["Value"] == [512]


def frames(count: int) -> bytes:
    """An enhanced object: many equal items, and some that differ."""
    items = (
        item(element(0x00209113, "SQ", item(element(0x00200032, "DS", f"1\\2\\{n}".ljust(10).encode()))), defined=bool(n % 2))
        for n in range(count)
    )
    return identity() + element(0x52009230, "SQ", delimited(b"".join(items)), length=UNDEFINED) + element(0x7FE00010, "OW", bytes(4))


def test_what_a_writer_keeps_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = MetadataWriter().write(frames(3000), EXPLICIT_VR_LITTLE_ENDIAN)
    monkeypatch.setattr(metadata, "KEPT_BYTES_MAX", 100_000)
    writer = MetadataWriter()
    for _ in range(3):
        assert writer.write(frames(3000), EXPLICIT_VR_LITTLE_ENDIAN) == expected
        assert writer.kept_bytes < 200_000


CT = Path(str(get_testdata_file("CT_small.dcm"))).read_bytes()
CT_DATA_SET = CT[read_file_meta(CT).length :][:6000]
USED = MetadataWriter()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(CT_DATA_SET) - 1), st.binary(min_size=1, max_size=4)), max_size=4),
    st.integers(0, len(CT_DATA_SET)),
)
def test_no_damage_makes_it_raise_and_what_is_kept_changes_nothing(damage: list[tuple[int, bytes]], length: int) -> None:
    data_set = bytearray(CT_DATA_SET)
    for at, what in damage:
        data_set[at : at + len(what)] = what
    for damaged in (bytes(data_set), bytes(data_set[:length])):
        for syntax in (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN):
            fresh = MetadataWriter().write(damaged, syntax)
            loads(fresh)
            assert USED.write(damaged, syntax) == fresh
