"""What a running node takes, looked at every few seconds: memory, descriptors, threads, disk. Is it flat, and a chart of it."""

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import matplotlib
from matplotlib.figure import Figure

from tests.kit import Node

GROWTH_MAX = 1.10
"""From the second quarter of a run, when everything is warm, to its last."""
REMEMBERING = ("index", "packer-0")


@dataclass(frozen=True)
class Kind:
    """Something that is counted, by process or by folder.

    Attributes
    ----------
    slack : float
        So much more is no growth: a worker that had one more request to serve at the moment.
    deleted : float
        So much more for each object deleted, which is remembered for good: in the index, and in packs, whose content index lies in the
        packer's memory while they are compacted.
    """

    name: str
    unit: str
    slack: float
    deleted: float = 0.0


MEMORY = Kind("memory besides mapped pages", "MiB", 12, 3 / 1024)
DESCRIPTORS = Kind("descriptors", "", 24)
THREADS = Kind("threads", "", 12)
DISK = Kind("disk", "MiB", 96)
INDEX = Kind("pages of LMDB", "MiB", 2, 0.5 / 1024)


@dataclass
class Series:
    """What was counted of one process or folder, in the order of time."""

    seconds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def growth(self) -> tuple[float, float]:
        """Medians of the second quarter and of the last."""
        quarter = max(1, len(self.values) // 4)
        return median(self.values[quarter : 2 * quarter] or self.values), median(self.values[-quarter:])


class Watch:
    """Looks at a node until it is told to end; a process that is started anew goes on under its name."""

    def __init__(self, node: Node, every_seconds: float) -> None:
        self._node, self._every = node, every_seconds
        self._over = threading.Event()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run)
        self.found: dict[Kind, dict[str, Series]] = {}
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._every):
            self.look()

    def look(self) -> None:
        """Once."""
        now = time.monotonic() - self._started
        for name, pid in self._processes().items():
            try:
                status = Path(f"/proc/{pid}/status").read_text()
                descriptors = len(os.listdir(f"/proc/{pid}/fd"))
            except (FileNotFoundError, ProcessLookupError):
                continue
            self._add(MEMORY, name, now, int(_field(status, "RssAnon")) / 1024)
            self._add(DESCRIPTORS, name, now, descriptors)
            self._add(THREADS, name, now, int(_field(status, "Threads")))
        for folder in ("journal", "packs", "pool", "derived", "index", "audit", "commitment"):
            if (self._node.data / folder).exists():
                self._add(INDEX if folder == "index" else DISK, folder, now, allocated_bytes(self._node.data / folder) / 2**20)

    def _add(self, kind: Kind, name: str, now: float, value: float) -> None:
        series = self.found.setdefault(kind, {}).setdefault(name, Series())
        series.seconds.append(now)
        series.values.append(value)

    def _processes(self) -> dict[str, int]:
        process = self._node.process
        workers = re.findall(r": (\S+) is process (\d+)", self._node.log())
        return {name: int(pid) for name, pid in workers} | ({"supervisor": process.pid} if process else {})


def _field(status: str, name: str) -> str:
    (value,) = re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)
    return str(value)


def allocated_bytes(folder: Path) -> int:
    """Of all files below a folder, of which some may go meanwhile."""
    total = 0
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name), follow_symlinks=False).st_blocks * 512
            except FileNotFoundError:
                continue
    return total


def growing(found: Mapping[Kind, Mapping[str, Series]], deleted: int = 0) -> list[str]:
    """What is not flat, a line each; `deleted` objects were between the two quarters."""
    lines = []
    for kind, by_name in found.items():
        for name, series in by_name.items():
            before, after = series.growth()
            remembered = kind.deleted * deleted if name in REMEMBERING else 0.0
            if after > before * GROWTH_MAX + kind.slack + remembered:
                lines.append(f"{kind.name} of {name} went from {before:.0f} to {after:.0f} {kind.unit}".rstrip())
    return lines


def table(found: Mapping[Kind, Mapping[str, Series]]) -> list[str]:
    """Lines of a Markdown table: medians of the second and last quarter, and the most."""
    lines = ["| | second quarter | last quarter | most |", "|---|--:|--:|--:|"]
    for kind, by_name in found.items():
        for name, series in sorted(by_name.items()):
            before, after = series.growth()
            what = f"{kind.name}, {name}" + (f" ({kind.unit})" if kind.unit else "")
            lines.append(f"| {what} | {before:.0f} | {after:.0f} | {max(series.values):.0f} |")
    return lines


def draw(path: Path, title: str, found: Mapping[Kind, Mapping[str, Series]]) -> None:
    """A panel for each kind, a line for each process or folder, over minutes."""
    # Text stays text, and the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "soak", "font.size": 9}):
        figure = Figure(figsize=(10, 2.2 * len(found)), layout="constrained")
        figure.suptitle(title)
        panels = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (kind, by_name) in zip(panels, found.items(), strict=True):
            for name, series in sorted(by_name.items()):
                axes.plot([s / 60 for s in series.seconds], series.values, label=name, linewidth=1)
            axes.set_title(f"{kind.name} ({kind.unit})" if kind.unit else kind.name, loc="left", fontsize=9)
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
            axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)
        axes.set_xlabel("minutes")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
