"""The tests' own tools do what they say."""

import socket

import pytest

from tests.kit import data_set_bytes, free_port, is_missing, make_series, part10_bytes, part10_data_set, require, sample_files


def test_free_port_lies_below_the_ephemeral_range() -> None:
    assert 1024 < free_port() < 32768


def test_require_skips_without_the_program_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DICOM_ARCHIVE_REQUIRE_ALL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require("no-such-program")
    monkeypatch.setenv("DICOM_ARCHIVE_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program")
    with pytest.raises(pytest.fail.Exception):
        is_missing("anything")


def test_no_test_reaches_beyond_this_machine() -> None:
    with socket.socket() as outside, pytest.raises(AssertionError, match="stay on this machine"):
        outside.connect(("192.0.2.1", 80))


def test_make_series_makes_instances_that_differ() -> None:
    series = make_series(3, PatientID="P1")
    assert len({instance.SOPInstanceUID for instance in series}) == len({instance.PixelData for instance in series}) == 3
    assert len({(instance.StudyInstanceUID, instance.SeriesInstanceUID, instance.PatientID) for instance in series}) == 1
    assert part10_bytes(series[0]).endswith(data_set_bytes(series[0]))
    assert data_set_bytes(series[0])[:4] == b"\x08\x00\x05\x00"


def test_sample_files_are_many_and_part_10() -> None:
    files = list(sample_files())
    assert len(files) > 150
    assert all(len(part10_data_set(path.read_bytes())) > 0 for path in files)
