"""C-STORE of objects of a gigabyte by DCMTK's storescu to this node and to DCMTK's storescp: one, and four at the same time.

Both keep what they get: storescp writes files and does not sync them (with four it forks), the node fsyncs before it answers. Each turn has
a node of its own in a new folder, so that nothing is packed meanwhile; its processes' anonymous memory (RssAnon, what is not a mapped
file) is looked at fifty times a second. Needs the size of the objects twice on the disk, and storescu's memory.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.uid import UID, generate_uid

from scripts.bench import peers
from scripts.bench.common import NODE, Case, Report, figures_of, in_turn, needs, parser_of, publish, run, table_of
from scripts.bench.conditions import Conditions
from scripts.bench.dimse import push
from tests.flows.memory import MemoryWatch
from tests.kit import Node

STORESCP = "storescp"
MULTI_FRAME_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
ROWS = COLUMNS = 512
FRAME_BYTES = ROWS * COLUMNS * 2
AT_ONCE = (1, 4)
MB, MIB = 1_000_000, 1 << 20


def make_large(path: Path, megabytes: int, seed: int) -> None:
    """One multi-frame object in a new file; another seed gives another object."""
    frames = max(1, megabytes * MB // FRAME_BYTES)
    data_set = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    for keyword in ("PixelData", "DataSetTrailingPadding"):
        if keyword in data_set:
            del data_set[keyword]
    data_set.Rows, data_set.Columns, data_set.NumberOfFrames = ROWS, COLUMNS, frames
    data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = UID(MULTI_FRAME_WORD)
    names = ("study", "series", "instance")
    study, series, instance = (generate_uid(entropy_srcs=["large", str(seed), name]) for name in names)
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = study, series
    data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = instance
    data_set.save_as(path, enforce_file_format=True)
    noise = np.random.default_rng(seed)
    with path.open("ab") as file:
        file.write(b"\xe0\x7f\x10\x00OW\0\0" + (frames * FRAME_BYTES).to_bytes(4, "little"))
        for _ in range(frames):
            file.write(noise.bytes(FRAME_BYTES))


class Bench:
    """All rounds of both cases.

    Parameters
    ----------
    work : Path
        An empty folder.
    """

    def __init__(self, work: Path, megabytes: int) -> None:
        self._work, self._megabytes = work, megabytes
        self.cases: dict[int, Case] = {}
        self.peak_bytes: dict[str, int] = {}

    def round(self, number: int, at_once: int) -> None:
        """One round of one case."""
        folders = []
        for n in range(at_once):
            folders.append(self._work / f"object-{n}")
            folders[-1].mkdir()
            make_large(folders[-1] / "large.dcm", self._megabytes, number * max(AT_ONCE) + n)
        seconds = {}
        for peer in in_turn((NODE, STORESCP), number):
            os.sync()  # Nobody pays for another's dirty pages.
            seconds[peer] = self._to_node(folders) if peer == NODE else self._to_storescp(folders)
        case = self.cases.setdefault(at_once, Case(f"{at_once} at once", "MB/s"))
        for peer, took in seconds.items():
            case.add(peer, at_once * self._megabytes / took)
        for folder in folders:
            shutil.rmtree(folder)

    def _to_node(self, folders: list[Path]) -> float:
        node = Node(data=self._work / "node" / "data").start()
        try:
            with MemoryWatch(node) as memory:
                seconds = push(node.dimse_port, folders)
        finally:
            node.kill()
            shutil.rmtree(self._work / "node")
        for process, count in memory.peak_bytes.items():
            kind = re.split(r"-\d| \(", process)[0]
            self.peak_bytes[kind] = max(self.peak_bytes.get(kind, 0), count)
        return seconds

    def _to_storescp(self, folders: list[Path]) -> float:
        with peers.storescp(self._work / "storescp", *(["--fork"] if len(folders) > 1 else [])) as port:
            return push(port, folders)


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured (default 3)")
    parser.add_argument("--megabytes", type=int, default=1000, help="size of an object (default 1000)")
    options = parser.parse_args(arguments)
    needs("storescu", "dcmtk")
    conditions = Conditions(
        "large", f"objects of {options.megabytes} MB, frames of 512 x 512 x 16 bit of noise, {options.rounds} rounds", options.patience
    )
    with tempfile.TemporaryDirectory(prefix="bench-large-", dir=options.work) as folder:
        bench = Bench(Path(folder), options.megabytes)
        for number in range(options.rounds):
            for at_once in AT_ONCE:
                bench.round(number, at_once)
    header, lines = table_of(bench.cases.values())
    most = ", ".join(f"{kind} {count / MIB:.0f} MiB" for kind, count in sorted(bench.peak_bytes.items()))
    figures = figures_of(bench.cases.values()) | {"peak_bytes": bench.peak_bytes}
    publish(Report("large", header, lines, figures, conditions.told(), [f"Most anonymous memory of a process: {most}."]), options)


if __name__ == "__main__":
    run(main)
