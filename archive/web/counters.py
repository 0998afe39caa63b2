"""Counters of all workers, readable by each: one small mapped file per worker.

A scrape reaches any one of the workers; it must answer for all of them. A worker that is restarted under its number goes on
where the one before stopped, so that counters never fall while the node runs.
"""

import mmap
import os
import struct
import zlib
from pathlib import Path

TRANSACTIONS = (
    "retrieve_study",
    "retrieve_series",
    "retrieve_instance",
    "retrieve_study_metadata",
    "retrieve_series_metadata",
    "retrieve_instance_metadata",
    "retrieve_instance_frames",
    "retrieve_bulkdata",
    "search_for_studies",
    "search_for_series",
    "search_for_instances",
    "viewer",
    "other",
)
OUTCOMES = ("1xx", "2xx", "3xx", "4xx", "5xx")
SECONDS_BOUNDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)

_NAMES = (
    *(f"requests_total/{transaction}/{outcome}" for transaction in TRANSACTIONS for outcome in OUTCOMES),
    *(f"seconds_sum/{transaction}" for transaction in TRANSACTIONS),
    *(f"seconds_within/{transaction}/{bound}" for transaction in TRANSACTIONS for bound in SECONDS_BOUNDS),
    "answers_cut_total",
    "requests_refused_total",
    "connections_refused_total",
    "connections_total",
    "requests_open",
    "connections_open",
)
_GAUGES = ("requests_open", "connections_open")
_SLOT = struct.Struct("<d")
_INDEX = {name: 8 * (n + 1) for n, name in enumerate(_NAMES)}
_LAYOUT = struct.pack("<Q", zlib.crc32("\n".join(_NAMES).encode()))
_LENGTH = 8 * (len(_NAMES) + 1)


class Counters:
    """The counters of one worker, and a look at those of the others.

    Parameters
    ----------
    folder : Path
        Shared by the workers of one node; made where it is missing.
    worker : str
        Names the file; one process at a time.
    """

    def __init__(self, folder: Path, worker: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.worker = worker
        self._folder = folder
        fd = os.open(folder / f"{worker}.counters", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            if os.pread(fd, 8, 0) != _LAYOUT or os.fstat(fd).st_size != _LENGTH:
                os.ftruncate(fd, 0)
                os.ftruncate(fd, _LENGTH)
                os.pwrite(fd, _LAYOUT, 0)
            self._map = mmap.mmap(fd, _LENGTH)
        finally:
            os.close(fd)
        for name in _GAUGES:
            _SLOT.pack_into(self._map, _INDEX[name], 0.0)

    def add(self, name: str, amount: float = 1.0) -> None:
        """Add to one counter; for the loop's thread alone."""
        at = _INDEX[name]
        _SLOT.pack_into(self._map, at, _SLOT.unpack_from(self._map, at)[0] + amount)

    def set(self, name: str, value: float) -> None:
        """Set one gauge; for the loop's thread alone."""
        _SLOT.pack_into(self._map, _INDEX[name], value)

    def observe(self, transaction: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.add(f"requests_total/{transaction}/{status // 100}xx")
        self.add(f"seconds_sum/{transaction}", seconds)
        for bound in SECONDS_BOUNDS:
            if seconds <= bound:
                self.add(f"seconds_within/{transaction}/{bound}")
                break

    def read_all(self) -> dict[str, dict[str, float]]:
        """By worker, the values by name; a file of another layout is passed over."""
        found = {}
        for path in sorted(self._folder.glob("*.counters")):
            data = path.read_bytes()
            if len(data) == _LENGTH and data[:8] == _LAYOUT:
                found[path.stem] = dict(zip(_NAMES, struct.unpack_from(f"<{len(_NAMES)}d", data, 8), strict=True))
        return found

    def close(self) -> None:
        """Let go of the map; nothing is open any more."""
        for name in _GAUGES:
            _SLOT.pack_into(self._map, _INDEX[name], 0.0)
        self._map.close()
