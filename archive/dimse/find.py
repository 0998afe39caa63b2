"""The Query service: C-FIND in the Patient Root, Study Root and Patient/Study Only information models (DICOM PS3.4 C.4.1, PS3.7 9.1.2)."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from archive.config import DimseSection, RemoteAe
from archive.dicom.attributes import vr_of
from archive.dicom.identifier import QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET, Identifier, Wanted, read_identifier, write_identifier
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.dicom.uid import uid_or_empty
from archive.dimse.command import Command, CommandField, Field
from archive.dimse.message import Context
from archive.dimse.pdu import AssociationEnded
from archive.dimse.query_retrieve import FIND_MODELS, IDENTIFIER_BYTES_MAX, STUDY, Level, level_of
from archive.dimse.service import Requestor
from archive.dimse.status import (
    CANCEL,
    CANNOT_UNDERSTAND,
    PENDING,
    PENDING_KEYS_NOT_SUPPORTED,
    PROCESSING_FAILURE,
    RESULTS_LEFT_OUT,
    SOP_CLASS_NOT_SUPPORTED,
    SUCCESS,
    comment_of,
    status_of,
)
from archive.errors import ArchiveError
from archive.flow.patients import COUNTED_OF_PATIENT
from archive.flow.query import RETRIEVE_AE_TITLE, SEARCHABLE, Query, is_returned
from archive.flow.query import Level as SearchLevel

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.001
"""How long a search goes on before it sends what it found so far and looks for a cancel."""

_TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_NEGOTIABLE = bytes((1, 1, 1))  # relational queries, combined date-time matching, fuzzy matching of names (PS3.4 C.5.1.1)
_SEARCH_LEVELS: dict[str, SearchLevel] = {"PATIENT": "patient", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}
_QUERY_RETRIEVE_VIEW, _TIMEZONE = "00080053", "00080201"
_NO_KEYS = frozenset((QUERY_RETRIEVE_LEVEL, SPECIFIC_CHARACTER_SET, _QUERY_RETRIEVE_VIEW, _TIMEZONE))
_KEYS = (SEARCHABLE | COUNTED_OF_PATIENT) - _NO_KEYS
_SUPPORTED = _KEYS | _NO_KEYS


class Search(Protocol):
    """Where rows come from, as `archive.flow.query` has them."""

    def rows(self, query: Query, tick: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """Every row, as it is found; `tick` is called now and then, and what it raises ends the search."""


class _Cancelled(Exception):
    """The peer asked to cancel the query."""


class Find:
    """Answers queries.

    Parameters
    ----------
    search : Search
        Of this process.
    settings : DimseSection
        Limits.
    """

    def __init__(self, search: Search, settings: DimseSection) -> None:
        self._search = search
        self._results_max = settings.find_results_max
        self._relational = settings.find_relational

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax in FIND_MODELS

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return remote_ae.may_query

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        return next((uid for uid in proposed if uid in _TRANSFER_SYNTAXES), None)

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        ours = _NEGOTIABLE.ljust(len(information), b"\0")
        return bytes(int(asked == known == 1) for asked, known in zip(information, ours, strict=False))

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_FIND_RQ:
            return False
        started = time.monotonic()
        conversation = _Conversation(association, context, command)
        try:
            status, comment = self._find(conversation)
        except AssociationEnded:
            conversation.audit(None)
            raise
        except _Cancelled:
            status, comment = CANCEL, ""
        except Exception as error:
            status, comment = status_of(error), comment_of(error)
            if status == PROCESSING_FAILURE:
                status = CANNOT_UNDERSTAND  # The one failure that C-FIND has for this: "unable to process".
            if not isinstance(error, ArchiveError):
                log.error("a query failed inside", exc_info=error)
        association.count("finds" if status in (SUCCESS, CANCEL, RESULTS_LEFT_OUT) else "finds_failed")
        association.count("find_results", conversation.results)
        conversation.audit(status)
        log.log(
            logging.INFO if status in (SUCCESS, CANCEL) else logging.WARNING,
            "query answered: status=0x%04X peer=%s calling=%r level=%s results=%d seconds=%.3f%s",
            status,
            association.peer,
            association.calling_ae_title,
            conversation.level,
            conversation.results,
            time.monotonic() - started,
            f": {comment}" if comment else "",
        )
        association.messages.send(context.context_id, command.respond(status, comment))
        return True

    def _find(self, conversation: "_Conversation") -> tuple[int, str]:
        command, context = conversation.command, conversation.context
        if not command.has_data_set:
            return CANNOT_UNDERSTAND, "C-FIND without an identifier"
        data = conversation.association.messages.receive_data_set(IDENTIFIER_BYTES_MAX)
        if command.text(Field.AFFECTED_SOP_CLASS_UID) != context.abstract_syntax:
            return SOP_CLASS_NOT_SUPPORTED, "the SOP class is not that of the presentation context"
        identifier = read_identifier(data, context.transfer_syntax)
        relational, combined, fuzzy = conversation.negotiated()
        model = FIND_MODELS[context.abstract_syntax]
        level = level_of(identifier, model, relational or self._relational)
        conversation.level = level.name
        conversation.study_instance_uid = uid_or_empty(identifier.single(STUDY.unique_key))
        query = Query(
            level=_SEARCH_LEVELS[level.name],
            keys={path: key for path, key in identifier.keys.items() if path[0] in _KEYS},
            include=frozenset(identifier.wanted),
            limit=0,
            offset=0,
            fuzzy=fuzzy,
            combined=combined,
        )
        answers = _Answers(identifier, model.levels[: model.levels.index(level) + 1], query.level)
        for row in self._search.rows(query, conversation.look):
            if conversation.results == self._results_max:
                return RESULTS_LEFT_OUT, f"more than {self._results_max} matches, the rest is left out"
            conversation.answer(
                answers.status, write_identifier(answers.of(row), context.transfer_syntax, identifier.specific_character_set)
            )
            conversation.look()
        return SUCCESS, ""


class _Conversation:
    """One request and its answers so far."""

    def __init__(self, association: Requestor, context: Context, command: Command) -> None:
        self.association, self.context, self.command = association, context, command
        self.level = "?"
        self.study_instance_uid = ""
        self.results = 0
        self._look_again = 0.0
        self._pending: dict[int, bytes] = {}

    def negotiated(self) -> tuple[bool, ...]:
        """Relational queries, combined date-time matching, fuzzy matching: whether each was negotiated."""
        information = self.association.extended.get(self.context.abstract_syntax, b"")
        return tuple(byte == 1 for byte in information[: len(_NEGOTIABLE)].ljust(len(_NEGOTIABLE), b"\0"))

    def answer(self, status: int, identifier: bytes) -> None:
        response = self._pending.get(status)
        if response is None:
            response = self._pending[status] = self.command.respond(status, has_data_set=True)
        self.association.messages.send_soon(self.context.context_id, response, identifier)
        self.results += 1
        if self.results == 1:
            self._look_again = 0.0  # The peer has something to do while the rest is found.

    def audit(self, status: int | None) -> None:
        self.association.audit(CommandField.C_FIND_RQ, self.study_instance_uid, status, self.results)

    def look(self) -> None:
        """Now and then, send what was found and look for a cancel."""
        if time.monotonic() < self._look_again:
            return
        messages = self.association.messages
        messages.flush()
        if messages.is_cancelled(self.command.message_id):
            raise _Cancelled
        self._look_again = time.monotonic() + LOOK_SECONDS


class _Answers:
    """What the answers to one identifier hold (PS3.4 C.4.1.1.3.2).

    Parameters
    ----------
    levels : sequence of Level
        From the top of the model to the one asked at: the unique key of each is in every answer.

    Attributes
    ----------
    status : int
        Pending, and whether some of what was asked is not supported.
    """

    def __init__(self, identifier: Identifier, levels: Sequence[Level], level: SearchLevel) -> None:
        known = {tag for tag in identifier.wanted if tag in _SUPPORTED - {SPECIFIC_CHARACTER_SET}}
        self._wanted: Wanted = {tag: identifier.wanted[tag] for tag in known if tag in _NO_KEYS or is_returned(tag, level)}
        self._wanted.update({above.unique_key: None for above in levels})
        self._wanted.update({RETRIEVE_AE_TITLE: None})
        left_out = set(identifier.wanted) - set(self._wanted) - {SPECIFIC_CHARACTER_SET}
        self.status = PENDING_KEYS_NOT_SUPPORTED if left_out else PENDING
        self._echoed = {tag: {"vr": vr_of(tag), "Value": [identifier.single(tag)]} for tag in (QUERY_RETRIEVE_LEVEL, _QUERY_RETRIEVE_VIEW)}
        self._echoed = {tag: attribute for tag, attribute in self._echoed.items() if attribute["Value"][0]}

    def of(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """The answer that a row makes."""
        return {**_chosen(row, self._wanted), **self._echoed}


def _chosen(row: Mapping[str, Any], wanted: Wanted) -> dict[str, Any]:
    """Of a row or an item what is wanted; empty where there is none."""
    out: dict[str, Any] = {}
    for tag, inside in wanted.items():
        attribute = row.get(tag)
        if attribute is None:
            attribute = {"vr": vr_of(tag)[:2]}
        elif inside and attribute["vr"] == "SQ":
            attribute = {"vr": "SQ", "Value": [_chosen(item, inside) for item in attribute.get("Value", ())]}
        out[tag] = attribute
    return out
