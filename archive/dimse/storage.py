"""The Storage service: C-STORE of every SOP class in every transfer syntax, kept as sent (DICOM PS3.4 annex B, PS3.7 9.1.1)."""

import logging
from collections.abc import Sequence
from typing import Protocol

from archive.config import RemoteAe
from archive.dicom.recode import TARGETS
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN
from archive.dicom.uid import check_uid
from archive.dimse.abstract_syntax import is_stored
from archive.dimse.command import Command, CommandField, Field
from archive.dimse.message import Context, Sink
from archive.dimse.pdu import AssociationEnded
from archive.dimse.service import Requestor
from archive.dimse.status import (
    CANNOT_UNDERSTAND,
    INVALID_SOP_INSTANCE,
    NOT_AUTHORIZED,
    PROCESSING_FAILURE,
    SUCCESS,
    comment_of,
    status_of,
)
from archive.errors import ArchiveError, BadInput

log = logging.getLogger(__name__)

_ECHOED = (Field.AFFECTED_SOP_INSTANCE_UID,)


class Reception(Sink, Protocol):
    """An object on its way in, as `archive.flow.ingest` takes it.

    Attributes
    ----------
    study_instance_uid : str
        Of the object, once it was looked at; empty before.
    """

    study_instance_uid: str

    def commit(self) -> object:
        """Make it durable and findable; raises where it cannot be kept."""

    def abort(self) -> None:
        """Forget it."""


class Ingest(Protocol):
    """Where objects go."""

    def begin(
        self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str, source_ae_title: str = ""
    ) -> Reception:
        """Expect an object; raises where none can be taken."""


class Storage:
    """Stores objects; success is said when they are durable and can be found (promise P1).

    Parameters
    ----------
    ingest : Ingest
        Of this process.
    """

    def __init__(self, ingest: Ingest) -> None:
        self._ingest = ingest

    def supports(self, abstract_syntax: str) -> bool:
        return is_stored(abstract_syntax)

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        # An SCP of storage is who receives by C-GET.
        return _may_store(abstract_syntax, remote_ae) or (scp and remote_ae.may_retrieve)

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        if scp:
            # What the peer is to receive by C-GET is not known yet; uncompressed syntaxes are those that anything can be written in.
            uncompressed = [uid for uid in proposed if uid in TARGETS]
            return next((uid for uid in [*uncompressed, *proposed] if uid != EXPLICIT_VR_BIG_ENDIAN), proposed[0] if proposed else None)
        if remote_ae.transfer_syntaxes:
            proposed = [uid for uid in proposed if uid in remote_ae.transfer_syntaxes]
        # All are kept as they come, so the sender's first choice is the best one. But DCMTK names big endian, which is retired, first
        # in a context that is to serve its implicit VR files too, and would convert them.
        return next((uid for uid in proposed if uid != EXPLICIT_VR_BIG_ENDIAN), proposed[0] if proposed else None)

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, scp

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        return None

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_STORE_RQ:
            return False
        messages = association.messages
        before = messages.bytes_received
        status, comment, study_instance_uid = self._store(association, context, command)
        association.audit(CommandField.C_STORE_RQ, study_instance_uid, status, 1)
        if status == SUCCESS:
            association.count("objects_stored")
        else:
            association.count("objects_refused")
            log.warning(
                "object refused: status=0x%04X peer=%s calling=%r sop_instance_uid=%r sop_class_uid=%r transfer_syntax_uid=%s bytes=%d: %s",
                status,
                association.peer,
                association.calling_ae_title,
                command.text(Field.AFFECTED_SOP_INSTANCE_UID)[:80],
                command.text(Field.AFFECTED_SOP_CLASS_UID)[:80],
                context.transfer_syntax,
                messages.bytes_received - before,
                comment,
            )
        association.count("data_set_bytes", messages.bytes_received - before)
        messages.send(context.context_id, command.respond(status, comment, _ECHOED))
        return True

    def _store(self, association: Requestor, context: Context, command: Command) -> tuple[int, str, str]:
        """Read the data set to its end, whatever comes of it; status, comment, Study Instance UID where it is known."""
        messages = association.messages
        if not _may_store(context.abstract_syntax, association.remote_ae):
            if command.has_data_set:
                messages.skip_data_set()
            return NOT_AUTHORIZED, f"{association.calling_ae_title} may not store this SOP class", ""
        if not command.has_data_set:
            return CANNOT_UNDERSTAND, "C-STORE without a data set", ""
        sop_class_uid = command.text(Field.AFFECTED_SOP_CLASS_UID)
        sop_instance_uid = command.text(Field.AFFECTED_SOP_INSTANCE_UID)
        try:
            # Before one of them becomes a key or a name.
            check_uid(sop_class_uid, "AffectedSOPClassUID")
            check_uid(sop_instance_uid, "AffectedSOPInstanceUID")
        except BadInput as error:
            messages.skip_data_set()
            return INVALID_SOP_INSTANCE, str(error), ""
        if not _may_store_so(sop_class_uid, context.transfer_syntax, association.remote_ae):
            # Its context may have been accepted for another class, or for receiving.
            messages.skip_data_set()
            return NOT_AUTHORIZED, f"{association.calling_ae_title} may not store this SOP class in this transfer syntax", ""
        try:
            reception = self._ingest.begin(
                sop_class_uid=sop_class_uid,
                sop_instance_uid=sop_instance_uid,
                transfer_syntax_uid=context.transfer_syntax,
                source=f"dimse:{association.calling_ae_title}@{association.host}",
                source_ae_title=association.calling_ae_title,
            )
        except Exception as error:
            messages.skip_data_set()
            return *_refuse(error), ""
        try:
            failure = messages.read_data_set(reception)
            if failure is not None:
                raise failure
            reception.commit()
        except AssociationEnded:
            reception.abort()
            association.audit(CommandField.C_STORE_RQ, reception.study_instance_uid, None, 1)
            raise
        except Exception as error:
            reception.abort()
            return *_refuse(error), reception.study_instance_uid
        return SUCCESS, "", reception.study_instance_uid


def _may_store(abstract_syntax: str, remote_ae: RemoteAe) -> bool:
    return remote_ae.may_store and (not remote_ae.sop_classes or abstract_syntax in remote_ae.sop_classes)


def _may_store_so(sop_class_uid: str, transfer_syntax_uid: str, remote_ae: RemoteAe) -> bool:
    return _may_store(sop_class_uid, remote_ae) and (not remote_ae.transfer_syntaxes or transfer_syntax_uid in remote_ae.transfer_syntaxes)


def _refuse(error: Exception) -> tuple[int, str]:
    status = status_of(error)
    if status == PROCESSING_FAILURE and not isinstance(error, ArchiveError | OSError):
        log.error("storing failed inside", exc_info=error)
    return status, comment_of(error)
