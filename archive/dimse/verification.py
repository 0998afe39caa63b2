"""The Verification service: C-ECHO, answered and asked (DICOM PS3.4 annex A, PS3.7 9.1.5)."""

from collections.abc import Sequence

from archive.config import DimseSection, RemoteAe
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dimse.abstract_syntax import VERIFICATION
from archive.dimse.command import Command, CommandField, Field
from archive.dimse.message import Context
from archive.dimse.outgoing import Outgoing
from archive.dimse.pdu import AssociationEnded
from archive.dimse.requesting import Wanted
from archive.dimse.service import Requestor
from archive.dimse.status import SUCCESS
from archive.errors import Unavailable


class Verification:
    """Answers that the archive is there."""

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax == VERIFICATION

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return True

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        # There is no data set that would need one.
        return proposed[0] if proposed else None

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        return None

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_ECHO_RQ:
            return False
        if command.has_data_set:
            association.messages.skip_data_set()
        association.count("echoes")
        association.messages.send(context.context_id, command.respond(SUCCESS))
        return True


def echo(title: str, remote_ae: RemoteAe, settings: DimseSection) -> int:
    """Ask a remote AE whether it is there; the status of its answer.

    Raises
    ------
    Unavailable
        It cannot be reached, rejects the association, does not know the service, or does not answer.
    """
    outgoing = Outgoing(title, remote_ae, settings)
    try:
        outgoing.open([Wanted(VERIFICATION, (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN))])
        (context,) = outgoing.contexts.values()
        elements: dict[int, int | bytes] = {
            Field.AFFECTED_SOP_CLASS_UID: VERIFICATION.encode("ascii"),
            Field.COMMAND_FIELD: CommandField.C_ECHO_RQ,
        }
        status = outgoing.call(context, elements).number(Field.STATUS)
    except AssociationEnded as end:
        outgoing.abort()
        raise Unavailable(f"no answer from {title} at {remote_ae.host}:{remote_ae.port}: {end}") from end
    outgoing.release()
    return status
