"""Reports of storage commitment: N-EVENT-REPORT to whoever asked (DICOM PS3.4 J.3.3, PS3.7 10.1.1).

On the association of the request while that is open; else on a new one, in which this node takes the role of SCP. What is not taken
is tried again, the longer after the oftener, by this process or by the one that takes its place.
"""

import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from archive.config import Settings
from archive.dicom.commitment import Verdict, write_event_information
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dimse.command import Command, CommandField, Field
from archive.dimse.message import Context
from archive.dimse.outgoing import Outgoing
from archive.dimse.pdu import AssociationEnded
from archive.dimse.requesting import Wanted
from archive.dimse.service import Requestor
from archive.dimse.status import SUCCESS
from archive.errors import ArchiveError
from archive.flow.commitment import Commitment
from archive.flow.commitment_requests import CommitmentRequests, Held
from archive.pack.segment import now_us

log = logging.getLogger(__name__)

PUSH_MODEL, PUSH_MODEL_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
ALL_COMMITTED, FAILURES_EXIST = 1, 2
"""Event Types (PS3.4 J.3.3)."""

LOOK_SECONDS = 0.25
"""How soon it is seen that what was to be packed is packed; the longer it takes, the less often it is looked at."""
TAKE_SECONDS = 5.0
FIRST_RETRY_SECONDS = 5.0
AT_ONCE = 4

_WANTED = [Wanted(PUSH_MODEL, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))]
_ROLES = {PUSH_MODEL: (False, True)}


class _Stopped(Exception):
    """The process ends; another one goes on."""


@dataclass(slots=True)
class _Waiting:
    """A request that this process answers.

    Attributes
    ----------
    association, context
        Of the request, as long as they may serve.
    due : float
        When it is its turn, by time.monotonic().
    pause : float
        Seconds until the next look, or try.
    tries : int
        How often the report was not taken.
    """

    held: Held
    association: Requestor | None
    context: Context | None
    due: float
    pause: float = LOOK_SECONDS
    tries: int = 0

    def __str__(self) -> str:
        request = self.held.request
        return f"calling={request.calling_ae_title!r} transaction_uid={request.transaction_uid}"


