"""What a DIMSE worker counts, left in a file for whoever answers `/metrics`."""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from archive.dicom.json import dumps

WRITE_SECONDS = 1.0

log = logging.getLogger(__name__)


class CountersFile:
    """`<folder>/<worker>.json`, written whole and put in place by rename, so that a reader never sees half of it.

    It is not synced: what is counted is no promise, and a power cut ends the process whose counts they are.

    Parameters
    ----------
    folder : Path
        Shared by the workers of one node; made where it is missing.
    worker : str
        Names the file; one process at a time.
    snapshot : callable
        Gives all counts by name.
    """

    def __init__(self, folder: Path, worker: str, snapshot: Callable[[], Mapping[str, int]]) -> None:
        self._path = folder / f"{worker}.json"
        self._part = folder / f".{worker}.part"
        self._snapshot = snapshot
        self._written: Mapping[str, int] | None = None
        self._failing = False

    def write(self) -> None:
        """Write the counts if they have changed; that they cannot be written is logged once and stops nobody."""
        counts = self._snapshot()
        if counts == self._written:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._part.write_bytes(dumps(counts))
            self._part.replace(self._path)
        except OSError as error:
            if not self._failing:
                log.warning("counters cannot be written to %s: %s", self._path, error.strerror)
            self._failing = True
            return
        self._written, self._failing = counts, False


def forget_missing_workers(folder: Path, kind: str, workers: int) -> None:
    """Remove counters of workers that this node has no more, so that nobody takes them for living ones."""
    for path in folder.glob(f"{kind}-*.json"):
        number = path.stem.rpartition("-")[2]
        if number.isdecimal() and int(number) >= workers:
            path.unlink(missing_ok=True)
