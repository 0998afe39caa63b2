"""Who read or wrote what (promise P8): one line of JSON for each event, told in the background.

The first of equal events is written at once; equal ones that follow it within `GATHER_SECONDS` are added up and told in one line more. So
a series of a thousand objects is a few lines, and what has happened is known though the process dies: only how often may be told short.
Nobody waits for the disk, and no event is lost without a word: one that cannot be written goes to the log as an error, as a whole.
"""

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from archive.dicom.json import dumps

GATHER_SECONDS = 10.0
EVENTS_MAX = 10_000
"""Different events that are gathered at once; more are told one by one in the log."""
CLOSE_SECONDS_MAX = 5.0
TOLD_AT_ONCE_MAX = 256
"""Events that are looked at in one go: so long waits who has another one."""

log = logging.getLogger(__name__)

_LINE_BREAKS = {ord(character): f"\\u{ord(character):04x}" for character in "\x85\u2028\u2029"}
"""What Unicode takes for the end of a line, and JSON does not: readers that split a text into lines must not."""


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
        As the actor was told; aborted, where the association ended before.
    destination : str
        AE title to which a C-MOVE sent, or was to.
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


class _Told(NamedTuple):
    """Equal events on their way out."""

    event: Event
    events: int
    instances: int
    since: float


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
        self._new: deque[Event] = deque()
        self._gathered: deque[tuple[float, Event]] = deque()
        self._told: deque[_Told] = deque()
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
                self._waiting[event] = _Count(1, instances, now)
                self._new.append(event)
                self._changed.notify()
                return
        line = self._line(_Told(event, 1, instances, now))
        log.error("audit: an event is not gathered, there are too many or the process ends: %s", line.decode().rstrip())

    def close(self) -> None:
        """Tell what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread:
            self._thread.join(CLOSE_SECONDS_MAX)
            if self._thread.is_alive():
                with self._changed:
                    events = sum(count.events for count in self._waiting.values()) + sum(told.events for told in self._told)
                log.error("audit: %d events are not written, the process ends", events)

    def _tell(self) -> None:
        ended = False
        while not ended:
            with self._changed:
                seconds = self._gathered[0][0] - time.monotonic() if self._gathered else None
                self._changed.wait_for(self._has_something, seconds)
                self._take()
                ended = self._closed and not self._waiting
            while self._told:
                self._write(self._line(self._told[0]))
                with self._changed:
                    self._told.popleft()

    def _has_something(self) -> bool:
        return self._closed or bool(self._new) or (bool(self._gathered) and self._gathered[0][0] <= time.monotonic())

    def _take(self) -> None:
        """Put what is to be told now where it is told from: new events, and those that were gathered for long enough."""
        now = time.monotonic()
        for _ in range(TOLD_AT_ONCE_MAX):
            if self._new:
                event = self._new.popleft()
            elif self._gathered and (self._closed or self._gathered[0][0] <= now):
                event = self._gathered.popleft()[1]
            else:
                return
            count = self._waiting[event]
            if not count.events:
                del self._waiting[event]
                continue
            self._told.append(_Told(event, count.events, count.instances, count.since))
            count.events = count.instances = 0
            self._gathered.append((now + self._gather_seconds, event))  # All wait equally long, so they lie in the order of their time.

    def _write(self, line: bytes) -> None:
        assert self._lines is not None
        try:
            self._lines.write(line)
        except Exception as error:
            log.error("audit: cannot be written, %s: %s", error, line.decode().rstrip())

    def _line(self, told: _Told) -> bytes:
        line: dict[str, object] = {"time": utc_of(told.since)}
        if told.events > 1:
            line |= {"until": utc_of(time.time()), "events": told.events}
        line |= {"process": self._process, **told.event._asdict(), "instances": told.instances}
        return dumps(line).decode().translate(_LINE_BREAKS).encode() + b"\n"


def utc_of(seconds: float) -> str:
    """A time as lines of logs have it: UTC with milliseconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{int(seconds % 1 * 1000):03d}Z"
