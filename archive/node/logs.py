"""Log lines of every process of a node: one event, one line on stderr.

    2026-11-22T11:00:00.123Z WARNING dimse-0 archive.dimse.server: association of 10.0.0.7 rejected: ...

A line break in a message (a peer's AE title may hold one) is written as `\\n`, so that nobody can forge a line; a traceback
follows its message on the same line.
"""

import logging
import sys

from archive.flow.audit import utc_of


class OneLine(logging.Formatter):
    """UTC time, level, process, message; nothing of it breaks the line."""

    def __init__(self, process: str) -> None:
        super().__init__(f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s" if process else "%(levelname)s: %(message)s")

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return utc_of(record.created)

    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return line.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n") if "\n" in line or "\r" in line else line


def log_to_stderr(process: str, level: str) -> None:
    """Send the log of this process to stderr, in place of whatever took it before.

    Parameters
    ----------
    process : str
        Name of the process in the node, as `dimse-0`; empty for a verb at a terminal, which says `warning: ...` alone.
    level : str
        Least severity: debug, info, warning or error.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine(process))
    logging.basicConfig(handlers=[handler], level=level.upper(), force=True)
    logging.captureWarnings(True)
