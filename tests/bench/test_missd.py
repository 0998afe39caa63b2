"""MISS-D's measurements with a few images over the real HDFS of this test run, and the model beside them."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from archive.config import PackerSection
from scripts.bench.common import Missing
from scripts.bench.missd import COLD, EACH, FOLDER, OFF, PACKED_FOLDER, PLACES, RANGES, WARM, cluster, make_set
from scripts.bench.missd_namenode import Held, Slope, model
from tests.bench.test_benchmarks import check, run
from tests.hdfs import Hdfs
from tests.kit import require

WRITTEN = [FOLDER, EACH, RANGES, PACKED_FOLDER, COLD]


@pytest.mark.xfail(strict=False, reason="not seen passing yet: small files over WebHDFS stall on a busy machine")
@pytest.mark.slow
@pytest.mark.timeout(400)
def test_missd(tmp_path: Path, hdfs: Hdfs) -> None:
    for program in ("storescu", "jcmd"):
        require(program)
    there = hdfs.ask("GET", "/", op="LISTSTATUS")
    arguments = ["--cluster", str(hdfs.run), "--sets", "A", "--syntaxes", "RLE", "--count", "6", "--readers", "1", "--files", "20"]
    said, report, page = run("missd", tmp_path, *arguments, timeout_seconds=300)
    cases = [
        "write, until safe",
        "write, until at rest",
        "images, 1 reader",
        "first image",
        "image, from the fifth on",
        "volumes, 1 reader",
    ]
    check(said, report, page, [f"A RLE: {case}" for case in cases])
    for case, figures in report["figures"]["cases"].items():
        assert sorted(figures["rates"]) == sorted(WRITTEN if "write" in case else PLACES)
        assert all(len(rates) == 1 and rates[0] > 0 for rates in figures["rates"].values())
    ((_, images, each, packed, _),) = report["figures"]["objects"]
    assert (images, each) == ("6", "12"), "a file and a block for each image"
    assert packed == "2", "one pack of one block"
    assert report["figures"]["heap"]["objects"] == 2 * 20 + 2, "and two folders"
    chart = ElementTree.parse(tmp_path / "images" / "missd.svg")
    assert chart.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert {WARM, OFF} <= set(chart.getroot().itertext())
    assert hdfs.live_datanodes() == 3, "a cluster that was up is left up"
    assert len(str(hdfs.ask("GET", "/", op="LISTSTATUS")).split("pathSuffix")) == len(str(there).split("pathSuffix")), (
        "with as many folders"
    )


def test_a_set_is_made_of_series_of_a_hundred(tmp_path: Path) -> None:
    made = make_set(tmp_path, "A", "uncompressed", 101)
    assert [len(series) for series in made.series] == [100, 1]
    assert len({image.sop_instance_uid for image in made.images}) == 101
    assert made.megabytes == pytest.approx(101 * 0.53, rel=0.02)


def test_the_model_multiplies_what_one_object_took() -> None:
    found = model(Slope(1000, Held(2000, 600_000)), image_bytes=PackerSection().pack_bytes_target // 500, images=10_000)
    assert found.one_file_each == Held(20_000, 6_000_000)
    assert found.packed == Held(20 * 4, 24_000)
    assert [line[1:] for line in found.lines()] == [["20,000", "0.01 GB"], ["80", "0.00 GB"]]


def test_a_cluster_needs_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match=re.escape("java is not installed (Debian: default-jre-headless)")), cluster(None, tmp_path):
        pass
