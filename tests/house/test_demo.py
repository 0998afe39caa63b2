"""`scripts/run --demo` shows sample studies, and a second run of it the same ones."""

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from scripts.demo import option, sample_paths
from tests.kit import ROOT, free_port


def run_demo(data: Path) -> tuple[str, dict[str, list[str]]]:
    """What the demo prints until it names the viewer's address, and the instances of each study by QIDO-RS then."""
    ports = (free_port(), free_port())
    command = [str(ROOT / "scripts/run"), "--demo", "--data", str(data), "--dimse-port", str(ports[0]), "--http-port", str(ports[1])]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_ARCHIVE_")}
    with (data.with_suffix(".log")).open("a") as log:
        # As a shell does with what it starts in the background.
        ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment, start_new_session=True)
        finally:
            signal.signal(signal.SIGINT, ignored)
    assert demo.stdout is not None
    said = ""
    instances: dict[str, list[str]] = {}
    try:
        for line in demo.stdout:
            said += line
            if line.startswith("Open http"):
                address = line.split()[1]
                with urllib.request.urlopen(f"{address}dicomweb/instances?limit=1000", timeout=30) as response:
                    for found in json.load(response):
                        instances.setdefault(found["0020000D"]["Value"][0], []).append(found["00080018"]["Value"][0])
                os.kill(demo.pid, signal.SIGINT)
        assert demo.wait(30) == 0, said + data.with_suffix(".log").read_text()
    finally:
        if demo.poll() is None:
            demo.terminate()
            demo.wait(30)
        demo.stdout.close()
    return said, {study: sorted(uids) for study, uids in instances.items()}


@pytest.mark.timeout(300)
def test_the_demo_runs_twice_and_shows_the_same(tmp_path: Path) -> None:
    said, instances = run_demo(tmp_path / "data")
    assert "CompressedSamples^MR2" in said
    assert sum(map(len, instances.values())) == len(list(sample_paths()))
    assert f"holds {len(instances)} studies" in said
    assert run_demo(tmp_path / "data")[1] == instances


def test_option_reads_both_spellings() -> None:
    assert option(["--data", "/a", "--tier=file:///b"], "--data", "") == "/a"
    assert option(["--data", "/a", "--tier=file:///b"], "--tier", "") == "file:///b"
    assert option(["--data"], "--data", "var") == option([], "--data", "var") == "var"
