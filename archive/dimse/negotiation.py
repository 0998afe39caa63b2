"""What is accepted of a proposal, and the answer to it (DICOM PS3.8 9.3.3-9.3.4, annex D; PS3.7 annex D.3.3).

The choice is the services' and the table's of remote AEs. The A-ASSOCIATE-AC is written here; the tests hold it against pynetdicom.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from archive.config import DimseSection, RemoteAe
from archive.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.dicom.syntax import IMPLICIT_VR_LITTLE_ENDIAN
from archive.dicom.uid import check_uid
from archive.dimse.message import Context
from archive.dimse.pdu import PDU_HEADER, PduType, Rejection
from archive.dimse.proposal import Item, Proposal, sized_uid, write_item
from archive.dimse.query_retrieve import GET_MODELS
from archive.dimse.service import Service
from archive.errors import BadInput

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 0x0001

ACCEPTED, USER_REJECTION, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 1, 3, 4

OPERATIONS_INVOKED_MAX = 32
"""Requests that a peer may send ahead of their answers, where it negotiates that; they wait in the connection and are answered in order.
None may be where it may ask for C-GET: its answers to what it gets would wait behind them."""

_TITLES = slice(10, 74)  # called and calling AE title and the reserved bytes after them, in -RQ and -AC alike


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is accepted of a proposal.

    Parameters
    ----------
    contexts : dict of int to Context
        Accepted presentation contexts by id.
    services : dict of int to Service
        Who answers on them.
    extended : dict of str to bytes
        Service class application information as it was answered, by SOP class.
    encoded : bytes
        The A-ASSOCIATE-AC PDU.
    """

    contexts: dict[int, Context]
    services: dict[int, Service]
    extended: dict[str, bytes]
    encoded: bytes


def reject(proposal: Proposal, settings: DimseSection, remote_aes: Mapping[str, RemoteAe]) -> Rejection | None:
    """Why the association is refused as a whole, if it is (PS3.8 9.3.4, PS3.7 D.1)."""
    if not proposal.protocol_version & PROTOCOL_VERSION:
        return Rejection.PROTOCOL_VERSION_NOT_SUPPORTED
    if proposal.application_context != APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
    if settings.called_ae_title_required and proposal.called_ae_title != settings.ae_title.strip():
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED
    known = proposal.calling_ae_title in remote_aes or proposal.calling_ae_title in settings.calling_ae_titles
    if not known and (settings.calling_ae_titles or settings.unknown_callers_rejected):
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED
    return None


def accept(proposal: Proposal, services: Sequence[Service], remote_ae: RemoteAe, pdu_bytes_max: int) -> Outcome:
    """Choose among what is proposed, and encode the answer.

    Parameters
    ----------
    proposal : Proposal
        Not rejected.
    services : sequence of Service
        The first that supports an abstract syntax gets it.
    remote_ae : RemoteAe
        The requestor, with its rights.
    pdu_bytes_max : int
        Largest P-DATA-TF that the requestor may send.
    """
    contexts: dict[int, Context] = {}
    chosen: dict[int, Service] = {}
    results: list[bytes] = []
    roles = dict(_accepted_roles(proposal.roles, services))
    for context_id, abstract_syntax, names in proposal.contexts:
        proposed = [name for name in names if _is_uid(name)]
        service = _service_of(abstract_syntax, services)
        transfer_syntax = None
        if service is None:
            result = ABSTRACT_SYNTAX_NOT_SUPPORTED
        elif not service.permits(abstract_syntax, remote_ae, roles.get(abstract_syntax, (True, False))[1]):
            result = USER_REJECTION
        else:
            transfer_syntax = service.choose_transfer_syntax(proposed, remote_ae, roles.get(abstract_syntax, (True, False))[1])
            result = ACCEPTED if transfer_syntax else TRANSFER_SYNTAXES_NOT_SUPPORTED
        if service is not None and transfer_syntax is not None:
            scu, scp = roles.get(abstract_syntax, (True, False))
            contexts[context_id] = Context(context_id, abstract_syntax, transfer_syntax, scu, scp)
            chosen[context_id] = service
        # Where the context is refused its transfer syntax means nothing, but has to be there (PS3.8 9.3.3.2).
        named = transfer_syntax or (proposed[0] if proposed else IMPLICIT_VR_LITTLE_ENDIAN)
        body = bytes((context_id, 0, result, 0)) + write_item(Item.TRANSFER_SYNTAX, named.encode("ascii"))
        results.append(write_item(Item.PRESENTATION_CONTEXT_RESULT, body))
    extended = dict(_answers(proposal.extended, services))
    user = [
        write_item(Item.MAXIMUM_LENGTH, pdu_bytes_max.to_bytes(4, "big")),
        write_item(Item.IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        *_operations_window(proposal.operations, any(context.abstract_syntax in GET_MODELS for context in contexts.values())),
        *(write_item(Item.ROLE_SELECTION, sized_uid(uid) + bytes(role)) for uid, role in roles.items()),
        write_item(Item.IMPLEMENTATION_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        *(write_item(Item.EXTENDED_NEGOTIATION, sized_uid(uid) + information) for uid, information in extended.items()),
    ]
    application_context = write_item(Item.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii"))
    items = b"".join((application_context, *results, write_item(Item.USER_INFORMATION, b"".join(user))))
    # The titles go back "identical to the value received" (PS3.8 table 9-17).
    answer = PROTOCOL_VERSION.to_bytes(2, "big") + bytes(2) + proposal.encoded[_TITLES] + items
    return Outcome(contexts, chosen, extended, PDU_HEADER.pack(PduType.A_ASSOCIATE_AC, len(answer)) + answer)


def _service_of(abstract_syntax: str, services: Sequence[Service]) -> Service | None:
    if not _is_uid(abstract_syntax):
        return None
    return next((service for service in services if service.supports(abstract_syntax)), None)


def _is_uid(value: str) -> bool:
    try:
        check_uid(value)
    except BadInput:
        return False
    return True


def _accepted_roles(proposed: Mapping[str, tuple[bool, bool]], services: Sequence[Service]) -> Iterator[tuple[str, tuple[bool, bool]]]:
    for uid, (scu, scp) in proposed.items():
        service = _service_of(uid, services)
        if service is not None:
            yield uid, service.accept_roles(scu, scp)


def _answers(proposed: Mapping[str, bytes], services: Sequence[Service]) -> Iterator[tuple[str, bytes]]:
    for uid, information in proposed.items():
        service = _service_of(uid, services)
        answer = service.answer_extended(uid, information) if service is not None else None
        if answer is not None:
            yield uid, answer


def _operations_window(proposed: tuple[int, int] | None, gets: bool) -> Iterator[bytes]:
    """What the requestor may invoke, and what it may be asked to perform: one operation of ours at a time."""
    if proposed is not None:
        invoked = 1 if gets else min(proposed[0] or OPERATIONS_INVOKED_MAX, OPERATIONS_INVOKED_MAX)
        yield write_item(Item.OPERATIONS_WINDOW, invoked.to_bytes(2, "big") + (1).to_bytes(2, "big"))
