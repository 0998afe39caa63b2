"""What the benchmarks share."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from scripts.bench import common
from scripts.bench.common import CT, MR, NODE, Case, Missing, Report, in_turn, make_series, table_of, with_section
from tests.kit import ROOT


def test_objects_are_of_the_size_they_are_called_and_differ(tmp_path: Path) -> None:
    for kind, size in ((CT, 525_000), (MR, 21_500)):
        one, other = make_series(tmp_path / kind, kind, 2, seed=1)
        assert abs(one.path.stat().st_size - size) < size * 0.05
        assert one.sop_instance_uid != other.sop_instance_uid
        (again,) = make_series(tmp_path / f"{kind}-2", kind, 1, seed=2)
        assert len({one.study_instance_uid, other.study_instance_uid, again.study_instance_uid}) == 2
        data_set = pydicom.dcmread(one.path)
        assert data_set.SOPInstanceUID == data_set.file_meta.MediaStorageSOPInstanceUID == one.sop_instance_uid
        assert len(data_set.PixelData) == data_set.Rows * data_set.Columns * 2


def test_compressed_objects_hold_the_same_pixels(tmp_path: Path) -> None:
    native, compressed = (make_series(tmp_path / str(rle), CT, 11, seed=1, rle=rle) for rle in (False, True))
    first, second, eleventh = (pydicom.dcmread(compressed[number].path) for number in (0, 1, 10))
    assert first.file_meta.TransferSyntaxUID == RLELossless
    assert len(first.PixelData) < 512 * 512 * 2
    assert np.array_equal(first.pixel_array, pydicom.dcmread(native[0].path).pixel_array)
    assert first.PixelData != second.PixelData
    assert first.PixelData == eleventh.PixelData and first.SOPInstanceUID != eleventh.SOPInstanceUID


def test_a_ratio_is_the_median_of_the_rounds() -> None:
    case = Case("a case", "/s")
    for ours, theirs in ((10, 10), (30, 10), (20, 10)):
        case.add(NODE, ours)
        case.add("peer", theirs)
    assert (case.median(NODE), case.median("peer"), case.ratio("peer")) == (20, 10, 2.0)
    bare = Case("without it", "/s", {NODE: [1234.0]})
    assert table_of([case, bare]) == (
        ["median rate", NODE, "peer", "ratio"],
        [["a case", "20 /s", "10 /s", "2.00"], ["without it", "1,234 /s", "", ""]],
    )


def test_another_peer_is_first_in_each_round() -> None:
    assert [in_turn(["a", "b", "c"], n) for n in range(4)] == [["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"]]


def test_a_report_as_text_and_as_a_section_of_a_page() -> None:
    report = Report("name", ["what", "n"], [["a", "1"], ["bcd", "23"]], {}, {"when": "now"}, ["A note."])
    assert report.text() == "what   n\na      1\nbcd   23\n\nA note.\nwhen: now"
    page = "before\n<!-- scripts/bench/name -->\nold\n<!-- end of scripts/bench/name -->\nafter\n"
    renewed = with_section(page, "name", report.markdown())
    assert renewed.startswith("before\n") and renewed.endswith("\nafter\n")
    assert "old" not in renewed and "| what | n |\n| --- | --: |\n| a | 1 |" in renewed
    assert with_section(renewed, "name", report.markdown()) == renewed
    with pytest.raises(Missing, match="no marks"):
        with_section(page, "other", "")


def test_the_page_has_a_section_for_each_benchmark() -> None:
    page = common.PAGE.read_text()
    for name in ("dimse", "web", "ingest", "missd"):
        with_section(page, name, "")
        assert (ROOT / "scripts" / "bench" / name).exists()
