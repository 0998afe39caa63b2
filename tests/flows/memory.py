"""Memory of a node's processes, sampled while a test runs."""

import os
import re
import threading
from pathlib import Path
from types import TracebackType

from tests.kit import Node

INTERVAL_SECONDS = 0.02


def processes_of(node: Node) -> dict[str, int]:
    """Ids of the node's processes, by name: `supervisor`, `dimse-0`, `web-0`, `packer-0`, and what runs for a moment."""
    assert node.process is not None, "the node does not run"
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(folder.name)) != node.process.pid:
                continue
            words = (folder / "cmdline").read_bytes().decode().split("\0")
        except (ProcessLookupError, FileNotFoundError):
            continue  # It ended between two looks.
        found[words[words.index("archive.node.worker") + 2] if "archive.node.worker" in words else "supervisor"] = int(folder.name)
    return found


def anonymous_bytes(node: Node) -> dict[str, int]:
    """Resident memory besides mapped files (RssAnon), by process of the node: its name and id."""
    found = {}
    for name, pid in processes_of(node).items():
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except (ProcessLookupError, FileNotFoundError):
            continue
        resident = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
        if resident:  # A process on its way out has none.
            found[f"{name} ({pid})"] = int(resident[1]) * 1024
    return found


class MemoryWatch:
    """Samples the memory of a node's processes for as long as it is entered.

    Attributes
    ----------
    peak_bytes : dict of str to int
        The most that each process had at a sample.
    samples : int
        How often was looked.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-watch")
        self.peak_bytes: dict[str, int] = {}
        self.samples = 0

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_SECONDS):
            for name, count in anonymous_bytes(self._node).items():
                self.peak_bytes[name] = max(self.peak_bytes.get(name, 0), count)
            self.samples += 1

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()
