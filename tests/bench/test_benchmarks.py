"""Each benchmark runs with tiny sizes and says what it should; the figures themselves are nobody's promise here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scripts.bench.common import NODE
from scripts.bench.ingest import STEPS
from scripts.bench.peers import has_orthanc
from tests.hdfs import Hdfs
from tests.kit import ROOT, is_missing, require

CONDITIONS = ["when", "machine", "load", "data set", "command", "commit"]


@pytest.fixture
def orthanc() -> None:
    if not has_orthanc():
        is_missing("Orthanc with orthanc-dicomweb is not installed")


def run(name: str, tmp_path: Path, *arguments: str, timeout_seconds: float = 100.0) -> tuple[str, dict[str, Any], str]:
    """What it prints, its figures, and the page that it renewed."""
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(f"# A page\n\n<!-- scripts/bench/{name} -->\n<!-- end of scripts/bench/{name} -->\n\nThe end.\n")
    command = [sys.executable, "-m", f"scripts.bench.{name}", "--rounds", "1", "--json", str(figures), "--markdown", str(page), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_seconds)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, json.loads(figures.read_text()), page.read_text()


def check(said: str, report: dict[str, Any], page: str, cases: list[str]) -> None:
    """The table has these lines, and all three forms say the same."""
    assert [line[0] for line in report["lines"]] == cases
    assert [re.match(r"(.*?)(  |$)", line)[1] for line in said.splitlines()[1 : len(cases) + 1]] == cases  # type: ignore[index]
    assert list(report["conditions"]) == CONDITIONS
    assert all(f"{name}: {value}" in said for name, value in report["conditions"].items())
    assert all(f"| {' | '.join(line)} |" in page for line in report["lines"])
    assert page.startswith("# A page\n") and page.endswith("\nThe end.\n")


def check_ratios(report: dict[str, Any], peers: dict[str, list[str]]) -> None:
    """These cases were measured against these peers, a round each."""
    for case, names in peers.items():
        figures = report["figures"][case]
        assert list(figures["rates"]) == [NODE, *names]
        assert all(len(rates) == 1 and rates[0] > 0 for rates in figures["rates"].values())
        for name in names:
            assert figures["ratios"][name] == pytest.approx(figures["rates"][NODE][0] / figures["rates"][name][0])


def test_dimse(tmp_path: Path, orthanc: None) -> None:
    for program in ("storescu", "storescp"):
        require(program)
    several = [f"{n} associations, CT" for n in (4, 8, 16)]
    cases = ["1 association, CT", *several, "1 association, MR", "1 association, CT, Nagle on"]
    said, report, page = run("dimse", tmp_path, "--count", "5")
    check(said, report, page, cases)
    check_ratios(report, {case: ["storescp", "Orthanc"] for case in cases})
    assert report["figures"]["nagle_on_by_off"] > 0


def test_large(tmp_path: Path) -> None:
    for program in ("storescu", "storescp"):
        require(program)
    said, report, page = run("large", tmp_path, "--megabytes", "8")
    check(said, report, page, ["1 at once", "4 at once"])
    check_ratios(report, {"1 at once": ["storescp"], "4 at once": ["storescp"]})
    assert {"supervisor", "dimse", "web", "packer"} <= set(report["figures"]["peak_bytes"])


def test_find(tmp_path: Path, orthanc: None) -> None:
    for program in ("storescu", "findscu"):
        require(program)
    said, report, page = run("find", tmp_path, "--times", "1", "--sizes", "1000")
    keys = ["PatientID", "AccessionNumber", "StudyInstanceUID, its series", "name wildcard", "StudyDate"]
    check(said, report, page, ["C-ECHO", "100 image rows", "study wildcard", *(f"{key}, 1,000 synthetic studies" for key in keys)])
    check_ratios(report, {"C-ECHO": ["Orthanc"], **dict.fromkeys(("100 image rows", "study wildcard"), ["Orthanc", "replayed"])})


def test_retrieve(tmp_path: Path, orthanc: None) -> None:
    for program in ("storescu", "storescp", "movescu", "getscu"):
        require(program)
    said, report, page = run("retrieve", tmp_path, "--count", "5")
    check(said, report, page, ["C-MOVE", "C-GET"])
    check_ratios(report, {"C-MOVE": ["Orthanc", "storescu"], "C-GET": ["Orthanc"]})


def test_web(tmp_path: Path, orthanc: None) -> None:
    for program in ("storescu", "nginx", "wrk"):
        require(program)
    said, report, page = run("web", tmp_path, "--count", "5", "--seconds", "1")
    check(said, report, page, ["frame", "series metadata", "study"])
    check_ratios(report, {"frame": ["nginx", "Orthanc"], "series metadata": ["aiohttp"], "study": ["nginx"]})


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_webhdfs(tmp_path: Path, hdfs: Hdfs) -> None:
    for program in ("storescu", "curl"):
        require(program)
    arguments = ["--cluster", str(hdfs.run), "--rounds", "1", "--series", "2", "--count", "6"]
    said, report, page = run("webhdfs", tmp_path, *arguments, timeout_seconds=200)
    check(said, report, page, ["pack", "first frame", "series", "image by image"])
    raw, local = ["raw WebHDFS"], ["node, local packs"]
    check_ratios(report, {"pack": raw, "first frame": raw, "series": raw, "image by image": local})


def test_ingest(tmp_path: Path) -> None:
    require("storescu")
    said, report, page = run("ingest", tmp_path, "--count", "5")
    check(said, report, page, [*(step for step, _ in STEPS), "all"])
    assert list(report["figures"]) == ["CT", "MR"]
    for means in report["figures"].values():
        assert list(means) == [*(step for step, _ in STEPS), "all"]
        assert all(elapsed > 0 for elapsed, _ in means.values()), f"not every step was timed: {means}"


def test_a_program_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent))
    done = subprocess.run([sys.executable, "-m", "scripts.bench.dimse"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, "dimse: storescu is not installed (Debian: dcmtk)\n")


def test_rebuild_index(tmp_path: Path) -> None:
    said, report, page = run("rebuild_index", tmp_path, "--instances", "2000")
    figures = report["figures"]["rounds"][0]
    assert (figures["instances"], figures["series"], figures["damaged"]) == (2000, 14, [])
    assert figures["anonymous"] < 256 << 20
    check(said, report, page, [line[0] for line in report["lines"]])
    assert any(line[0] == "bytes of index an instance" and 50 < float(line[1]) < 2000 for line in report["lines"])
