"""What C-MOVE and C-GET share: information models, the request, the responses (DICOM PS3.4 C.4.2, C.4.3, C.6, Y.4)."""

import logging
import time
from collections.abc import Mapping, Sequence

from archive.config import RemoteAe
from archive.dicom.identifier import QUERY_RETRIEVE_LEVEL, read_identifier, write_identifier
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dicom.uid import uid_or_empty
from archive.dimse.command import Command, CommandField
from archive.dimse.message import Context
from archive.dimse.query_retrieve import IDENTIFIER_BYTES_MAX, IMAGE, PATIENT, SERIES, STUDY, Model, level_of
from archive.dimse.query_retrieve import Level as QueryRetrieveLevel
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

PENDING_SECONDS = 0.05
"""Pending responses are at least so far apart."""
AGAIN_SECONDS = 5.0
"""So long after one the next comes, although nothing is new: a peer gives up waiting for one that says no word."""

_LEVELS: dict[QueryRetrieveLevel, Level] = {PATIENT: "patient", STUDY: "study", SERIES: "series", IMAGE: "instance"}
_FAILED_SOP_INSTANCE_UID_LIST = "00080058"
_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


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
    models : mapping of str to Model
        Information models by SOP class.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        self._models = models

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax in self._models

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return remote_ae.may_retrieve

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        return next((uid for uid in _TRANSFER_SYNTAXES if uid in proposed), None)

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        # Relational retrieval is granted where it is asked for (PS3.4 C.5.2.1, C.5.3.1).
        return b"\1" if information[:1] == b"\1" else b"\0"

    def matches(self, association: Requestor, context: Context, command: Command, source: Source) -> tuple[str, Sequence[Located]]:
        """Read the identifier, and find what it asks for: the study that it names, empty where it is not one, and the instances.

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
            model = self._models[context.abstract_syntax]
            if model is Model.COMPOSITE_INSTANCE_ROOT and identifier.single(QUERY_RETRIEVE_LEVEL).strip() == "FRAME":
                raise Refusal(UNABLE_TO_EXTRACT_FRAMES, "frames are not extracted here")
            # Levels above may be left open by everybody: older devices do so without the negotiation that the Standard wants.
            level = level_of(identifier, model, relational=True)
            keys = {one.unique_key: identifier.single(one.unique_key) for one in model.levels}  # Others are ignored (PS3.4 C.4.2.1.4).
            return uid_or_empty(identifier.single(STUDY.unique_key)), source.select(_LEVELS[level], keys)
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
    whose : str
        What the log calls it.
    study_instance_uid, destination : str
        For the audit log: the study that the request names, and where it sends to.
    """

    def __init__(
        self,
        association: Requestor,
        context: Context,
        command: Command,
        tally: Tally,
        whose: str,
        study_instance_uid: str,
        destination: str = "",
    ) -> None:
        self._association, self._context, self._command, self._tally, self._whose = association, context, command, tally, whose
        self._study_instance_uid, self._destination = study_instance_uid, destination
        self._messages, self._started = association.messages, time.monotonic()
        self._told, self._next, self._again = -1, 0.0, 0.0

    def pending(self) -> None:
        """Tell how far it has come, where that is news and not too soon after the last word, or the last word is long ago."""
        now = time.monotonic()
        if (self._tally.done != self._told and now >= self._next) or now >= self._again:
            self._told, self._next, self._again = self._tally.done, now + PENDING_SECONDS, now + AGAIN_SECONDS
            response = self._command.respond(PENDING, further=self._tally.fields(with_remaining=True))
            self._messages.send(self._context.context_id, response)

    def audit(self, status: int | None) -> None:
        """Note by study what came across and what did not; None: the association ended before a status was told."""
        action, counts = CommandField(self._command.command_field), dict(self._tally.by_study)
        for (study_instance_uid, came), instances in (counts or {(self._study_instance_uid, True): 0}).items():
            self._association.audit(action, study_instance_uid, status, instances, self._destination, "" if came else "failure")

    def final(self, cancelled: bool) -> None:
        """Send the last one (PS3.4 tables C.4-2, C.4-3), count what came across, note and log how it went."""
        tally, syntax = self._tally, self._context.transfer_syntax
        if cancelled and tally.remaining:
            status, comment = CANCEL, ""
        elif not tally.failed and not tally.warned and not tally.remaining:
            status, comment = SUCCESS, ""
        elif not tally.completed and not tally.warned:
            status, comment = UNABLE_TO_PERFORM_SUBOPERATIONS, tally.reason
        else:
            status, comment = SUBOPERATIONS_COMPLETE_WITH_FAILURES, tally.reason
        failed = {_FAILED_SOP_INSTANCE_UID_LIST: {"vr": "UI", "Value": list(tally.failed)}}
        data_set = write_identifier(failed, syntax, b"") if tally.failed else b""
        further = tally.fields(with_remaining=status == CANCEL)
        self.audit(status)
        response = self._command.respond(status, comment, has_data_set=bool(data_set), further=further)
        self._messages.send(self._context.context_id, response, data_set)
        self._association.count("objects_sent", tally.completed + tally.warned)
        log.info(
            "%s: status=0x%04X completed=%d warnings=%d failed=%d remaining=%d seconds=%.3f",
            self._whose,
            status,
            tally.completed,
            tally.warned,
            len(tally.failed),
            tally.remaining,
            time.monotonic() - self._started,
        )


def refuse(association: Requestor, context: Context, command: Command, refusal: Refusal, destination: str = "") -> None:
    """Answer a retrieval that is not begun."""
    log.warning(
        "retrieval refused: status=0x%04X peer=%s calling=%r: %s", refusal.status, association.peer, association.calling_ae_title, refusal
    )
    association.audit(CommandField(command.command_field), "", refusal.status, 0, destination)
    association.messages.send(context.context_id, command.respond(refusal.status, str(refusal)))
