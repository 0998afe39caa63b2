"""The C-MOVE services of Query/Retrieve (DICOM PS3.4 C.4.2, PS3.7 9.1.4)."""

from collections.abc import Mapping

from archive.config import DimseSection, RemoteAe
from archive.dimse.command import Command, CommandField, Field, as_ae_title
from archive.dimse.message import Context
from archive.dimse.query_retrieve import MOVE_MODELS
from archive.dimse.retrieval import PENDING_SECONDS, Refusal, Responses, Retrieval, refuse
from archive.dimse.service import Requestor
from archive.dimse.status import MOVE_DESTINATION_UNKNOWN, NOT_AUTHORIZED
from archive.dimse.suboperations import Source, Tally
from archive.dimse.transfer import Transfer

DROP_SECONDS_MAX = 3.0


class Move(Retrieval):
    """Sends instances to a remote AE of the table.

    Parameters
    ----------
    source : Source
        Of this process.
    settings : DimseSection
        Of this node.
    remote_aes : mapping of str to RemoteAe
        Destinations by title.
    """

    def __init__(self, source: Source, settings: DimseSection, remote_aes: Mapping[str, RemoteAe]) -> None:
        super().__init__(MOVE_MODELS)
        self._source, self._settings, self._remote_aes = source, settings, remote_aes

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_MOVE_RQ:
            return False
        association.count("moves")
        try:
            study_instance_uid, instances = self.matches(association, context, command, self._source)
            title, remote_ae = self._destination(command)
        except Refusal as refusal:
            refuse(association, context, command, refusal, command.text(Field.MOVE_DESTINATION)[:16])
            return True
        whose = f"C-MOVE to {title} peer={association.peer} calling={association.calling_ae_title!r}"
        tally = Tally(instances, whose)
        originator: dict[int, int | bytes] = {
            Field.MOVE_ORIGINATOR_AE_TITLE: as_ae_title(association.calling_ae_title),
            Field.MOVE_ORIGINATOR_MESSAGE_ID: command.message_id,
        }
        transfer = Transfer(self._source, title, remote_ae, self._settings, instances, tally, originator)
        responses = Responses(association, context, command, tally, whose, study_instance_uid, title)
        cancelled = False
        if instances:
            transfer.start()
            try:
                while not transfer.wait(PENDING_SECONDS):
                    responses.pending()
                    if not cancelled and association.messages.is_cancelled(command.message_id):
                        cancelled = True
                        transfer.stop()
            except BaseException:
                transfer.drop()
                transfer.wait(DROP_SECONDS_MAX)
                responses.audit(None)
                raise
        responses.final(cancelled)
        return True

    def _destination(self, command: Command) -> tuple[str, RemoteAe]:
        title = command.text(Field.MOVE_DESTINATION)
        remote_ae = self._remote_aes.get(title)
        if remote_ae is None or not remote_ae.host:
            raise Refusal(MOVE_DESTINATION_UNKNOWN, f"move destination {title[:16]!r} is not known")
        if not remote_ae.may_be_moved_to:
            raise Refusal(NOT_AUTHORIZED, f"{title} may not be moved to")
        return title, remote_ae
