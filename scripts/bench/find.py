"""C-FIND by DCMTK's findscu, its start and association included: this node and Orthanc on the same objects; then large archives.

Cases with Orthanc: C-ECHO by echoscu; the 100 image rows of a series, and the studies whose patient's name begins with a word, on objects
that both received. "Replayed" is a peer that sends the node's own answers again without thinking: no peer can be faster.
The others ask this node's DIMSE server and index, in this process, about 1,000 and 100,000 studies (with --million, 1,000,000): synthetic
index entries of one instance each, without any object behind them; timed on one association from request to last response.

A ratio above 1: this node is faster.
"""

import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from socket import socket

import pydicom

from archive.config import Settings
from archive.dimse.find import Find
from archive.dimse.server import Server
from archive.dimse.slots import AssociationSlots, create_slots
from archive.flow.home import Home
from archive.flow.query import Search
from archive.index.packed_writer import PackedWriter
from archive.node.layout import make_layout
from archive.pack.descriptor import InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, SeriesRow
from scripts.bench import peers
from scripts.bench.common import (
    MR,
    NODE,
    Case,
    Missing,
    Report,
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
from scripts.bench.replay import ask_again, record, replayed
from tests.kit import Node

ORTHANC, REPLAYED = "Orthanc", "replayed"
IMAGES, STUDIES = 100, 50
STUDIES_OF_A_DAY = 100
AGAIN = 10
"""So many times as often as findscu starts is a query sent again on an open association."""
STUDIES_OF_A_PACK = 2000

Keys = dict[str, str]


def command_of(port: int, level: str, keys: Keys, *options: str) -> list[str]:
    """A call of findscu."""
    pairs = [part for keyword, value in {"QueryRetrieveLevel": level, **keys}.items() for part in ("-k", f"{keyword}={value}")]
    return [needs("findscu", "dcmtk"), *options, "-S", "-aec", "ARCHIVE", *pairs, "127.0.0.1", str(port)]


def rate(port: int, level: str, keys: Keys, wanted: int, times: int) -> float:
    """Queries a second, one after the other, each with a process of its own whose output goes nowhere.

    Raises
    ------
    Missing
        It fails, or there are more or fewer answers than there should be.
    """
    done = subprocess.run(command_of(port, level, keys, "-v"), capture_output=True, text=True, timeout=600)
    said = done.stdout + done.stderr
    if done.returncode or "E:" in said or said.count("(Pending)") != wanted:
        raise Missing(f"{said.count('(Pending)')} answers to {keys} at {level} level, not {wanted}: {said[-400:]}")
    return rate_of(command_of(port, level, keys), times)


def rate_of(command: list[str], times: int) -> float:
    """Runs a second of a command, one after the other."""
    started = time.monotonic()
    for _ in range(times):
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=peers.WITHOUT_NAGLE, timeout=600, check=True)
    return times / (time.monotonic() - started)


def against_orthanc(work: Path, stack: ExitStack, rounds: int, times: int) -> Iterator[Case]:
    """The cases on objects."""
    sent = make_series(work / "images", MR, IMAGES, seed=1)
    for seed in range(2, STUDIES + 2):
        make_series(work / "studies" / str(seed), MR, 1, seed)
    folders = [work / "images", *sorted((work / "studies").iterdir())]
    node = Node(data=work / "node" / "data")
    stack.callback(node.kill)
    node.start()
    ports = {NODE: node.dimse_port}
    if peers.has_orthanc():
        ports[ORTHANC] = stack.enter_context(peers.orthanc(work / "orthanc"))[0]
    for port in ports.values():
        push(port, folders[:1])
        push(port, [work / "studies"], options=["+r"])
    node.cli("pack", "--now")
    name = str(pydicom.dcmread(sent[0].path, specific_tags=["PatientName"]).PatientName)
    series = {"StudyInstanceUID": sent[0].study_instance_uid, "SeriesInstanceUID": sent[0].series_instance_uid}
    rows = {"SOPInstanceUID": "", "InstanceNumber": "", "SOPClassUID": "", "Rows": "", "Columns": ""}
    shown = ("StudyInstanceUID", "PatientID", "StudyDate", "StudyDescription", "ModalitiesInStudy", "NumberOfStudyRelatedInstances")
    studies = {"PatientName": name[:4] + "*", **dict.fromkeys(shown, "")}
    asked = {f"{IMAGES} image rows": ("IMAGE", series | rows, IMAGES), "study wildcard": ("STUDY", studies, STUDIES + 1)}
    echo = Case("C-ECHO", "/s")
    for number in range(rounds):
        for peer in in_turn(ports, number):
            echo.add(peer, rate_of([needs("echoscu", "dcmtk"), "-aec", "ARCHIVE", "127.0.0.1", str(ports[peer])], times))
    yield echo
    for title, (level, keys, wanted) in asked.items():
        case = Case(title, "/s")
        answers = record(ports[NODE], lambda port, level=level, keys=keys: command_of(port, level, keys))  # type: ignore[misc]
        with replayed(answers) as replaying:
            all_ports = {**ports, REPLAYED: replaying}
            for number in range(rounds):
                for peer in in_turn(all_ports, number):
                    case.add(peer, rate(all_ports[peer], level, keys, wanted, times))
        yield case


def _text(vr: str, value: str) -> dict[str, object]:
    return {"vr": vr, "Value": [value]}


