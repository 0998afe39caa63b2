"""An association that this node requests (the requestor's side of DICOM PS3.8 9.2): one thread's, with a limit on every wait."""

import contextlib
import logging
import socket
import time
from collections.abc import Mapping, Sequence

from archive.config import DimseSection, RemoteAe
from archive.dimse.command import NO_DATA_SET, Command, CommandField, Field, encode_command
from archive.dimse.message import Context, Messages
from archive.dimse.pdu import (
    ASSOCIATE_RQ_BYTES_MAX,
    PDU_HEADER,
    SHORT_PDU,
    AbortReason,
    AssociationEnded,
    ConnectionLost,
    OutOfTime,
    PduType,
    PeerAborted,
    Refused,
    Rejection,
    Violation,
    abort,
    release_rp,
    release_rq,
)
from archive.dimse.requesting import Granted, Wanted, associate_rq, read_granted
from archive.dimse.wire import Wire

log = logging.getLogger(__name__)

FAREWELL_SECONDS_MAX = 5.0


class Outgoing:
    """A connection to a remote AE that becomes an association with `open`.

    Parameters
    ----------
    title : str
        Of the remote AE.
    remote_ae : RemoteAe
        Its row in the table, with a host.
    settings : DimseSection
        This node's title, time-outs and the largest PDU that it takes.

    Attributes
    ----------
    contexts : mapping of int to Context
        Accepted presentation contexts by id; none before the association is there.
    """

    def __init__(self, title: str, remote_ae: RemoteAe, settings: DimseSection) -> None:
        self._title, self._remote_ae, self._settings = title, remote_ae, settings
        self._wire: Wire | None = None
        self._dropped = False
        self._last_message_id = 0
        self.messages: Messages
        self.contexts: Mapping[int, Context] = {}

    def __str__(self) -> str:
        return f"{self._title} at {self._remote_ae.host}:{self._remote_ae.port}"

    def open(self, wanted: Sequence[Wanted], roles: Mapping[str, tuple[bool, bool]] | None = None) -> None:
        """Connect and associate.

        Raises
        ------
        Refused
            The peer rejected the association, or every presentation context of it.
        AssociationEnded
            It cannot be reached, does not answer in time, or answers nonsense.
        """
        settings = self._settings
        try:
            connection = socket.create_connection((self._remote_ae.host, self._remote_ae.port), settings.connect_seconds_max)
        except OSError as error:
            raise ConnectionLost(f"cannot connect to {self}: {error.strerror or error}") from None
        try:
            wire = Wire(connection, settings.answer_seconds_max, settings.answer_seconds_max)
        except OSError as error:
            connection.close()
            raise ConnectionLost(f"cannot connect to {self}: {error.strerror}") from None
        self._wire = wire
        try:
            if self._dropped:
                raise ConnectionLost("given up")
            wire.send(associate_rq(self._title, settings.ae_title, wanted, settings.pdu_bytes_max, roles))
            wire.set_deadline(time.monotonic() + settings.answer_seconds_max)
            granted = self._read_answer(wire, wanted, roles)
            wire.set_deadline(None)
        except AssociationEnded as end:
            self._end(end)
            raise
        self.contexts = granted.contexts
        self.messages = Messages(wire, granted.contexts, settings.pdu_bytes_max, granted.pdu_bytes_max)
        if not granted.contexts:
            self.release()
            raise Refused(f"no presentation context is accepted by {self}")

    def call(self, context: Context, elements: Mapping[int, int | bytes], data_set: bytes = b"") -> Command:
        """Send a request and wait for its response.

        Parameters
        ----------
        elements : mapping
            Of the command, without Message ID and Command Data Set Type.
        data_set : bytes
            Empty: none.

        Raises
        ------
        AssociationEnded
            The association is over.
        """
        message_id = self._last_message_id = self._last_message_id % 0xFFFF + 1
        command = {**elements, Field.MESSAGE_ID: message_id, Field.COMMAND_DATA_SET_TYPE: 0x0001 if data_set else NO_DATA_SET}
        self.messages.send(context.context_id, encode_command(command), data_set)
        return self.messages.read_response(CommandField(int(elements[Field.COMMAND_FIELD])), message_id)

    def release(self) -> None:
        """End it in order, as far as the peer goes along."""
        wire = self._wire
        if wire is None:
            return
        try:
            wire.send(release_rq())
            wire.set_deadline(time.monotonic() + FAREWELL_SECONDS_MAX)
            pdu_type, length = PDU_HEADER.unpack(wire.take(PDU_HEADER.size))
            if pdu_type == PduType.A_RELEASE_RQ:  # Both at once: each answers the other (PS3.8 9.2.1).
                wire.skip(length)
                wire.send(release_rp())
            elif pdu_type != PduType.A_RELEASE_RP:
                log.debug("%s answered a release with a PDU of type 0x%02X", self, pdu_type)
        except AssociationEnded as end:
            log.debug("%s did not answer a release: %s", self, end)
        self._close()

    def abort(self) -> None:
        """End it at once; one that is over already is left alone."""
        self._end(AssociationEnded("aborted"))

    def drop(self) -> None:
        """Let it go without a word, from another thread: whoever waits for it is told that the connection is lost."""
        self._dropped = True
        if self._wire is not None:
            self._wire.drop()

    def _read_answer(self, wire: Wire, wanted: Sequence[Wanted], roles: Mapping[str, tuple[bool, bool]] | None) -> Granted:
        header = bytes(wire.take(PDU_HEADER.size, idle=True))
        pdu_type, length = PDU_HEADER.unpack(header)
        if pdu_type == PduType.A_ASSOCIATE_AC and length <= ASSOCIATE_RQ_BYTES_MAX:
            body = bytearray(length)
            wire.read_into(memoryview(body))
            return read_granted(header + body, wanted, roles)
        if pdu_type in (PduType.A_ASSOCIATE_RJ, PduType.A_ABORT) and length == 4:
            _, _, result, source, reason = SHORT_PDU.unpack(header + bytes(wire.take(4)))
            if pdu_type == PduType.A_ABORT:
                raise PeerAborted(f"{self} aborted the association, source {source}, reason {reason}")
            raise Refused(f"rejected, {_why(result << 16 | source << 8 | reason)}: {self}")
        raise Violation(AbortReason.UNEXPECTED_PDU, f"{self} answered an A-ASSOCIATE-RQ with a PDU of type 0x{pdu_type:02X}")

    def _end(self, end: AssociationEnded) -> None:
        wire = self._wire
        if wire is None:
            return
        if not isinstance(end, ConnectionLost | PeerAborted | Refused):
            with contextlib.suppress(ConnectionLost, OutOfTime):
                wire.send(abort(end.reason if isinstance(end, Violation) else None))
        self._close()

    def _close(self) -> None:
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()


def _why(rejection: int) -> str:
    """Result, source and reason of an A-ASSOCIATE-RJ in words (PS3.8 table 9-21)."""
    known = {int(one): one.name.lower().replace("_", " ") for one in Rejection}
    return known.get(rejection, f"result {rejection >> 16}, source {rejection >> 8 & 0xFF}, reason {rejection & 0xFF}")
