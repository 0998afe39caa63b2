from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.filereader import read_file_meta_info

from archive.dicom.part10 import FileMeta, read_file_meta, write_file_meta
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.errors import BadInput, NotUnderstood
from tests.dicom.build import element, identity

META = write_file_meta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4.5", EXPLICIT_VR_LITTLE_ENDIAN, "MODALITY")


def test_what_is_written_is_what_pydicom_reads() -> None:
    read = pydicom.dcmread(BytesIO(META + identity()))
    assert read.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    assert read.file_meta.MediaStorageSOPInstanceUID == "1.2.3.4.5"
    assert read.file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
    assert read.file_meta.SourceApplicationEntityTitle == "MODALITY"
    assert read.file_meta.FileMetaInformationVersion == b"\0\1"
    assert read.file_meta.FileMetaInformationGroupLength == len(META) - 144
    assert read.file_meta.ImplementationVersionName == "DICOM-ARCHIVE-1"
    assert read.StudyInstanceUID == "1.2.3"


def test_what_is_written_is_read() -> None:
    expected = FileMeta("1.2.840.10008.5.1.4.1.1.7", "1.2.3.4.5", EXPLICIT_VR_LITTLE_ENDIAN, "MODALITY", len(META))
    assert read_file_meta(META + identity()) == expected
    assert read_file_meta(memoryview(META)) == expected


def test_the_same_arguments_give_the_same_bytes_of_even_length() -> None:
    assert write_file_meta("1.2", "1.2.3", "1.2", "ODD") == write_file_meta("1.2", "1.2.3", "1.2", "ODD")
    assert len(write_file_meta("1.2", "1.2.3", "1.2", "ODD")) % 2 == 0
    assert b"\x02\x00\x16\x00" not in write_file_meta("1.2", "1.2.3", "1.2")


def test_a_title_that_is_none_does_not_break_the_header() -> None:
    meta = write_file_meta("1.2", "1.2.3", "1.2.840.10008.1.2.1", "MÜNCHEN CT EINS ZWEI")
    assert read_file_meta(meta).source_ae_title == "M?NCHEN CT EINS"


def test_uids_are_checked() -> None:
    with pytest.raises(BadInput, match="SOPInstanceUID"):
        write_file_meta("1.2", "../1", "1.2")


@pytest.mark.parametrize("claimed", [0, 7, 190, 10_000, 0xFFFFFFFF])
def test_a_wrong_group_length_is_overruled_by_the_elements(claimed: int) -> None:
    wrong = META[:140] + claimed.to_bytes(4, "little") + META[144:]
    assert read_file_meta(wrong + identity()).length == len(META)


def test_a_missing_group_length_is_not_missed() -> None:
    without = META[:132] + META[144:]
    assert read_file_meta(without + identity()).length == len(META) - 12


def test_the_group_ends_where_its_numbers_stop_to_grow() -> None:
    assert read_file_meta(META + element(0x00020002, "UI", b"1.2\0")).length == len(META)


def test_deflated_bytes_that_look_like_group_2_do_not_lengthen_the_group() -> None:
    assert read_file_meta(META + b"\x02\x00\x99\x00\x81\x92\x02\x001\0").length == len(META)


@pytest.mark.parametrize(
    ("write", "syntax"),
    [
        ({}, EXPLICIT_VR_LITTLE_ENDIAN),
        ({"explicit": False}, IMPLICIT_VR_LITTLE_ENDIAN),
        ({"little": False}, EXPLICIT_VR_BIG_ENDIAN),
    ],
)
def test_a_missing_transfer_syntax_is_seen_from_the_bytes(write: dict[str, bool], syntax: str) -> None:
    meta = bytes(128) + b"DICM" + element(0x00020002, "UI", b"1.2\0")
    assert read_file_meta(meta + identity(**write)) == FileMeta("1.2", "", syntax, "", len(meta))


def test_what_is_no_dicom_file_is_refused() -> None:
    for bad in (b"", b"DICM", identity(), bytes(132), bytes(128) + b"DICM", bytes(128) + b"DICM" + identity()):
        with pytest.raises(NotUnderstood):
            read_file_meta(bad)


def test_every_truncation_is_refused_or_read() -> None:
    for length in range(len(META)):
        try:
            assert read_file_meta(META[:length]).length <= length
        except NotUnderstood:
            continue


@pytest.mark.parametrize("name", ["CT_small.dcm", "no_meta_group_length.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "rtplan.dcm"])
def test_files_of_others(name: str) -> None:
    path = Path(str(get_testdata_file(name)))
    ours, theirs = read_file_meta(path.read_bytes()), read_file_meta_info(path)
    assert ours.transfer_syntax_uid == theirs.TransferSyntaxUID
    assert ours.sop_instance_uid == theirs.MediaStorageSOPInstanceUID
    if "FileMetaInformationGroupLength" in theirs:
        assert ours.length == theirs.FileMetaInformationGroupLength + 144
