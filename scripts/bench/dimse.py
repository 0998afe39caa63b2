"""C-STORE by DCMTK's storescu, without Nagle's algorithm, to this node, to DCMTK's storescp and to Orthanc, turn about.

Cases: one association and 4, 8 and 16 at once with CT objects, one with small MR objects, and one with CT objects from a sender that leaves
Nagle's algorithm on. Each round has objects of its own; every peer gets the same ones, another one first in each round. The node
fsyncs each object before it answers; storescp only writes files (with several associations it forks and stores nothing at all);
Orthanc writes files and its SQLite index. Orthanc is left out where it is not installed. A ratio above 1: this node is faster.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path

from scripts.bench import peers
from scripts.bench.common import (
    CT,
    DATA_SETS,
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
from tests.kit import Node

STORESCP, ORTHANC = "storescp", "Orthanc"
WARM_UP_OBJECTS = 20


def push(port: int, folders: list[Path], nodelay: bool = True, options: Sequence[str] = ()) -> float:
    """Seconds that storescu takes to send the folders, one association each, at the same time.

    Parameters
    ----------
    options : sequence of str
        More of storescu's.

    Raises
    ------
    Missing
        It fails.
    """
    command = [needs("storescu", "dcmtk"), "--max-send-pdu", "131072", "-aec", "ARCHIVE", *options, "+sd", "127.0.0.1", str(port)]
    environment = os.environ | {"TCP_NODELAY": "1" if nodelay else "0"}
    started = time.monotonic()
    senders = [
        subprocess.Popen([*command, str(folder)], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) for folder in folders
    ]
    said = [sender.communicate(timeout=600)[0] for sender in senders]
    seconds = time.monotonic() - started
    for sender, text in zip(senders, said, strict=True):
        if sender.returncode or b"E:" in text:
            raise Missing(f"storescu: exit code {sender.returncode}: {text[-400:].decode(errors='replace')}")
    return seconds


class Bench:
    """All rounds of all cases.

    Parameters
    ----------
    work : Path
        An empty folder.
    node_port, orthanc_port : int
        DICOM ports; the latter 0 without Orthanc.
    """

    def __init__(self, work: Path, node_port: int, orthanc_port: int) -> None:
        self._work, self._node_port, self._orthanc_port = work, node_port, orthanc_port
        self._seeds = count(1)
        self.cases: dict[str, Case] = {}

    def new(self, kind: str, objects: int, folders: int = 1) -> list[Path]:
        """Folders of objects that nobody has seen."""
        seeds = [next(self._seeds) for _ in range(folders)]
        for seed in seeds:
            make_series(self._work / f"objects-{seed}", kind, objects, seed)
        return [self._work / f"objects-{seed}" for seed in seeds]

    def warm_up(self) -> None:
        """The first objects of a process cost more than later ones."""
        folders = self.new(CT, WARM_UP_OBJECTS)
        for port in filter(None, (self._node_port, self._orthanc_port)):
            push(port, folders)

    def round(self, number: int, name: str, kind: str, objects: int, associations: int = 1, nodelay: bool = True) -> None:
        """One round of one case."""
        folders = self.new(kind, objects, associations)

        def to_storescp() -> float:
            options = ["--fork"] if associations > 1 else []
            with peers.storescp(self._work / "storescp", *options, keep=associations == 1) as port:
                return push(port, folders, nodelay)

        turns: dict[str, Callable[[], float]] = {NODE: lambda: push(self._node_port, folders, nodelay), STORESCP: to_storescp}
        if self._orthanc_port:
            turns[ORTHANC] = lambda: push(self._orthanc_port, folders, nodelay)
        seconds = {}
        for peer in in_turn(turns, number):
            os.sync()  # Nobody pays for another's dirty pages.
            seconds[peer] = turns[peer]()
        case = self.cases.setdefault(name, Case(name, "/s"))
        for peer in turns:
            case.add(peer, objects * associations / seconds[peer])
        for folder in folders:
            shutil.rmtree(folder)


def rounds_of(objects: int) -> Iterator[tuple[str, str, int, int, bool]]:
    """Name, kind, objects of each association, associations, and whether the sender's Nagle is off."""
    yield "1 association, CT", CT, objects, 1, True
    for associations in (4, 8, 16):
        yield f"{associations} associations, CT", CT, max(1, 2 * objects // associations), associations, True
    yield "1 association, MR", MR, objects * 3, 1, True
    yield "1 association, CT, Nagle on", CT, max(1, objects // 2), 1, False


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured (default 3)")
    parser.add_argument("--count", type=int, default=300, help="CT objects of one association; three times as many MR ones (default 300)")
    options = parser.parse_args(arguments)
    needs("storescu", "dcmtk")
    conditions = Conditions(
        "dimse",
        f"{DATA_SETS[CT]}; {DATA_SETS[MR]}; {options.count} CT objects, {options.count * 3} MR objects, {options.rounds} rounds",
        options.patience,
    )
    with tempfile.TemporaryDirectory(prefix="bench-dimse-", dir=options.work) as folder, ExitStack() as stack:
        work = Path(folder)
        node = Node(data=work / "node" / "data")
        stack.callback(node.kill)
        node.start()
        orthanc_port = stack.enter_context(peers.orthanc(work / "orthanc"))[0] if peers.has_orthanc() else 0
        bench = Bench(work, node.dimse_port, orthanc_port)
        bench.warm_up()
        for number in range(options.rounds):
            for name, kind, objects, associations, nodelay in rounds_of(options.count):
                bench.round(number, name, kind, objects, associations, nodelay)
    cases = list(bench.cases.values())
    header, lines = table_of(cases)
    off, on = (bench.cases[name].median(NODE) for name in ("1 association, CT", "1 association, CT, Nagle on"))
    notes = [f"Nagle on, this node's rate by its own with Nagle off: {on / off:.2f}."]
    if not orthanc_port:
        notes.append("Orthanc is not installed and was left out.")
    publish(Report("dimse", header, lines, figures_of(cases) | {"nagle_on_by_off": on / off}, conditions.told(), notes), options)


if __name__ == "__main__":
    run(main)
