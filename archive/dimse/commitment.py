"""The Storage Commitment Push Model service: N-ACTION (DICOM PS3.4 annex J, PS3.7 10.1.4)."""

import logging
from collections.abc import Sequence

from archive.config import RemoteAe
from archive.dicom.commitment import read_action_information
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dimse.command import Command, CommandField, Field
from archive.dimse.message import Context
from archive.dimse.reporting import PUSH_MODEL, PUSH_MODEL_INSTANCE, Reporter
from archive.dimse.service import Requestor
from archive.dimse.status import (
    INVALID_ARGUMENT_VALUE,
    NO_SUCH_ACTION,
    NO_SUCH_OBJECT_INSTANCE,
    PROCESSING_FAILURE,
    RESOURCE_LIMITATION,
    SUCCESS,
    comment_of,
)
from archive.errors import ArchiveError, BadInput, Exhausted
from archive.flow.commitment_requests import CommitmentRequests, Held

log = logging.getLogger(__name__)

REQUEST_STORAGE_COMMITMENT = 1
"""The only Action Type (PS3.4 J.3.2)."""
INFORMATION_BYTES_MAX = 16 << 20
"""Largest request that is read: some 100,000 references."""

_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)


class StorageCommitment:
    """Takes requests; success says that one is durable and will be answered by a report.

    Parameters
    ----------
    requests : CommitmentRequests
        Of this process.
    reporter : Reporter
        Answers them.
    """

    def __init__(self, requests: CommitmentRequests, reporter: Reporter) -> None:
        self._requests, self._reporter = requests, reporter

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax == PUSH_MODEL

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return remote_ae.may_store

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        return next((uid for uid in _TRANSFER_SYNTAXES if uid in proposed), None)

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        return None

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.N_ACTION_RQ:
            return False
        status, comment, held = self._take(association, context, command)
        association.count("commitments" if status == SUCCESS else "commitments_refused")
        association.audit(CommandField.N_ACTION_RQ, "", status, len(held.request.references) if held else 0)
        if status != SUCCESS:
            log.warning(
                "storage commitment refused: status=0x%04X peer=%s calling=%r: %s",
                status,
                association.peer,
                association.calling_ae_title,
                comment,
            )
        further: dict[int, int | bytes] = {
            Field.AFFECTED_SOP_CLASS_UID: PUSH_MODEL.encode("ascii"),
            Field.AFFECTED_SOP_INSTANCE_UID: PUSH_MODEL_INSTANCE.encode("ascii"),
            Field.ACTION_TYPE_ID: REQUEST_STORAGE_COMMITMENT,
        }
        try:
            association.messages.send(context.context_id, command.respond(status, comment, further=further))
        except BaseException:
            if held is not None:
                self._requests.release(held)  # It is durable; whoever takes it answers it.
            raise
        if held is not None:
            self._reporter.add(held, association, context)
        return True

    def _take(self, association: Requestor, context: Context, command: Command) -> tuple[int, str, Held | None]:
        """Read the request and make it durable; status, comment, and what is to be reported."""
        try:
            data = association.messages.receive_data_set(INFORMATION_BYTES_MAX) if command.has_data_set else b""
            if command.text(Field.REQUESTED_SOP_INSTANCE_UID) != PUSH_MODEL_INSTANCE:
                return NO_SUCH_OBJECT_INSTANCE, "the SOP instance of storage commitment is a well-known one", None
            if command.number(Field.ACTION_TYPE_ID, 0) != REQUEST_STORAGE_COMMITMENT:
                return NO_SUCH_ACTION, "the only action type is 1", None
            transaction_uid, references = read_action_information(data, context.transfer_syntax)
            held = self._requests.keep(association.calling_ae_title, transaction_uid, references)
        except BadInput as error:
            return INVALID_ARGUMENT_VALUE, str(error), None
        except Exhausted as error:
            return RESOURCE_LIMITATION, str(error), None
        except (ArchiveError, OSError) as error:
            return PROCESSING_FAILURE, comment_of(error), None
        log.info(
            "storage commitment asked: peer=%s calling=%r transaction_uid=%s instances=%d",
            association.peer,
            association.calling_ae_title,
            transaction_uid,
            len(references),
        )
        return SUCCESS, "", held
