"""DIMSE messages on an established association: commands and data sets in the fragments of P-DATA-TF PDUs (DICOM PS3.8 9.3.5, annex E).

The caller pulls: a command first, then, where it announces one, the data set, received fragment by fragment straight into the
memory of whoever takes it. Nothing is held here but one command set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from archive.dimse.command import COMMAND_BYTES_MAX, Command
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

_PDV_OVERHEAD = PDV_HEADER.size
_ABORT_SOURCES = {0: "service user", 2: "service provider"}


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


class Sink(Protocol):
    """Takes the bytes of a data set."""

    def room(self, n: int) -> memoryview:
        """Writable memory for the next 1 to `n` bytes."""

    def filled(self, n: int) -> None:
        """Say that the first `n` bytes of it are data."""


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
    """

    def __init__(self, wire: Wire, contexts: Mapping[int, Context], pdu_bytes_max: int, peer_pdu_bytes_max: int) -> None:
        self._wire = wire
        self._contexts = contexts
        self._pdu_bytes_max = pdu_bytes_max
        self._fragment_bytes_max = peer_pdu_bytes_max - _PDV_OVERHEAD if peer_pdu_bytes_max else 1 << 20
        self._pdu_left = 0
        self._context_id = 0
        self.bytes_received = 0

    def read_command(self) -> tuple[Context, Command]:
        """The next message's command; its data set, if it has one, is to be read next.

        Raises
        ------
        AssociationEnded
            The peer released or aborted, went away, was silent for too long, or broke the protocol.
        """
        context_id, control, length = self._next_fragment(idle=True)
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
                wire.read_into(room)
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
        self._send_fragments(context_id, COMMAND_FRAGMENT, command)
        if data_set:
            self._send_fragments(context_id, 0, data_set)

    def _send_fragments(self, context_id: int, control: int, data: bytes) -> None:
        size = self._fragment_bytes_max
        for start in range(0, len(data), size):
            last = LAST_FRAGMENT if start + size >= len(data) else 0
            self._wire.send(p_data_tf(context_id, control | last, data[start : start + size]))

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
