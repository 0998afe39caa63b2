"""What C-MOVE and C-GET share: information models, the request, the responses (DICOM PS3.4 C.4.2, C.4.3, C.6, Y.4)."""

import logging
import time
from collections.abc import Sequence

from archive.config import RemoteAe
from archive.dicom.identifier import QUERY_RETRIEVE_LEVEL, read_identifier, write_identifier
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dimse.command import Command
from archive.dimse.message import Context
from archive.dimse.service import Requestor
from archive.dimse.status import (
    CANCEL,
    DATA_SET_DOES_NOT_MATCH_SOP_CLASS,
    PENDING,
    PROCESSING_FAILURE,
    SUBOPERATIONS_COMPLETE_WITH_FAILURES,
    SUCCESS,
    UNABLE_TO_CALCULATE_MATCHES,
    UNABLE_TO_EXTRACT_FRAMES,
    UNABLE_TO_PERFORM_SUBOPERATIONS,
    comment_of,
)
from archive.dimse.suboperations import Source, Tally
from archive.errors import ArchiveError, BadInput, Exhausted
from archive.flow.selection import Level
from archive.index.located import Located

log = logging.getLogger(__name__)

IDENTIFIER_BYTES_MAX = 8 << 20
"""Largest identifier that is read: a list of 100,000 UIDs."""
PENDING_SECONDS = 0.05
"""Pending responses are at least so far apart."""

_PATIENT: tuple[Level, ...] = ("patient", "study", "series", "instance")
_LEVELS: dict[str, Level] = {"PATIENT": "patient", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}
_UNIQUE_KEYS = ("00100020", "0020000D", "0020000E", "00080018")
_FAILED_SOP_INSTANCE_UID_LIST = "00080058"
_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)

MOVE_CLASSES: dict[str, tuple[Level, ...]] = {
    "1.2.840.10008.5.1.4.1.2.1.2": _PATIENT,  # Patient Root
    "1.2.840.10008.5.1.4.1.2.2.2": _PATIENT[1:],  # Study Root
    "1.2.840.10008.5.1.4.1.2.3.2": _PATIENT[:2],  # Patient/Study Only (retired)
    "1.2.840.10008.5.1.4.1.2.4.2": _PATIENT[3:],  # Composite Instance Root
}
"""Levels of each information model, by SOP class."""
GET_CLASSES: dict[str, tuple[Level, ...]] = {uid[:-1] + "3": levels for uid, levels in MOVE_CLASSES.items()}


class Refusal(Exception):
    """A retrieval that is not begun.

    Parameters
    ----------
    status : int
        Of the response.
    comment : str
        For the peer and the log.
    """

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status


class Retrieval:
    """The SOP classes of one of the two, and how they negotiate.

    Parameters
    ----------
    classes : dict of str to tuple of Level
        Levels by SOP class.
    """

    def __init__(self, classes: dict[str, tuple[Level, ...]]) -> None:
        self.classes = classes

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax in self.classes

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return remote_ae.may_retrieve

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe) -> str | None:
        return next((uid for uid in _TRANSFER_SYNTAXES if uid in proposed), None)

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        # Relational retrieval is granted where it is asked for (PS3.4 C.5.2.1, C.5.3.1).
        return b"\1" if information[:1] == b"\1" else b"\0"

    def matches(self, association: Requestor, context: Context, command: Command, source: Source) -> Sequence[Located]:
        """Read the identifier, and find what it asks for.

        Raises
        ------
        Refusal
            It makes no sense, or nothing can be found now.
        AssociationEnded
            The association is over.
        """
        if not command.has_data_set:
            raise Refusal(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, "a retrieval without an identifier")
        try:
            encoded = association.messages.receive_data_set(IDENTIFIER_BYTES_MAX)
            identifier = read_identifier(encoded, context.transfer_syntax)
            name = identifier.single(QUERY_RETRIEVE_LEVEL).strip()
            if name == "FRAME" and "study" not in self.classes[context.abstract_syntax]:
                raise Refusal(UNABLE_TO_EXTRACT_FRAMES, "frames are not extracted here")
            level = _LEVELS.get(name)
            if level is None or level not in self.classes[context.abstract_syntax]:
                raise BadInput(f"query/retrieve level {name[:16]!r} is none of this information model")
            return source.select(level, {tag: identifier.single(tag) for tag in _UNIQUE_KEYS})
        except BadInput as error:
            raise Refusal(DATA_SET_DOES_NOT_MATCH_SOP_CLASS, str(error)) from error
        except Exhausted as error:
            raise Refusal(UNABLE_TO_CALCULATE_MATCHES, str(error)) from error
        except (ArchiveError, OSError) as error:
            raise Refusal(PROCESSING_FAILURE, comment_of(error)) from error


class Responses:
    """Pending and final responses to one request.

    Parameters
    ----------
    tally : Tally
        Of its sub-operations.
    """

    def __init__(self, association: Requestor, context: Context, command: Command, tally: Tally) -> None:
        self._messages, self._context, self._command, self._tally = association.messages, context, command, tally
        self._told, self._next = -1, 0.0

    def pending(self) -> None:
        """Tell how far it has come, where that is news and not too soon after the last word."""
        now = time.monotonic()
        if self._tally.done != self._told and now >= self._next:
            self._told, self._next = self._tally.done, now + PENDING_SECONDS
            response = self._command.respond(PENDING, further=self._tally.fields(with_remaining=True))
            self._messages.send(self._context.context_id, response)

    def final(self, cancelled: bool) -> int:
        """Send the last one; returns its status (PS3.4 tables C.4-2, C.4-3)."""
        tally, syntax = self._tally, self._context.transfer_syntax
        if cancelled and tally.remaining:
            status, comment = CANCEL, ""
        elif not tally.failed and not tally.warned:
            status, comment = SUCCESS, ""
        elif not tally.completed and not tally.warned:
            status, comment = UNABLE_TO_PERFORM_SUBOPERATIONS, tally.reason
        else:
            status, comment = SUBOPERATIONS_COMPLETE_WITH_FAILURES, tally.reason
        failed = {_FAILED_SOP_INSTANCE_UID_LIST: {"vr": "UI", "Value": list(tally.failed)}}
        data_set = write_identifier(failed, syntax, b"") if tally.failed else b""
        further = tally.fields(with_remaining=status == CANCEL)
        response = self._command.respond(status, comment, has_data_set=bool(data_set), further=further)
        self._messages.send(self._context.context_id, response, data_set)
        return status


def refuse(association: Requestor, context: Context, command: Command, refusal: Refusal) -> None:
    """Answer a retrieval that is not begun."""
    log.warning(
        "retrieval refused: status=0x%04X peer=%s calling=%r: %s", refusal.status, association.peer, association.calling_ae_title, refusal
    )
    association.messages.send(context.context_id, command.respond(refusal.status, str(refusal)))
