"""Who read or wrote what (promise P8): one line of JSON for each event, told in the background.

The first of equal events is written at once; equal ones that follow it within `GATHER_SECONDS` are added up and told in one line more. So
a series of a thousand objects is a few lines, and what has happened is known though the process dies: only how often may be told short.
Nobody waits for the disk, and no event is lost without a word: one that cannot be written goes to the log as an error, as a whole.
"""

import logging
import threading
import time
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from archive.dicom.json import dumps

GATHER_SECONDS = 10.0
EVENTS_MAX = 10_000
"""Different events that are gathered at once; more are told one by one in the log."""
CLOSE_SECONDS_MAX = 5.0

log = logging.getLogger(__name__)


class Event(NamedTuple):
    """What happened; equal events are added up.

    Attributes
    ----------
    actor : str
        Calling AE title; empty over HTTP, where callers have no name.
    address : str
        Where the actor called from.
    action : str
        DIMSE operation or DICOMweb transaction.
    study_instance_uid : str
        Empty where none is known: a query that names none, an object that was refused unread.
    outcome : str
        success, warning, failure or cancelled.
    status : str
        As the actor was told.
    destination : str
        AE title to which a C-MOVE sent.
    """

    actor: str
    address: str
    action: str
    study_instance_uid: str
    outcome: str
    status: str
    destination: str = ""


class Lines(Protocol):
    """Where lines go."""

    def write(self, line: bytes) -> None:
        """Take one line, its end included; raises where it cannot."""


@dataclass(slots=True)
class _Count:
    """Equal events that wait to be told."""

    events: int
    instances: int
    since: float
    due: float


class Audit:
    """Takes events from any number of threads, tells them in one of its own.

    Parameters
    ----------
    lines : Lines or None
        None: nothing is told.
    process : str
        Names the process in each line.
    """

    def __init__(self, lines: Lines | None, process: str = "", gather_seconds: float = GATHER_SECONDS) -> None:
        self._lines, self._process, self._gather_seconds = lines, process, gather_seconds
        self._changed = threading.Condition()
        self._waiting: dict[Event, _Count] = {}
        self._next = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._tell, name="audit", daemon=True) if lines else None
        if self._thread:
            self._thread.start()

    def note(self, event: Event, instances: int) -> None:
        """Something happened, to so many instances; of a query: with so many answers."""
        if self._thread is None:
            return
        now = time.time()
        with self._changed:
            count = self._waiting.get(event)
            if count is not None:
                count.since = count.since if count.events else now
                count.events += 1
                count.instances += instances
                return
            if not self._closed and len(self._waiting) < EVENTS_MAX:
                self._waiting[event] = _Count(1, instances, now, 0.0)
                self._next = 0.0
                self._changed.notify()
                return
        line = self._line(event, 1, instances, now, now)
        log.error("audit: an event is not gathered, there are too many or the process ends: %s", line.decode().rstrip())

    def close(self) -> None:
        """Tell what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join(CLOSE_SECONDS_MAX)

    def _tell(self) -> None:
        ended = False
        while not ended:
            with self._changed:
                if not self._closed:
                    self._changed.wait_for(lambda: self._closed or self._next <= time.monotonic(), self._next - time.monotonic())
                ended = self._closed
                lines = self._due(ended)
            for line in lines:
                self._write(line)

    def _due(self, all_of_them: bool) -> list[bytes]:
        """Lines to be written now."""
        now, wall = time.monotonic(), time.time()
        lines = []
        for event, count in list(self._waiting.items()):
            if count.due > now and not all_of_them:
                continue
            if count.events:
                lines.append(self._line(event, count.events, count.instances, count.since, wall))
                count.events, count.instances, count.due = 0, 0, now + self._gather_seconds
            else:
                del self._waiting[event]
        self._next = min((count.due for count in self._waiting.values()), default=now + self._gather_seconds)
        return lines

    def _write(self, line: bytes) -> None:
        assert self._lines is not None
        try:
            self._lines.write(line)
        except Exception as error:
            log.error("audit: cannot be written, %s: %s", error, line.decode().rstrip())

    def _line(self, event: Event, events: int, instances: int, since: float, until: float) -> bytes:
        told: dict[str, object] = {"time": _utc(since)}
        if events > 1:
            told |= {"until": _utc(until), "events": events}
        told |= {"process": self._process, **event._asdict(), "instances": instances}
        return dumps(told) + b"\n"


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
