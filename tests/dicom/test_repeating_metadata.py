"""Metadata of data sets that resemble each other is what is written for each of them alone."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.dicom.metadata import MetadataWriter
from archive.dicom.part10 import read_file_meta
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN
from archive.errors import ArchiveError
from tests.dicom.build import UNDEFINED, delimited, element, item
from tests.dicom.test_repeating import SYNTAXES, image, matches
from tests.kit import sample_files


def outcome(writer: MetadataWriter, data: bytes, syntax: str) -> bytes | str:
    try:
        return writer.write(data, syntax)
    except ArchiveError as error:
        return f"{type(error).__name__}: {error}"


def same_as_alone(writer: MetadataWriter, data: bytes, syntax: str) -> bool:
    return outcome(writer, data, syntax) == outcome(MetadataWriter(), data, syntax)


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_series_is_converted_a_few_times_only(syntax: str, defined: bool) -> None:
    writer = MetadataWriter()
    series = [image(number, SYNTAXES[syntax], defined=defined) for number in range(12)]
    alone = [outcome(MetadataWriter(), data, syntax) for data in series]
    with matches() as found:
        assert [outcome(writer, data, syntax) for data in series] == alone
    assert found[3:] == [True] * 9
    assert len(set(alone)) == 12


@pytest.mark.parametrize("tag", [0x00080005, 0x00280103])
def test_what_others_depend_on_changes_all_of_them(tag: int) -> None:
    """Character set and pixel representation."""
    writer, write, syntax = MetadataWriter(), SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    for number in range(8):
        data = image(number, write, charset=b"ISO_IR 144" if tag == 0x00080005 and number % 2 else b"ISO_IR 100")
        if tag == 0x00280103:
            both = element(tag, "US", bytes([number % 2, 0])) + element(0x00280106, "US", b"\xff\xff")
            data = data.replace(element(0x00431001, "UN", bytes([number] * 4)), both)
        assert same_as_alone(writer, data, syntax)


def test_what_follows_pixel_data_is_read() -> None:
    writer, write, syntax = MetadataWriter(), SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    for number in range(6):
        assert same_as_alone(writer, image(number, write), syntax)
    with matches() as found:
        for behind in (element(0xFFFCFFFC, "OB", bytes(4)), bytes(8), b"\1" * 5, element(0x7FE00020, "US", b"\1\0")):
            assert same_as_alone(writer, image(7, write) + behind, syntax)
    assert any(found)


def test_fragments_of_pixel_data() -> None:
    writer, write = MetadataWriter(), SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN]
    for number in range(6):
        fragments = item(b"") + item(bytes(10 + 2 * number))
        data = image(number, write)[:-24] + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
        assert same_as_alone(writer, data, "1.2.840.10008.1.2.4.50")


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(SYNTAXES)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.integers(0, 9))
def test_bytes_that_differ_anywhere(syntax: str, changes: list[tuple[int, int]], number: int) -> None:
    writer = MetadataWriter()
    for other in range(3):
        writer.write(image(other, SYNTAXES[syntax]), syntax)
    data = bytearray(image(number, SYNTAXES[syntax]))
    for at, value in changes:
        data[at % len(data)] = value
    assert same_as_alone(writer, bytes(data), syntax)


def test_files_of_pydicom_with_bytes_that_differ() -> None:
    chance = random.Random(3)
    writer = MetadataWriter()
    hits = 0
    for path in sample_files():
        file = path.read_bytes()
        try:
            meta = read_file_meta(file)
        except ArchiveError:
            continue
        data_set = bytearray(file[meta.length :])
        places = [chance.randrange(1, min(len(data_set), 4096)) for _ in range(3)]
        with matches() as found:
            for _ in range(6):
                assert same_as_alone(writer, bytes(data_set), meta.transfer_syntax_uid), path
                data_set[chance.choice(places)] = chance.randrange(0x30, 0x3A)
        hits += sum(found)
    assert hits > 50