class Reporter:
    """Answers the requests that this process holds, and takes those that nobody holds.

    Parameters
    ----------
    requests : CommitmentRequests
        Of this process.
    commitment : Commitment
        Judges them.
    settings : Settings
        Of the node.
    """

    def __init__(self, requests: CommitmentRequests, commitment: Commitment, settings: Settings) -> None:
        self._requests, self._commitment, self._settings = requests, commitment, settings
        self._waiting: list[_Waiting] = []
        self._calling: set[Outgoing] = set()
        self._changed = threading.Condition()
        self._stopped = False
        self._pool = ThreadPoolExecutor(AT_ONCE, "commitment")
        self._scheduler = threading.Thread(target=self._run, name="commitment", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._scheduler.start()

    def stop(self) -> None:
        """End; what is not answered stays for whoever comes next."""
        with self._changed:
            self._stopped = True
            self._changed.notify()
            for outgoing in self._calling:
                outgoing.drop()
        if self._scheduler.is_alive():
            self._scheduler.join()
        self._pool.shutdown(wait=True, cancel_futures=True)
        for waiting in self._waiting:
            self._requests.release(waiting.held)

    def add(self, held: Held, association: Requestor, context: Context) -> None:
        """Answer a request that just came, in the place of the same one that came before."""
        with self._changed:
            former = [w for w in self._waiting if w.held.path == held.path]
            self._waiting = [w for w in self._waiting if w.held.path != held.path]
        for waiting in former:
            self._requests.release(waiting.held)
        self._put(_Waiting(held, association, context, time.monotonic()))

    def _put(self, waiting: _Waiting) -> None:
        with self._changed:
            self._waiting.append(waiting)
            self._changed.notify()

    def _run(self) -> None:
        next_take = 0.0
        while True:
            now = time.monotonic()
            if now >= next_take:
                next_take = now + TAKE_SECONDS
                self._take()
            with self._changed:
                if self._stopped:
                    return
                due = [w for w in self._waiting if w.due <= now]
                self._waiting = [w for w in self._waiting if w.due > now]
                if not due:
                    self._changed.wait(max(0.0, min([next_take, *(w.due for w in self._waiting)]) - now))
                    continue
            for waiting in due:
                self._pool.submit(self._attend, waiting)

    def _take(self) -> None:
        try:
            for held in self._requests.take():
                log.info("storage commitment taken over: calling=%r", held.request.calling_ae_title)
                self._put(_Waiting(held, None, None, time.monotonic()))
        except OSError as error:
            log.error("storage commitment requests cannot be read: %s", error)

    def _attend(self, waiting: _Waiting) -> None:
        """Judge a request and report it; put it back where that cannot be done yet, let go of it where it was asked again."""
        try:
            if not self._requests.is_current(waiting.held):
                self._requests.release(waiting.held)
                return
            if not self._settle(waiting):
                waiting.due = time.monotonic() + waiting.pause
                self._put(waiting)
                return
            self._requests.forget(waiting.held)
        except _Stopped:
            self._put(waiting)
        except Exception:
            log.exception("storage commitment fails inside: %s", waiting)
            waiting.due = time.monotonic() + self._settings.commitment.retry_seconds_max
            self._put(waiting)

    def _settle(self, waiting: _Waiting) -> bool:
        """Whether it is done with: answered, or given up."""
        request = waiting.held.request
        old = (now_us() - request.received_us) / 1e6 > self._settings.commitment.age_seconds_max
        try:
            verdict = self._commitment.judge(request.references, self._go_on)
        except (ArchiveError, OSError) as error:
            verdict = None
            log.warning("storage commitment waits: %s: %s", waiting, error)
            waiting.pause = max(waiting.pause, FIRST_RETRY_SECONDS)
        if verdict is None:
            waiting.pause = min(waiting.pause * 1.5, FIRST_RETRY_SECONDS)
        elif not self._requests.is_current(waiting.held) or self._tell(waiting, verdict):  # It may have been asked again meanwhile.
            return True
        else:
            waiting.tries += 1
            waiting.pause = min(FIRST_RETRY_SECONDS * 2 ** min(waiting.tries - 1, 30), self._settings.commitment.retry_seconds_max)
        if old:
            log.error("storage commitment given up after commitment.age_seconds_max: %s", waiting)
        return old

    def _go_on(self) -> None:
        if self._stopped:
            raise _Stopped

    def _tell(self, waiting: _Waiting, verdict: Verdict) -> bool:
        """Whether the requestor took the report."""
        response = self._tell_here(waiting, verdict)
        how = "on its association"
        if response is None:
            how = "on a new association"
            try:
                response = self._tell_anew(waiting, verdict)
            except AssociationEnded as end:
                self._go_on()
                log.log(logging.WARNING if not waiting.tries else logging.INFO, "storage commitment not reported yet: %s: %s", waiting, end)
                return False
        status = response.number(Field.STATUS)
        if status != SUCCESS:
            log.warning("storage commitment report refused: %s: status=0x%04X %s", waiting, status, response.text(Field.ERROR_COMMENT))
            return False
        log.info(
            "storage commitment reported %s: %s committed=%d failed=%d", how, waiting, len(verdict.committed), len(verdict.failed)
        )  # fmt: skip
        return True

    def _tell_here(self, waiting: _Waiting, verdict: Verdict) -> Command | None:
        association, context = waiting.association, waiting.context
        if association is None or context is None:
            return None
        waiting.association = waiting.context = None  # It serves once: one that does not answer is left alone.
        data = self._information(waiting, verdict, context)
        return association.report(context, _event(verdict), data, self._settings.dimse.answer_seconds_max)

    def _tell_anew(self, waiting: _Waiting, verdict: Verdict) -> Command:
        title = waiting.held.request.calling_ae_title
        remote_ae = self._settings.peers.get(title)
        if remote_ae is None or not remote_ae.host:
            raise AssociationEnded(f"{title} has no host in [peers], and its association is over")
        outgoing = Outgoing(title, remote_ae, self._settings.dimse)
        with self._changed:
            self._go_on()
            self._calling.add(outgoing)
        try:
            outgoing.open(_WANTED, _ROLES)
            [context] = outgoing.contexts.values()
            data = self._information(waiting, verdict, context)
            response = outgoing.call(context, _event(verdict), data)
            outgoing.release()
            return response
        except AssociationEnded:
            outgoing.abort()
            raise
        finally:
            with self._changed:
                self._calling.discard(outgoing)

    def _information(self, waiting: _Waiting, verdict: Verdict, context: Context) -> bytes:
        title = self._settings.dimse.ae_title
        return write_event_information(waiting.held.request.transaction_uid, verdict, title, context.transfer_syntax)


def _event(verdict: Verdict) -> Mapping[int, int | bytes]:
    """Elements of the N-EVENT-REPORT-RQ."""
    return {
        Field.AFFECTED_SOP_CLASS_UID: PUSH_MODEL.encode("ascii"),
        Field.COMMAND_FIELD: CommandField.N_EVENT_REPORT_RQ,
        Field.AFFECTED_SOP_INSTANCE_UID: PUSH_MODEL_INSTANCE.encode("ascii"),
        Field.EVENT_TYPE_ID: FAILURES_EXIST if verdict.failed else ALL_COMMITTED,
    }