def synthetic_study(number: int, node: str) -> InstanceDescriptor:
    """One instance that nobody ever sent, in a study of its own."""
    day = number // STUDIES_OF_A_DAY
    attributes = {
        "00080020": _text("DA", f"{1950 + day // 336:04d}{day // 28 % 12 + 1:02d}{day % 28 + 1:02d}"),
        "00080050": _text("SH", f"A{number:07d}"),
        "00080060": _text("CS", "CT"),
        "00081030": _text("LO", "Synthetic"),
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": f"NAME{number:07d}^SYNTHETIC"}]},
        "00100020": _text("LO", f"P{number:07d}"),
        "00200013": {"vr": "IS", "Value": [1]},
    }
    return InstanceDescriptor(
        Revision(node, number + 1),
        f"1.2.826.0.1.{number}",
        f"1.2.826.0.1.{number}.1",
        f"1.2.826.0.1.{number}.1.1",
        "1.2.840.10008.5.1.4.1.1.2",
        "1.2.840.10008.1.2.1",
        300,
        500_000,
        0,
        f"{number:064x}",
        1,
        "synthetic",
        attributes,
    )


def fill_index(home: Home, studies: int) -> None:
    """Put synthetic studies into the index, as if packs held them, unless they are there from an earlier run."""
    with home.index.packed.environment.reading() as t:
        if home.index.packed.counts(t)["studies"] == studies:
            return
    node = home.identity.node
    for sequence, first in enumerate(range(0, studies, STUDIES_OF_A_PACK), 1):
        made = [synthetic_study(n, node) for n in range(first, min(first + STUDIES_OF_A_PACK, studies))]
        rows = [SeriesRow(d.study_instance_uid, d.series_instance_uid, n, 0, 0, 0, [(n * d.length, d)]) for n, d in enumerate(made)]
        header = {"plan_id": f"{sequence:032x}", "node": node, "metadata_version": 1, "created_us": 1, "supersedes": []}
        with home.index.packed.environment.writing() as t:
            PackedWriter(home.index.packed).add_pack(
                t, PackName("synthetic", sequence, f"{sequence:064x}"), PackTail(len(made) * 500_000, 0, [], header, rows, [])
            )


@contextmanager
def synthetic_archive(work: Path, studies: int) -> Iterator[int]:
    """The port of a DIMSE server over an index of synthetic studies."""
    settings = Settings.model_validate({"node": {"data": work / f"synthetic-{studies}"}, "journal": {"free_bytes_min": 0}})
    make_layout(settings)
    with Home(settings, "dimse-0") as home, socket() as listener:
        fill_index(home, studies)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Server(settings, listener, [Find(Search(home), settings.dimse)], AssociationSlots(create_slots(1), 0, 8))
        server.start()
        try:
            yield listener.getsockname()[1]
        finally:
            server.stop()


def in_large_archives(work: Path, sizes: Sequence[int], rounds: int, times: int) -> Iterator[Case]:
    """The cases on synthetic index entries."""
    shown = {"StudyInstanceUID": "", "PatientName": "", "PatientID": "", "StudyDate": "", "ModalitiesInStudy": ""}
    asked: dict[str, tuple[str, Keys, int]] = {
        "PatientID": ("STUDY", {"PatientID": "P0000777"}, 1),
        "AccessionNumber": ("STUDY", {"AccessionNumber": "A0000777"}, 1),
        "StudyInstanceUID, its series": ("SERIES", {"StudyInstanceUID": "1.2.826.0.1.777", "SeriesInstanceUID": ""}, 1),
        "name wildcard": ("STUDY", {"PatientName": "NAME000077*"}, 10),
        "StudyDate": ("STUDY", {"StudyDate": "19500107"}, STUDIES_OF_A_DAY),
    }
    for size in sizes:
        with synthetic_archive(work, size) as port:
            for title, (level, keys, wanted) in asked.items():
                case = Case(f"{title}, {size:,} synthetic studies", "/s")
                everything = shown | keys if level == "STUDY" else keys
                rate(port, level, everything, wanted, 1)  # It answers as it should.
                query = record(port, lambda port, level=level, keys=everything: command_of(port, level, keys))  # type: ignore[misc]
                for _ in range(rounds):
                    case.add(NODE, ask_again(port, query, times * AGAIN))
                yield case


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is measured (default 5)")
    parser.add_argument("--times", type=int, default=10, help="queries in each round (default 10)")
    parser.add_argument("--sizes", type=int, nargs="*", default=[1000, 100_000], help="studies of the synthetic archives")
    parser.add_argument("--million", action="store_true", help="also an archive of 1,000,000 synthetic studies: some ten minutes and 3 GB")
    parser.add_argument("--archives", type=Path, metavar="DIR", help="keep the synthetic archives there, for the next run too")
    options = parser.parse_args(arguments)
    needs("findscu", "dcmtk")
    sizes = [*options.sizes, *([1_000_000] if options.million else [])]
    shape = f"{IMAGES} MR objects of one series and {STUDIES} of a study each; {options.rounds} rounds of {options.times} queries"
    conditions = Conditions("find", shape, options.patience)
    with tempfile.TemporaryDirectory(prefix="bench-find-", dir=options.work) as folder, ExitStack() as stack:
        cases = [
            *against_orthanc(Path(folder), stack, options.rounds, options.times),
            *in_large_archives(options.archives or Path(folder), sizes, options.rounds, options.times),
        ]
    header, lines = table_of(cases)
    notes = [] if peers.has_orthanc() else ["Orthanc is not installed and was left out."]
    publish(Report("find", header, lines, figures_of(cases), conditions.told(), notes), options)


if __name__ == "__main__":
    run(main)
