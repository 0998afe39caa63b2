"""One association in one thread: greeting, messages, release or abort (the acceptor's side of DICOM PS3.8 9.2)."""

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from archive.config import DimseSection, RemoteAe
from archive.dimse import negotiation
from archive.dimse.command import RESPONSE, Command, CommandField, Field, encode_command
from archive.dimse.counters import Counters
from archive.dimse.message import Context, Messages
from archive.dimse.pdu import (
    ASSOCIATE_RQ_BYTES_MAX,
    PDU_HEADER,
    AbortReason,
    AssociationEnded,
    ConnectionLost,
    OutOfTime,
    PeerAborted,
    Rejection,
    Released,
    Violation,
    abort,
    associate_rj,
    release_rp,
)
from archive.dimse.proposal import is_associate_rq, read_proposal
from archive.dimse.service import Service
from archive.dimse.slots import AssociationSlots
from archive.dimse.status import CANCEL, UNRECOGNIZED_OPERATION, outcome_of
from archive.dimse.wire import Wire
from archive.flow.audit import Audit, Event

log = logging.getLogger(__name__)

UNKNOWN_REMOTE_AE = RemoteAe()
"""Whoever is let in without a row in the table of remote AEs."""


class Stopped(AssociationEnded):
    """The node stops."""


@dataclass(slots=True)
class Answer:
    """What somebody waits for: the response to a request of ours."""

    came: threading.Event = field(default_factory=threading.Event)
    response: Command | None = None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the associations of a process share.

    Parameters
    ----------
    settings : DimseSection
        Titles and limits.
    remote_aes : mapping of str to RemoteAe
        The table of remote AEs, by title.
    services : sequence of Service
        In the order in which they are asked.
    slots : AssociationSlots
        Of the whole node.
    counters : Counters
        Of this process.
    audit : Audit
        Takes who read or wrote what.
    unassociated, associated : callable
        Told when a connection becomes one that holds a slot, and when it holds none again.
    """

    settings: DimseSection
    remote_aes: Mapping[str, RemoteAe]
    services: Sequence[Service]
    slots: AssociationSlots
    counters: Counters
    audit: Audit
    associated: Callable[["Association"], None]
    unassociated: Callable[["Association"], None]


class Association:
    """A connection that may become an association; `run` is the whole life of it.

    Attributes
    ----------
    peer : str
        Address and port of the other side.
    busy : bool
        A message is on its way in, or being answered.
    """

    def __init__(self, connection: socket.socket, address: str, surroundings: Surroundings) -> None:
        settings = surroundings.settings
        self._around = surroundings
        self._wire = Wire(connection, settings.stall_seconds_max, settings.idle_seconds_max)
        self._stopping = False
        self.host, self.peer = address.rpartition(":")[0], address
        self.called_ae_title = self.calling_ae_title = ""
        self.busy = False
        self.remote_ae = UNKNOWN_REMOTE_AE
        self.messages: Messages
        self.contexts: Mapping[int, Context] = {}
        self._turn = threading.Lock()  # held while a message is being answered, or one of ours is being sent
        self._ended = False
        self._last_report = 0
        self._reports: dict[int, Answer] = {}
        self._late: set[int] = set()  # reports whose answer nobody waits for any more
        self.extended: Mapping[str, bytes] = {}

    def run(self) -> None:
        """Serve the connection to its end; nothing escapes but what the interpreter itself raises."""
        try:
            self._wire.set_deadline(time.monotonic() + self._around.settings.artim_seconds)
            outcome = self._greet()
            if outcome is not None:
                self._wire.set_deadline(None)
                self._serve(outcome)
        except AssociationEnded as end:
            self._around.counters.add("connections_dropped")
            self._say_goodbye(end)
            # Whoever only looks whether the port is open is no news.
            log.log(logging.INFO if isinstance(end, ConnectionLost) else logging.WARNING, "connection dropped: peer=%s: %s", self.peer, end)
        except Exception:
            log.exception("connection dropped by an error inside: peer=%s", self.peer)
        finally:
            self._wire.close()

    def count(self, name: str, n: int = 1) -> None:
        self._around.counters.add(name, n)

    def audit(
        self, action: CommandField, study_instance_uid: str, status: int | None, instances: int, destination: str = "", outcome: str = ""
    ) -> None:
        name = action.name.removesuffix("_RQ").replace("_", "-")
        told = "aborted" if status is None else f"0x{status:04X}"
        outcome = outcome or outcome_of(CANCEL if status is None else status)
        self._around.audit.note(Event(self.calling_ae_title, self.host, name, study_instance_uid, outcome, told, destination), instances)

    def report(self, context: Context, elements: Mapping[int, int | bytes], data_set: bytes, seconds: float) -> Command | None:
        """Send a request of ours between the peer's and wait for its response; from another thread.

        Parameters
        ----------
        elements : mapping
            Of the command, without Message ID and Command Data Set Type.
        seconds : float
            How long to wait at most.

        Returns
        -------
        Command or None
            None where the association is over, does something else for so long, or does not answer.
        """
        if not self._turn.acquire(timeout=seconds):
            return None
        try:
            if self._ended or self._stopping:
                return None
            self._last_report = message_id = self._last_report % 0xFFFF + 1
            self._late.discard(message_id)
            answer = self._reports[message_id] = Answer()
            command = {**elements, Field.MESSAGE_ID: message_id, Field.COMMAND_DATA_SET_TYPE: 0x0001}
            self.messages.send(context.context_id, encode_command(command), data_set)
        except AssociationEnded as end:
            log.debug("no report on this association: %s: %s", self._names(), end)
            return None
        finally:
            self._turn.release()
        answer.came.wait(seconds)
        if answer.response is None:
            self._late.add(message_id)
        self._reports.pop(message_id, None)
        return answer.response

    def stop(self) -> None:
        """Abort it as soon as no message is on its way; from another thread."""
        self._stopping = True
        if not self.busy:
            self._wire.interrupt()

    def stop_now(self) -> None:
        """Abort it, message or not; from another thread."""
        self._stopping = True
        self._wire.interrupt()

    def drop(self) -> None:
        """Let the connection go without a word; from another thread."""
        self._wire.drop()

    def _greet(self) -> negotiation.Outcome | None:
        """Read the A-ASSOCIATE-RQ and answer it; None where it was rejected."""
        settings = self._around.settings
        header = bytes(self._wire.take(PDU_HEADER.size, idle=True))
        length = is_associate_rq(header)
        if length > ASSOCIATE_RQ_BYTES_MAX:
            raise Violation(AbortReason.INVALID_PARAMETER, f"an A-ASSOCIATE-RQ of {length} bytes")
        body = bytearray(length)
        self._wire.read_into(memoryview(body))
        proposal = read_proposal(header + body)
        self.called_ae_title, self.calling_ae_title = proposal.called_ae_title, proposal.calling_ae_title
        self.remote_ae = self._around.remote_aes.get(self.calling_ae_title, UNKNOWN_REMOTE_AE)
        rejection = negotiation.reject(proposal, settings, self._around.remote_aes)
        if rejection is None and self._stopping:
            raise Stopped("the node stops")
        if rejection is None and not self._around.slots.take(self.calling_ae_title):
            rejection = Rejection.LOCAL_LIMIT_EXCEEDED
        if rejection is not None:
            self.count("associations_rejected")
            self._around.audit.note(Event(self.calling_ae_title, self.host, "associate", "", "failure", rejection.name.lower()), 0)
            log.warning("association rejected: %s: %s", self._names(), rejection.name.lower().replace("_", " "))
            self._wire.send(associate_rj(rejection))
            self._wire.await_close(settings.artim_seconds)
            return None
        try:
            outcome = negotiation.accept(proposal, self._around.services, self.remote_ae, settings.pdu_bytes_max)
            self._wire.send(outcome.encoded)
        except BaseException:
            self._around.slots.give_back(self.calling_ae_title)
            raise
        self.contexts, self.extended = outcome.contexts, outcome.extended
        self.messages = Messages(self._wire, outcome.contexts, settings.pdu_bytes_max, proposal.pdu_bytes_max)
        self.messages.take_other = self._took_answer
        log.info(
            "association accepted: %s implementation=%r contexts=%d/%d peer_pdu_bytes_max=%d",
            self._names(),
            proposal.implementation,
            len(outcome.contexts),
            len(proposal.contexts),
            proposal.pdu_bytes_max,
        )
        return outcome

    def _serve(self, outcome: negotiation.Outcome) -> None:
        """Messages until the end; the slot is given back before the farewell, which may take the peer its time."""
        around, started = self._around, time.monotonic()
        self.count("associations_accepted")
        self.count("associations_open")
        around.associated(self)
        messages_served = 0
        end: AssociationEnded = AssociationEnded("aborted after an error inside")
        try:
            while True:
                self.busy = False
                if self._stopping:
                    raise Stopped("the node stops")
                context, command = self.messages.read_command()
                self.busy = True
                with self._turn:
                    self._handle(outcome.services[context.context_id], context, command)
                messages_served += 1
        except AssociationEnded as error:
            end = Stopped("the node stops") if self._stopping and isinstance(error, ConnectionLost) else error
        except Exception:
            log.exception("association fails inside: %s", self._names())
        finally:
            self.busy = False
            with self._turn:
                self._ended = True
            for answer in list(self._reports.values()):
                answer.came.set()
            around.unassociated(self)
            around.slots.give_back(self.calling_ae_title)
            self.count("associations_open", -1)
            released = isinstance(end, Released)
            self.count("associations_released" if released else "associations_aborted")
            log.log(
                logging.INFO if released else logging.WARNING,
                "association %s: %s messages=%d bytes=%d seconds=%.3f%s",
                "released" if released else "aborted",
                self._names(),
                messages_served,
                self.messages.bytes_received,
                time.monotonic() - started,
                "" if released else f": {end}",
            )
        self._say_goodbye(end)

    def _handle(self, service: Service, context: Context, command: Command) -> None:
        if command.command_field == CommandField.C_CANCEL_RQ:
            return  # for an operation that is over already: nothing to do, nothing to answer (PS3.7 9.3.2.3)
        if command.is_response and self._took_answer(command):
            return
        if command.is_response:
            raise Violation(AbortReason.NOT_SPECIFIED, f"a response (0x{command.command_field:04X}) to no request")
        if service.handle(self, context, command):
            self.messages.forget_cancels()
            return
        if command.has_data_set:
            self.messages.skip_data_set()
        log.warning("operation 0x%04X refused on %s: %s", command.command_field, context.abstract_syntax, self._names())
        comment = f"0x{command.command_field:04X} is not supported here"
        self.messages.send(context.context_id, command.respond(UNRECOGNIZED_OPERATION, comment, (Field.AFFECTED_SOP_INSTANCE_UID,)))

    def _took_answer(self, command: Command) -> bool:
        """Whether it is the response to a report, be it one that was given up."""
        message_id = command.number(Field.MESSAGE_ID_BEING_RESPONDED_TO, -1)
        answer = self._reports.get(message_id)
        expected = message_id in self._late if answer is None else not answer.came.is_set()
        if command.command_field != CommandField.N_EVENT_REPORT_RQ | RESPONSE or not expected:
            return False
        if command.has_data_set:
            self.messages.skip_data_set()
        if answer is None:
            self._late.discard(message_id)
            log.info("report %d is answered too late: %s", message_id, self._names())
            return True
        answer.response = command
        answer.came.set()
        return True

    def _say_goodbye(self, end: AssociationEnded) -> None:
        """Send what the peer is still owed, and wait for it to close (states Sta13 of PS3.8 9.2)."""
        if isinstance(end, ConnectionLost | PeerAborted):
            return
        if isinstance(end, Released):
            word = release_rp()
        elif isinstance(end, Violation):
            word = abort(end.reason)
        else:
            word = abort()
        try:
            self._wire.send(word)
        except (ConnectionLost, OutOfTime) as error:
            log.debug("no farewell: peer=%s: %s", self.peer, error)
            return
        self._wire.await_close(1.0 if self._stopping else self._around.settings.artim_seconds)

    def _names(self) -> str:
        return f"peer={self.peer} calling={self.calling_ae_title!r} called={self.called_ae_title!r}"
