"""The C-GET services of Query/Retrieve (DICOM PS3.4 C.4.3, PS3.7 9.1.3)."""

from collections import deque

from archive.dimse.command import Command, CommandField
from archive.dimse.message import Context
from archive.dimse.query_retrieve import GET_MODELS
from archive.dimse.retrieval import Refusal, Responses, Retrieval, refuse
from archive.dimse.service import Requestor
from archive.dimse.suboperations import Source, SubOperations, Tally


class Get(Retrieval):
    """Sends instances back on the association that they are asked for on.

    Parameters
    ----------
    source : Source
        Of this process.
    """

    def __init__(self, source: Source) -> None:
        super().__init__(GET_MODELS)
        self._source = source

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_GET_RQ:
            return False
        association.count("gets")
        try:
            study_instance_uid, instances = self.matches(association, context, command, self._source)
        except Refusal as refusal:
            refuse(association, context, command, refusal)
            return True
        whose = f"C-GET peer={association.peer} calling={association.calling_ae_title!r}"
        tally = Tally(instances, whose)
        responses = Responses(association, context, command, tally, whose, study_instance_uid)
        cancelled = False

        def go_on() -> bool:
            nonlocal cancelled
            responses.pending()
            cancelled = association.messages.is_cancelled(command.message_id)
            return not cancelled

        try:
            SubOperations(association.messages, association.contexts.values(), self._source, tally, {}).run(deque(instances), go_on)
        except BaseException:
            responses.audit(None)
            raise
        responses.final(cancelled)
        return True
