"""C-STORE sub-operations of C-MOVE and C-GET: sent one by one, counted, told (DICOM PS3.4 C.4.2, C.4.3; PS3.7 9.1.3, 9.1.4)."""

import logging
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import NamedTuple, Protocol

from archive.dimse.command import CommandField, Field, encode_command
from archive.dimse.message import Context, Messages
from archive.dimse.pdu import AssociationEnded
from archive.dimse.status import SUCCESS, comment_of, is_warning
from archive.flow.deliverable import Deliverable
from archive.flow.selection import Level
from archive.index.located import Located

log = logging.getLogger(__name__)

_PRIORITY_MEDIUM = 0


class Source(Protocol):
    """Where instances come from."""

    def select(self, level: Level, keys: Mapping[str, str]) -> Sequence[Located]:
        """Instances that the unique keys ask for; raises where they make no sense."""

    def open(self, stored: Located, accepted: Sequence[str]) -> AbstractContextManager[Deliverable]:
        """An instance's data set in one of the transfer syntaxes accepted; raises where it cannot be given in any."""


class Tally:
    """How many sub-operations of an operation came to which end; any number of threads.

    Parameters
    ----------
    instances : sequence of Located
        All of them.
    whose : str
        The operation, for the log.

    Attributes
    ----------
    over : threading.Event
        None remains, or nothing more is tried.
    by_study : Counter
        How many came across and how many failed, by study and whether it came across.
    """

    def __init__(self, instances: Sequence[Located], whose: str) -> None:
        self.over = threading.Event()
        self.by_study: Counter[tuple[str, bool]] = Counter()
        self.remaining = len(instances)
        self.completed = self.warned = 0
        self.failed: list[str] = []
        self.reason = ""
        self._whose = whose
        self._lock = threading.Lock()

    def count(self, stored: Located, status: int, comment: str = "") -> None:
        """One is over, with the status that its receiver gave."""
        if status == SUCCESS or is_warning(status):
            with self._lock:
                self.by_study[stored.study_instance_uid, True] += 1
                if status == SUCCESS:
                    self.completed += 1
                else:
                    self.warned += 1
                self._done_with(1)
            if status != SUCCESS:
                log.warning(
                    "sub-operation with warning 0x%04X: %s sop_instance_uid=%s %s", status, self._whose, stored.sop_instance_uid, comment
                )
        else:
            self.fail(stored, f"the receiver answered 0x{status:04X} {comment}".rstrip())

    def fail(self, stored: Located, reason: str) -> None:
        """One failed."""
        self._count_failed([stored], reason)
        log.warning("sub-operation failed: %s sop_instance_uid=%s: %s", self._whose, stored.sop_instance_uid, reason)

    def give_up(self, rest: Sequence[Located], reason: str) -> None:
        """These are not tried."""
        if rest:
            self._count_failed(rest, reason)
            log.warning("%d sub-operations given up: %s: %s", len(rest), self._whose, reason)

    def _count_failed(self, failed: Sequence[Located], reason: str) -> None:
        with self._lock:
            self.by_study.update((one.study_instance_uid, False) for one in failed)
            self.failed += [one.sop_instance_uid for one in failed]
            self.reason = self.reason or reason
            self._done_with(len(failed))

    def _done_with(self, count: int) -> None:
        self.remaining -= count
        if not self.remaining:
            self.over.set()

    @property
    def done(self) -> int:
        """How many are over."""
        return self.completed + self.warned + len(self.failed)

    def fields(self, with_remaining: bool) -> dict[int, int | bytes]:
        """Elements of a response; numbers that do not fit into one are told as the largest that does."""
        with self._lock:
            numbers: dict[int, int] = {
                Field.NUMBER_OF_COMPLETED_SUBOPERATIONS: self.completed,
                Field.NUMBER_OF_FAILED_SUBOPERATIONS: len(self.failed),
                Field.NUMBER_OF_WARNING_SUBOPERATIONS: self.warned,
            }
            if with_remaining:
                numbers[Field.NUMBER_OF_REMAINING_SUBOPERATIONS] = self.remaining
        return {field: min(number, 0xFFFF) for field, number in numbers.items()}


