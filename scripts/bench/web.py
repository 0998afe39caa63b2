"""WADO-RS by wrk over 8 connections, against others that serve the very same bytes, turn about.

Cases: single frames in turn, the metadata of a series (gzipped), whole studies. nginx serves copies of this node's own answers from files
with sendfile; two processes of bare aiohttp hold the metadata in memory; Orthanc with its DICOMweb plug-in answers the same frames
from its own copy of the objects (the pixels are compared before). The objects are packed before. A ratio above 1: this node is faster.
"""

import re
import subprocess
import tempfile
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from scripts.bench import peers
from scripts.bench.common import (
    CT,
    DATA_SETS,
    NODE,
    Case,
    Missing,
    Report,
    Sent,
    figures_of,
    in_turn,
    make_series,
    needs,
    parser_of,
    publish,
    run,
    table_of,
)
from scripts.bench.conditions import Conditions
from scripts.bench.dimse import push
from tests.kit import Node, multipart_parts

CONNECTIONS = 8
NGINX, AIOHTTP, ORTHANC = "nginx", "aiohttp", "Orthanc"
FRAMES = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
ORTHANC_FRAMES = 'multipart/related; type="application/octet-stream"'
METADATA = "application/dicom+json"
STUDY = 'multipart/related; type="application/dicom"; transfer-syntax=*'

_SCRIPT = """local paths = {{{paths}}}
local turn = 0
request = function()
  turn = turn + 1
  return wrk.format("GET", paths[turn % #paths + 1], {{["Accept"] = [[{accept}]], ["Accept-Encoding"] = "{encoding}"}})
end
"""


class Target:
    """Paths of one server that wrk asks in turn."""

    def __init__(self, port: int, paths: list[str], accept: str = "*/*", encoding: str = "identity") -> None:
        self.url, self.paths, self.accept, self.encoding = f"http://127.0.0.1:{port}", paths, accept, encoding

    def get(self, path: str) -> tuple[str, bytes]:
        """Content type and body of one answer."""
        request = urllib.request.Request(self.url + path, headers={"Accept": self.accept, "Accept-Encoding": self.encoding})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return str(answer.headers["Content-Type"]), answer.read()

    def rate(self, seconds: int, script: Path) -> float:
        """Requests a second.

        Raises
        ------
        Missing
            wrk fails, or the server answers with an error.
        """
        script.write_text(_SCRIPT.format(paths=",".join(f'"{path}"' for path in self.paths), accept=self.accept, encoding=self.encoding))
        command = [needs("wrk", "wrk"), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script), self.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60)
        found = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
        if done.returncode or found is None or "Non-2xx" in done.stdout or "Socket errors" in done.stdout or not float(found[1]):
            raise Missing(f"wrk {self.url}{self.paths[0]}: {done.stdout[-500:]}{done.stderr[-500:]}")
        return float(found[1])


def targets_of(node: Node, sent: list[Sent]) -> dict[str, Target]:
    """What is asked of the node, by case."""
    study = f"/dicomweb/studies/{sent[0].study_instance_uid}"
    series = f"{study}/series/{sent[0].series_instance_uid}"
    return {
        "frame": Target(node.http_port, [f"{series}/instances/{i.sop_instance_uid}/frames/1" for i in sent], FRAMES),
        "series metadata": Target(node.http_port, [f"{series}/metadata"], METADATA, "gzip"),
        "study": Target(node.http_port, [study], STUDY),
    }


def copy_answers(name: str, target: Target, root: Path) -> list[str]:
    """Keep the node's answers as files; their paths on a server of `root`."""
    paths = [f"/{name.replace(' ', '-')}-{n}" for n in range(len(target.paths))]
    for path, copy in zip(target.paths, paths, strict=True):
        (root / copy[1:]).write_bytes(target.get(path)[1])
    return paths


def orthanc_frames(port: int, sent: list[Sent], ours: Target) -> Target:
    """The same frames from Orthanc.

    Raises
    ------
    Missing
        They are not the same.
    """
    paths = [
        f"/dicom-web/studies/{i.study_instance_uid}/series/{i.series_instance_uid}/instances/{i.sop_instance_uid}/frames/1" for i in sent
    ]
    target = Target(port, paths, ORTHANC_FRAMES)
    if multipart_parts(*target.get(paths[0])) != multipart_parts(*ours.get(ours.paths[0])):
        raise Missing("Orthanc answers other pixels")
    return target


def measure(work: Path, stack: ExitStack, objects: int, rounds: int, seconds: int) -> list[Case]:
    """Start everybody and measure all cases."""
    sent = make_series(work / "objects", CT, objects, seed=1)
    node = Node(data=work / "node" / "data")
    stack.callback(node.kill)
    node.start()
    push(node.dimse_port, [work / "objects"])
    node.cli("pack", "--now")
    targets = targets_of(node, sent)
    root = work / "copies"
    root.mkdir()
    copies = {name: copy_answers(name, target, root) for name, target in targets.items()}
    nginx_port = stack.enter_context(peers.nginx(work / "nginx", root))
    metadata = copies["series metadata"]
    bare_port = stack.enter_context(peers.bare_aiohttp(root / metadata[0][1:], work / "aiohttp.log"))
    others = {
        "frame": {NGINX: Target(nginx_port, copies["frame"])},
        "series metadata": {AIOHTTP: Target(bare_port, metadata)},
        "study": {NGINX: Target(nginx_port, copies["study"])},
    }
    if peers.has_orthanc():
        dicom_port, http_port = stack.enter_context(peers.orthanc(work / "orthanc"))
        push(dicom_port, [work / "objects"])
        others["frame"][ORTHANC] = orthanc_frames(http_port, sent, targets["frame"])
    script = work / "wrk.lua"
    cases = []
    for name, target in targets.items():
        case = Case(name, "/s")
        asked = {NODE: target, **others[name]}
        for number in range(rounds):
            for peer in in_turn(asked, number):
                case.add(peer, asked[peer].rate(seconds, script))
        cases.append(case)
    return cases


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured (default 3)")
    parser.add_argument("--count", type=int, default=100, help="CT objects of the series (default 100)")
    parser.add_argument("--seconds", type=int, default=4, help="how long each server is asked in each round (default 4)")
    options = parser.parse_args(arguments)
    needs("wrk", "wrk")
    needs("storescu", "dcmtk")
    shape = f"one series of {options.count}; {options.rounds} rounds of {options.seconds} s, {CONNECTIONS} connections"
    conditions = Conditions("web", f"{DATA_SETS[CT]}; {shape}", options.patience)
    with tempfile.TemporaryDirectory(prefix="bench-web-", dir=options.work) as folder, ExitStack() as stack:
        cases = measure(Path(folder), stack, options.count, options.rounds, options.seconds)
    header, lines = table_of(cases)
    notes = [] if peers.has_orthanc() else ["Orthanc is not installed and was left out."]
    publish(Report("web", header, lines, figures_of(cases), conditions.told(), notes), options)


if __name__ == "__main__":
    run(main)
