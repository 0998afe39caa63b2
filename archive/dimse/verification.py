"""The Verification service: C-ECHO (DICOM PS3.4 annex A, PS3.7 9.1.5)."""

from collections.abc import Sequence

from archive.config import RemoteAe
from archive.dimse.abstract_syntax import VERIFICATION
from archive.dimse.command import Command, CommandField
from archive.dimse.message import Context
from archive.dimse.service import Requestor
from archive.dimse.status import SUCCESS


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