class _Prepared(NamedTuple):
    """An instance that is open, with the presentation context that it goes out in."""

    stored: Located
    context: Context
    ready: Deliverable
    opened: ExitStack


class SubOperations:
    """C-STORE requests on one association, one on its way at a time; while the receiver has it, the next instance is opened.

    Parameters
    ----------
    messages : Messages
        Of the association.
    contexts : iterable of Context
        Those accepted on it; the ones in which the receiver is SCP are used.
    originator : mapping of int to int or bytes
        Elements of every request besides.

    Attributes
    ----------
    answered : int
        Requests that were answered.
    """

    def __init__(
        self, messages: Messages, contexts: Iterable[Context], source: Source, tally: Tally, originator: Mapping[int, int | bytes]
    ) -> None:
        self._messages, self._source, self._tally, self._originator = messages, source, tally, originator
        self._accepted: dict[str, dict[str, Context]] = {}
        for context in contexts:
            if context.peer_is_scp:
                self._accepted.setdefault(context.abstract_syntax, {}).setdefault(context.transfer_syntax, context)
        self._last_message_id = 0
        self.answered = 0

    def run(self, queue: deque[Located], go_on: Callable[[], bool]) -> None:
        """Send and count what is in a queue, until it is empty or not to go on.

        Parameters
        ----------
        queue : deque of Located
            Others may take from it, too; one that was taken and is not tried is put back.
        go_on : callable
            Asked before each request, while none is on its way.

        Raises
        ------
        AssociationEnded
            Also where an object turns out to be damaged when half of it is sent: nothing takes that back.
        """
        following = self._prepare(queue)
        try:
            while following is not None and go_on():
                current, following = following, None
                try:
                    message_id = self._send(current)
                    following = self._prepare(queue)
                    response = self._messages.read_response(CommandField.C_STORE_RQ, message_id)
                    status, comment = response.number(Field.STATUS), response.text(Field.ERROR_COMMENT)
                except AssociationEnded as end:
                    self._tally.fail(current.stored, str(end))
                    raise
                self.answered += 1
                self._tally.count(current.stored, status, comment)
        finally:
            if following is not None:
                following.opened.close()
                queue.appendleft(following.stored)

    def _prepare(self, queue: deque[Located]) -> _Prepared | None:
        """Open the next instance that can be sent; None where there is none. What cannot be has failed."""
        while True:
            try:
                stored = queue.popleft()
            except IndexError:
                return None
            contexts = self._accepted.get(stored.sop_class_uid)
            if not contexts:
                self._tally.fail(stored, f"the receiver accepted no presentation context for SOP class {stored.sop_class_uid}")
                continue
            opened = ExitStack()
            try:
                ready = opened.enter_context(self._source.open(stored, list(contexts)))
            except Exception as error:
                self._tally.fail(stored, comment_of(error))
                continue
            return _Prepared(stored, contexts[ready.transfer_syntax_uid], ready, opened)

    def _send(self, prepared: _Prepared) -> int:
        """Send a request and let its instance go; returns its message id."""
        stored, context, ready, opened = prepared
        message_id = self._last_message_id = self._last_message_id % 0xFFFF + 1
        elements = {**_store_command(stored), **self._originator, Field.MESSAGE_ID: message_id, Field.COMMAND_DATA_SET_TYPE: 0x0001}
        with opened:
            try:
                self._messages.send_pieces(context.context_id, encode_command(elements), ready.pieces, ready.length)
            except AssociationEnded:
                raise
            except Exception as error:
                raise AssociationEnded(f"aborted in the middle of an object: {comment_of(error)}") from error
        return message_id


def _store_command(stored: Located) -> dict[int, int | bytes]:
    """Elements of a C-STORE-RQ, without Message ID and Command Data Set Type (PS3.7 table 9.3-1)."""
    return {
        Field.AFFECTED_SOP_CLASS_UID: stored.sop_class_uid.encode("ascii"),
        Field.COMMAND_FIELD: CommandField.C_STORE_RQ,
        Field.PRIORITY: _PRIORITY_MEDIUM,
        Field.AFFECTED_SOP_INSTANCE_UID: stored.sop_instance_uid.encode("ascii"),
    }
