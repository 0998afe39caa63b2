"""MISS-D's measurements with a few images over the real HDFS of this test run; what is kept, merged and modelled."""

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from scripts.bench.common import Case, Missing, keep
from scripts.bench.missd import cluster
from scripts.bench.missd_namenode import Held, held_by, objects_of
from scripts.bench.missd_report import Figures, SetFigures, joined
from scripts.bench.missd_sets import COLD, EACH, FOLDER, LOCAL, PLACES, RANGES, WARM, make_set
from scripts.bench.missd_small_files import SmallFiles
from tests.bench.test_benchmarks import check, run
from tests.hdfs import Hdfs
from tests.kit import require

CASES = ["write, until safe", "write, until at rest", "images, 1 reader", "first image", "image, from the fifth on", "volumes, 1 reader"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_missd(tmp_path: Path, hdfs: Hdfs) -> None:
    for program in ("storescu", "jcmd"):
        require(program)
    there = hdfs.ask("GET", "/", op="LISTSTATUS")
    arguments = ["--cluster", str(hdfs.run), "--sets", "A", "--syntaxes", "RLE", "--count", "6", "--readers", "1", "--files", "24"]
    said, report, page = run("missd", tmp_path, *arguments, timeout_seconds=300)
    check(said, report, page, [f"A RLE: {case}" for case in CASES])
    figures = report["figures"]["sets"]["A RLE"]
    assert [case["name"] for case in figures["cases"]] == CASES
    for case in figures["cases"]:
        assert set(case["rates"]) == ({FOLDER, EACH, LOCAL, COLD} if "write" in case["name"] else set(PLACES))
        assert all(len(rates) == 1 and rates[0] > 0 for rates in case["rates"].values())
    assert (figures["images"], figures["few_images"], figures["objects"]) == (6, 6, 2), "one pack of one block"
    small = report["figures"]["small_files"]
    assert (small["images"], small["each"], small["packed"]) == (6, 12, 2), "a file and a block for each image, and for the pack"
    assert (small["files"], small["files_each"][0]) == (24, 2 * 24 + 2), "and two folders"
    assert small["files_packed"][0] == 2 * 4 + 1, "four packs in a folder"
    chart = ElementTree.parse(tmp_path / "images" / "missd.svg")
    assert chart.getroot().tag == "{http://www.w3.org/2000/svg}svg"
    assert {WARM, RANGES} <= set(chart.getroot().itertext())
    assert hdfs.live_datanodes() == 3, "a cluster that was up is left up"
    assert len(str(hdfs.ask("GET", "/", op="LISTSTATUS")).split("pathSuffix")) == len(str(there).split("pathSuffix")), (
        "with as many folders"
    )


def test_the_namenode_says_what_it_holds(hdfs: Hdfs) -> None:
    require("jcmd")
    hdfs.write("/held/file", bytes(3000))
    before = objects_of(hdfs)
    held = held_by(hdfs)
    assert held.objects == before > 3, "a folder, a file and a block at least"
    assert 1 << 20 < held.heap_bytes < 1 << 28


def test_a_set_is_made_of_series_of_a_hundred(tmp_path: Path) -> None:
    made = make_set(tmp_path, "uncompressed", 201)
    assert [len(series) for series in made.series] == [100, 100, 1]
    assert len({image.sop_instance_uid for image in made.images}) == 201
    assert made.megabytes == pytest.approx(201 * 0.53, rel=0.02)
    assert made.few().images == made.images[:200]


def of_set(images: int, rate: float, when: str) -> SetFigures:
    """Read with a cold pool, 2.5 times as fast as one file each, the first image in half the time of one without a pool."""
    cases = [
        Case("images, 1 reader", "images/s", {EACH: [rate / 2.5], COLD: [rate]}),
        Case("first image", "ms", {RANGES: [20.0], COLD: [10.0]}),
    ]
    return SetFigures(images, images / 2, 100, 2, cases, {"when": when, "machine": "one"})


SMALL = SmallFiles(500, 1000, 4, 2000, Held(4000, 1_200_000), Held(40, 20_000), 99)


def test_runs_are_put_together(tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    keep(Figures({"B RLE": of_set(400, 10.0, "Monday")}, SMALL, {"when": "Monday", "machine": "one"}).report(), file)
    found = Figures.read(file)
    assert found.small_files == SMALL
    found.sets |= {"A uncompressed": of_set(200, 20.0, "Tuesday"), "B RLE": of_set(400, 30.0, "Tuesday")}
    keep(found.report(), file)
    report = json.loads(file.read_text())
    assert [(line[0], line[2 + PLACES.index(COLD)]) for line in report["lines"]] == [
        ("A uncompressed: images, 1 reader", "20.0"),
        ("A uncompressed: first image", "10.0"),
        ("B RLE: images, 1 reader", "30.0"),
        ("B RLE: first image", "10.0"),
    ]
    assert "| B RLE | 400 | 200 | 100 | 2 |" in report["notes"][0]
    assert "| B RLE | 2.50 |  |  | 2.00 |  |" in report["notes"][1]
    assert report["conditions"] == {"when": "A uncompressed, B RLE: Tuesday; small files: Monday", "machine": "one"}


def test_nothing_is_kept_yet(tmp_path: Path) -> None:
    assert Figures.read(tmp_path / "figures.json") == Figures()
    assert joined({}) == {}


def test_the_model_multiplies_what_one_object_took() -> None:
    assert SMALL.modelled(SMALL.files_each) == Held(2 * 10**9, 600 * 10**9)
    assert SMALL.modelled(SMALL.files_packed) == Held(20_000_000, 6 * 10**9)
    assert list(SMALL.lines()) == [
        ["500", "1,000", "4", "250", "", ""],
        ["2,000", "4,000", "40", "100", "1.20 MB", "0.02 MB"],
        ["1,000,000,000 (model)", "2,000,000,000", "20,000,000", "100", "600.0 GB", "6.0 GB"],
    ]


def test_a_cluster_needs_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match=re.escape("java is not installed (Debian: default-jre-headless)")), cluster(None, tmp_path):
        pass
