"""The C-GET services of Query/Retrieve (DICOM PS3.4 C.4.3, PS3.7 9.1.3)."""

from collections.abc import Mapping

from archive.dimse.command import Command, CommandField, Field, encode_command
from archive.dimse.message import Context
from archive.dimse.pdu import AssociationEnded
from archive.dimse.query_retrieve import GET_MODELS
from archive.dimse.retrieval import Refusal, Responses, Retrieval, refuse
from archive.dimse.service import Requestor
from archive.dimse.status import comment_of
from archive.dimse.suboperations import Source, Tally, store_command
from archive.index.located import Located


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
            instances = self.matches(association, context, command, self._source)
        except Refusal as refusal:
            refuse(association, context, command, refusal)
            return True
        whose = f"C-GET peer={association.peer} calling={association.calling_ae_title!r}"
        tally = Tally(instances, whose)
        responses = Responses(association, context, command, tally, whose)
        accepted: dict[str, dict[str, Context]] = {}
        for one in association.contexts.values():
            if one.peer_is_scp:
                accepted.setdefault(one.abstract_syntax, {}).setdefault(one.transfer_syntax, one)
        cancelled = False
        for n, stored in enumerate(instances):
            responses.pending()
            cancelled = association.messages.is_cancelled(command.message_id)
            if cancelled:
                break
            self._store(association, stored, accepted.get(stored.sop_class_uid, {}), n % 0xFFFF + 1, tally)
        responses.final(cancelled)
        return True

    def _store(self, association: Requestor, stored: Located, contexts: Mapping[str, Context], message_id: int, tally: Tally) -> None:
        if not contexts:
            tally.fail(stored, f"the peer accepted no presentation context for SOP class {stored.sop_class_uid}")
            return
        messages, is_sending = association.messages, False
        try:
            with self._source.open(stored, list(contexts)) as ready:
                elements = {**store_command(stored), Field.MESSAGE_ID: message_id, Field.COMMAND_DATA_SET_TYPE: 0x0001}
                is_sending = True
                messages.send_pieces(contexts[ready.transfer_syntax_uid].context_id, encode_command(elements), ready.pieces, ready.length)
                is_sending = False
                _, response = messages.read_response(message_id)
        except AssociationEnded:
            raise
        except Exception as error:
            tally.fail(stored, comment_of(error))
            if is_sending:
                # Half a message is out there, and nothing takes it back.
                raise AssociationEnded(f"aborted in the middle of an object: {comment_of(error)}") from error
            return
        if response.has_data_set:
            messages.skip_data_set()
        tally.count(stored, response.number(Field.STATUS), response.text(Field.ERROR_COMMENT))
