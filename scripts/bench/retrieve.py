"""C-MOVE and C-GET of a series of CT by DCMTK's movescu and getscu, their start and association included: this node and Orthanc, in turn.

The destination of C-MOVE is DCMTK's storescp; it takes as many associations as it is offered, and stores nothing, as getscu does not.
Everybody serves the objects as they are stored: the node from packs. storescu sends the same objects from files to the same destination,
over one association and without being asked: what the destination takes in. A ratio above 1: this node is faster.
"""

import subprocess
import tempfile
import time
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
from tests.kit import Node

ORTHANC, STORESCU, DESTINATION = "Orthanc", "storescu", "DESTINATION"


def command_of(program: str, port: int, one: Sent) -> list[str]:
    """A call of movescu or getscu for the series of an object."""
    own = ["-aem", DESTINATION] if program == "movescu" else ["--ignore"]
    keys = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": one.study_instance_uid, "SeriesInstanceUID": one.series_instance_uid}
    pairs = [part for keyword, value in keys.items() for part in ("-k", f"{keyword}={value}")]
    return [needs(program, "dcmtk"), "-v", "-S", "-pdu", "131072", "-aec", "ARCHIVE", *own, *pairs, "127.0.0.1", str(port)]


def rate(program: str, port: int, one: Sent, objects: int) -> float:
    """Objects a second.

    Raises
    ------
    Missing
        It fails, or not all of them came.
    """
    started = time.monotonic()
    done = subprocess.run(command_of(program, port, one), capture_output=True, text=True, env=peers.WITHOUT_NAGLE, timeout=600)
    seconds = time.monotonic() - started
    said = done.stdout + done.stderr
    # getscu tells of each object; movescu learns from the last response whether all came.
    came = said.count("Received C-STORE Request") if program == "getscu" else objects * said.count("Received Final Move Response (Success)")
    if done.returncode or "E:" in said or "W:" in said or came != objects:
        raise Missing(f"{program}: {came} of {objects} objects, exit code {done.returncode}: {said[-600:]}")
    return objects / seconds


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=5, help="how often each case is measured (default 5)")
    parser.add_argument("--count", type=int, default=100, help="objects of the series (default 100)")
    options = parser.parse_args(arguments)
    needs("storescu", "dcmtk")
    conditions = Conditions("retrieve", f"{DATA_SETS[CT]}; one series of {options.count}; {options.rounds} rounds", options.patience)
    cases = [Case("C-MOVE", "/s"), Case("C-GET", "/s")]
    with tempfile.TemporaryDirectory(prefix="bench-retrieve-", dir=options.work) as folder, ExitStack() as stack:
        work = Path(folder)
        destination = stack.enter_context(peers.storescp(work / "storescp", "--fork", keep=False))
        node = Node(data=work / "node" / "data", arguments=["--peer", f"{DESTINATION}=127.0.0.1:{destination}"])
        stack.callback(node.kill)
        node.start()
        ports = {NODE: node.dimse_port}
        if peers.has_orthanc():
            ports[ORTHANC] = stack.enter_context(peers.orthanc(work / "orthanc", {DESTINATION: destination}))[0]
        sent = make_series(work / "objects", CT, options.count, seed=1)
        for port in ports.values():
            push(port, [work / "objects"])
        node.cli("pack", "--now")
        for number in range(options.rounds):
            for case, program in zip(cases, ("movescu", "getscu"), strict=True):
                for peer in in_turn([*ports, STORESCU] if program == "movescu" else ports, number):
                    if peer == STORESCU:
                        case.add(peer, options.count / push(destination, [work / "objects"]))
                    else:
                        case.add(peer, rate(program, ports[peer], sent[0], options.count))
    header, lines = table_of(cases)
    notes = [] if peers.has_orthanc() else ["Orthanc is not installed and was left out."]
    publish(Report("retrieve", header, lines, figures_of(cases), conditions.told(), notes), options)


if __name__ == "__main__":
    run(main)
