"""What surrounds a measurement: when, on which machine, how quiet it was, of which commit."""

import os
import platform
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.kit import ROOT

QUIET_SHARE, QUIET_SECONDS = 0.05, 5.0
"""A machine is quiet when others took no more of its processors for so long."""


def busy_share(seconds: float = 1.0) -> float:
    """Share of all processor time that somebody takes, watched for so long; 0.0 to 1.0."""

    def look() -> tuple[int, int]:
        user, nice, system, idle, io_wait, *others = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:8])
        return user + nice + system + sum(others), idle + io_wait

    busy, idle = look()
    time.sleep(seconds)
    busy_then, idle_then = look()
    return (busy_then - busy) / max(1, busy_then - busy + idle_then - idle)


class Conditions:
    """What surrounds a measurement; made before it, asked after it.

    Parameters
    ----------
    patience_seconds : float
        How long to wait for a quiet machine.
    """

    def __init__(self, name: str, data_set: str, patience_seconds: float) -> None:
        self._name, self._data_set = name, data_set
        until = time.monotonic() + patience_seconds
        self._busy = busy_share()
        while self._busy > QUIET_SHARE and time.monotonic() < until:
            self._busy = busy_share(QUIET_SECONDS)
        self._began = datetime.now(UTC)
        self._load = os.getloadavg()[0]

    def told(self) -> dict[str, str]:
        command = shlex.join([f"scripts/bench/{self._name}", *sys.argv[1:]])
        return {
            "when": f"{self._began:%Y-%m-%d %H:%M} UTC, {(datetime.now(UTC) - self._began).seconds} s",
            "machine": machine(),
            "load": f"others took {self._busy:.0%} of the processors just before; {self._load:.1f} before, {os.getloadavg()[0]:.1f} after",
            "data set": self._data_set,
            "command": f"`{command}`",
            "commit": commit(),
        }


def machine() -> str:
    """Processor, memory, kernel, Python."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    processor = found[1].strip() if found else platform.machine()
    return f"{os.cpu_count()} x {processor}, {memory:.0f} GiB, Linux {platform.release()}, Python {platform.python_version()}"


def commit() -> str:
    """The commit that was measured, and whether the archive's code differed from it."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "archive"], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{found} with changes in archive/" if changed else found
