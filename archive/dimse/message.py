"""DIMSE messages on an established association: commands and data sets in the fragments of P-DATA-TF PDUs (DICOM PS3.8 9.3.5, annex E).

The caller pulls: a command first, then, where it announces one, the data set, received fragment by fragment straight into the
memory of whoever takes it. Nothing is held here but one command set, and answers that wait for more of their kind to go with them.

While a long operation runs, whoever carries it out asks `is_cancelled` now and then: that looks at what the peer has sent meanwhile.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from archive.dicom.scan import Buffer
from archive.dimse.command import COMMAND_BYTES_MAX, RESPONSE, Command, CommandField, Field
from archive.dimse.fragments import fragments_of
from archive.dimse.pdu import (
    COMMAND_FRAGMENT,
    LAST_FRAGMENT,
    PDU_HEADER,
    PDV_HEADER,
    AbortReason,
    PduType,
    PeerAborted,
    Released,
    Violation,
    p_data_tf,
)
from archive.dimse.wire import Wire
from archive.errors import BadInput

TOGETHER_BYTES = 32 * 1024
"""Answers of `send_soon` wait until there are so many bytes of them."""

_PDV_OVERHEAD = PDV_HEADER.size
_ABORT_SOURCES = {0: "service user", 2: "service provider"}


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context, with the roles in it that the peer has."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str
    peer_is_scu: bool = True
    peer_is_scp: bool = False


class Sink(Protocol):
    """Takes the bytes of a data set."""

    def room(self, n: int) -> memoryview:
        """Writable memory for the next 1 to `n` bytes."""

    def filled(self, n: int) -> None:
        """Say that the first `n` bytes of it are data."""


class _Gathered:
    """A data set in memory."""

    def __init__(self, bytes_max: int) -> None:
        self.data = bytearray()
        self._bytes_max = bytes_max
        self._room = bytearray()

    def room(self, n: int) -> memoryview:
        if len(self.data) + n > self._bytes_max:
            raise BadInput(f"a data set of more than {self._bytes_max} bytes")
        self._room = bytearray(n)
        return memoryview(self._room)

    def filled(self, n: int) -> None:
        self.data += self._room[:n]


class Messages:
    """Reads and writes messages.

    Parameters
    ----------
    wire : Wire
        The connection, right after A-ASSOCIATE-AC.
    contexts : mapping of int to Context
        Accepted presentation contexts by id.
    pdu_bytes_max : int
        Largest P-DATA-TF (without its header) that the peer was told it may send.
    peer_pdu_bytes_max : int
        Largest one that the peer takes; 0: no limit.

    Attributes
    ----------
    take_other : callable
        Takes a response that is none to the request that is waited for, reads its data set if it has one, and says whether it did.
    """

    def __init__(self, wire: Wire, contexts: Mapping[int, Context], pdu_bytes_max: int, peer_pdu_bytes_max: int) -> None:
        self._wire = wire
        self._contexts = contexts
        self._pdu_bytes_max = pdu_bytes_max
        self._fragment_bytes_max = peer_pdu_bytes_max - _PDV_OVERHEAD if peer_pdu_bytes_max else 1 << 20
        self._pdu_left = 0
        self._context_id = 0
        self._ahead: tuple[Context, Command] | None = None
        self._cancelled: set[int] = set()
        self._outgoing = bytearray()
        self.bytes_received = 0
        self.take_other: Callable[[Command], bool] = lambda _: False

    def read_command(self, idle: bool = True) -> tuple[Context, Command]:
        """The next message's command; its data set, if it has one, is to be read next.

        Parameters
        ----------
        idle : bool
            The peer may be silent before it for as long as between messages.

        Raises
        ------
        AssociationEnded
            The peer released or aborted, went away, was silent for too long, or broke the protocol.
        """
        if self._ahead is not None:
            message, self._ahead = self._ahead, None
            self._context_id = message[0].context_id
            return message
        context_id, control, length = self._next_fragment(idle)
        context = self._contexts.get(context_id)
        if context is None:
            raise Violation(AbortReason.INVALID_PARAMETER, f"presentation context {context_id} was not accepted")
        encoded = bytearray()
        while True:
            if not control & COMMAND_FRAGMENT:
                raise Violation(AbortReason.UNEXPECTED_PARAMETER, "a data set where a command belongs")
            if len(encoded) + length > COMMAND_BYTES_MAX:
                raise Violation(AbortReason.INVALID_PARAMETER, f"a command set of more than {COMMAND_BYTES_MAX} bytes")
            fragment = bytearray(length)
            self._wire.read_into(memoryview(fragment))
            encoded += fragment
            if control & LAST_FRAGMENT:
                break
            self._context_id = context_id
            context_id, control, length = self._next_fragment_of_message()
        self._context_id = context_id
        return context, Command.decode(encoded)

    def is_cancelled(self, message_id: int) -> bool:
        """Whether the peer has asked to cancel an operation (C-CANCEL-RQ, PS3.7 9.3.2.3); does not wait for it.

        A request that it sent ahead of the answer stays for `read_command`; what is behind that is not looked at.

        Raises
        ------
        AssociationEnded
            The peer released or aborted, went away, or broke the protocol.
        """
        while self._ahead is None and message_id not in self._cancelled and (self._pdu_left or self._wire.has_bytes()):
            self._look_ahead()
        return message_id in self._cancelled

    def forget_cancels(self) -> None:
        """Say that an operation is over: its message id may be used again."""
        self._cancelled.clear()

    def read_response(self, request: CommandField, message_id: int) -> Command:
        """Wait for the response to a request of ours; its data set, if it has one, is skipped. Cancels on the way are kept.

        Raises
        ------
        AssociationEnded
            As `read_command`; also where another response, which nobody else waits for, or a request comes in its place.
        """
        while True:
            while self._ahead is None:
                self._look_ahead(idle=False)
            _, command = self.read_command()
            ours = command.command_field == request | RESPONSE and command.number(Field.MESSAGE_ID_BEING_RESPONDED_TO, -1) == message_id
            if ours and command.has_data_set:
                self.skip_data_set()
            if ours:
                return command
            if not command.is_response or not self.take_other(command):
                raise Violation(
                    AbortReason.NOT_SPECIFIED, f"a command 0x{command.command_field:04X} that is no response to message {message_id}"
                )

    def _look_ahead(self, idle: bool = True) -> None:
        context, command = self.read_command(idle)
        if command.command_field == CommandField.C_CANCEL_RQ:
            self._cancelled.add(command.number(Field.MESSAGE_ID_BEING_RESPONDED_TO, -1))
        else:
            self._ahead = context, command

    def receive_data_set(self, bytes_max: int) -> bytes:
        """The whole data set that follows the command just read.

        Raises
        ------
        BadInput
            It has more than `bytes_max` bytes; it was read to its end and forgotten.
        AssociationEnded
            As `read_command`.
        """
        gathered = _Gathered(bytes_max)
        failure = self.read_data_set(gathered)
        if failure is not None:
            raise failure
        return bytes(gathered.data)

    def read_data_set(self, sink: Sink) -> Exception | None:
        """Read the data set that follows the command just read, to its end.

        Returns
        -------
        Exception or None
            What the sink raised, if it did; the rest was then read and forgotten, so that the association stays usable.

        Raises
        ------
        AssociationEnded
            As `read_command`.
        """
        wire = self._wire
        failure: Exception | None = None
        while True:
            control, length = self._next_data_fragment()
            while length and failure is None:
                try:
                    room = sink.room(length)
                except Exception as error:
                    failure = error
                    break
                count = len(room)
                # What must follow the fragment: another one in this PDU, or in the next.
                more = count == length and not control & LAST_FRAGMENT
                wire.read_into(room, (_PDV_OVERHEAD if self._pdu_left else PDU_HEADER.size + _PDV_OVERHEAD) if more else 0)
                # Memory that somebody looks at cannot grow.
                del room
                length -= count
                try:
                    sink.filled(count)
                except Exception as error:
                    failure = error
            wire.skip(length)
            if control & LAST_FRAGMENT:
                return failure

    def skip_data_set(self) -> None:
        """Read the data set that follows the command just read and forget it; raises as `read_command` does."""
        while True:
            control, length = self._next_data_fragment()
            self._wire.skip(length)
            if control & LAST_FRAGMENT:
                return

    def send(self, context_id: int, command: bytes, data_set: bytes = b"") -> None:
        """Send a message in fragments that the peer takes.

        Raises
        ------
        AssociationEnded
            The peer is gone or takes nothing.
        """
        self._put(context_id, command, data_set)
        self.flush()

    def send_pieces(self, context_id: int, command: bytes, pieces: Iterable[Buffer], length: int) -> None:
        """Send a message with a data set that lies in pieces, none of which is copied.

        Parameters
        ----------
        pieces : iterable of Buffer
            In order; taken one by one while it is sent.
        length : int
            Bytes of all of them.

        Raises
        ------
        AssociationEnded
            As `send`. Whatever else the pieces raise leaves half a message behind: the association is to be aborted then.
        """
        self._put(context_id, command, b"")
        data, self._outgoing = self._outgoing, bytearray()
        parts: list[Buffer] = [data]
        for some in fragments_of(context_id, pieces, length, self._fragment_bytes_max):
            self._wire.send_parts(parts + some)
            parts = []
        if parts:  # No data set: the command alone.
            self._wire.send_parts(parts)

    def send_soon(self, context_id: int, command: bytes, data_set: bytes = b"") -> bool:
        """Send a message together with those that come after it, at the latest with `flush`.

        Returns
        -------
        bool
            Whether it has been sent, with all before it.
        """
        self._put(context_id, command, data_set)
        if len(self._outgoing) < TOGETHER_BYTES:
            return False
        self.flush()
        return True

    def flush(self) -> None:
        """Send what `send_soon` left; raises as `send` does."""
        if self._outgoing:
            data, self._outgoing = self._outgoing, bytearray()
            self._wire.send(data)

    def _put(self, context_id: int, command: bytes, data_set: bytes) -> None:
        size = self._fragment_bytes_max
        for control, data in ((COMMAND_FRAGMENT, command), (0, data_set)):
            for start in range(0, len(data), size):
                last = LAST_FRAGMENT if start + size >= len(data) else 0
                self._outgoing += p_data_tf(context_id, control | last, data[start : start + size])

    def _next_data_fragment(self) -> tuple[int, int]:
        _, control, length = self._next_fragment_of_message()
        if control & COMMAND_FRAGMENT:
            raise Violation(AbortReason.UNEXPECTED_PARAMETER, "a command where a data set belongs")
        self.bytes_received += length
        return control, length

    def _next_fragment_of_message(self) -> tuple[int, int, int]:
        fragment = self._next_fragment()
        if fragment[0] != self._context_id:
            raise Violation(AbortReason.UNEXPECTED_PARAMETER, "a message in two presentation contexts")
        return fragment

    def _next_fragment(self, idle: bool = False) -> tuple[int, int, int]:
        """Context id, control header and length of the next fragment, whose bytes come next."""
        left = self._pdu_left
        if not left:
            pdu_type, left = PDU_HEADER.unpack(self._wire.take(PDU_HEADER.size, idle))
            if pdu_type != PduType.P_DATA_TF:
                self._end(pdu_type, left)
            if not _PDV_OVERHEAD <= left <= self._pdu_bytes_max:
                raise Violation(AbortReason.INVALID_PARAMETER, f"a P-DATA-TF PDU of {left} bytes")
        if left < _PDV_OVERHEAD:
            raise Violation(AbortReason.INVALID_PARAMETER, f"{left} bytes after the last PDV of a P-DATA-TF PDU")
        length, context_id, control = PDV_HEADER.unpack(self._wire.take(_PDV_OVERHEAD))
        self._pdu_left = left - length - 4
        if length < 2 or self._pdu_left < 0:
            raise Violation(AbortReason.INVALID_PARAMETER, f"a PDV of {length} bytes in a PDU of {left}")
        return context_id, control, length - 2

    def _end(self, pdu_type: int, length: int) -> None:
        """Take a PDU that ends the association, as it should or by mistake."""
        if pdu_type not in PduType.__members__.values():
            raise Violation(AbortReason.UNRECOGNIZED_PDU, f"a PDU of unknown type 0x{pdu_type:02X}")
        if pdu_type in (PduType.A_RELEASE_RQ, PduType.A_ABORT):
            if length != 4:
                raise Violation(AbortReason.INVALID_PARAMETER, f"{PduType(pdu_type).name} of {length} bytes")
            _, _, source, reason = self._wire.take(4)
            if pdu_type == PduType.A_RELEASE_RQ:
                raise Released("released")
            raise PeerAborted(f"aborted by the peer's {_ABORT_SOURCES.get(source, f'source {source}')}, reason {reason}")
        raise Violation(AbortReason.UNEXPECTED_PDU, f"{PduType(pdu_type).name} on an established association")
