"""Association negotiation: what the requestor proposes, what is accepted of it, and the answer (DICOM PS3.8 9.3.2-9.3.4, annex D).

The PDUs are decoded and encoded by pynetdicom; the choice is the services'.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import (
    ApplicationContextItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    PresentationContextItemAC,
    PresentationContextItemRQ,
    SCP_SCU_RoleSelectionSubItem,
    TransferSyntaxSubItem,
    UserInformationItem,
)

from archive.config import DimseSection
from archive.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.dicom.syntax import IMPLICIT_VR_LITTLE_ENDIAN
from archive.dicom.uid import check_uid
from archive.dimse.message import Context
from archive.dimse.pdu import PDU_HEADER, PDV_HEADER, AbortReason, PduType, Rejection, Violation
from archive.dimse.service import Service
from archive.errors import BadInput

# It logs each field that it dislikes, some with a traceback; what is wrong with a PDU is logged here, once.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"

_TITLES = slice(10, 74)  # called and calling AE title and the reserved bytes after them, in -RQ and -AC alike
_VARIABLE_ITEMS = 74
_ITEM = Struct(">BxH")
_USER_INFORMATION = 0x50
_ITEMS_KNOWN = frozenset((0x10, 0x20, _USER_INFORMATION, *range(0x51, 0x59)))

ACCEPTED, ABSTRACT_SYNTAX_NOT_SUPPORTED, TRANSFER_SYNTAXES_NOT_SUPPORTED = 0, 3, 4


@dataclass(frozen=True, slots=True)
class Proposal:
    """An A-ASSOCIATE-RQ, understood.

    Parameters
    ----------
    encoded : bytes
        The whole PDU.
    called_ae_title, calling_ae_title : str
        Without padding.
    protocol_version : int
        Bit 0 says that the requestor knows version 1.
    application_context : str
        Name; empty where it is missing.
    contexts : list of (int, str, list of str)
        Id, abstract syntax and transfer syntaxes of each presentation context.
    roles : dict
        Roles of SCU and SCP that the requestor wants, by SOP class.
    pdu_bytes_max : int
        Largest P-DATA-TF that it takes; 0: no limit.
    implementation : str
        Implementation version name, else class UID; for the log.
    """

    encoded: bytes
    called_ae_title: str
    calling_ae_title: str
    protocol_version: int
    application_context: str
    contexts: list[tuple[int, str, list[str]]]
    roles: dict[str, tuple[bool, bool]]
    pdu_bytes_max: int
    implementation: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is accepted of a proposal.

    Parameters
    ----------
    contexts : dict of int to Context
        Accepted presentation contexts by id.
    services : dict of int to Service
        Who answers on them.
    encoded : bytes
        The A-ASSOCIATE-AC PDU.
    """

    contexts: dict[int, Context]
    services: dict[int, Service]
    encoded: bytes


def read_proposal(encoded: bytes) -> Proposal:
    """Decode an A-ASSOCIATE-RQ.

    Parameters
    ----------
    encoded : bytes
        The whole PDU, header included.

    Raises
    ------
    Violation
        It cannot be understood.
    """
    pdu = A_ASSOCIATE_RQ()
    try:
        pdu.decode(encoded[:_VARIABLE_ITEMS] + b"".join(_known_items(encoded, _VARIABLE_ITEMS, len(encoded))))
        user = pdu.user_information or UserInformationItem()
        contexts = [_context(item) for item in pdu.presentation_context]
        application_context = [item for item in pdu.variable_items if isinstance(item, ApplicationContextItem)]
        proposal = Proposal(
            encoded=encoded,
            called_ae_title=pdu.called_ae_title,
            calling_ae_title=pdu.calling_ae_title,
            protocol_version=pdu.protocol_version,
            application_context=str(application_context[0].application_context_name or "") if application_context else "",
            contexts=contexts,
            roles={str(uid): (bool(item.scu_role), bool(item.scp_role)) for uid, item in user.role_selection.items()},
            pdu_bytes_max=user.maximum_length or 0,
            implementation=str(user.implementation_version_name or user.implementation_class_uid or ""),
        )
    except Violation:
        raise
    except Exception as error:  # its decoders raise whatever Python does on what they were not written for
        raise Violation(
            AbortReason.INVALID_PARAMETER, f"an A-ASSOCIATE-RQ that cannot be understood: {type(error).__name__}: {error}"
        ) from None
    ids = [context_id for context_id, _, _ in contexts]
    if not ids or len(ids) != len(set(ids)) or not all(context_id % 2 for context_id in ids):
        raise Violation(AbortReason.INVALID_PARAMETER, f"presentation context ids that are none: {ids}")
    if 0 < proposal.pdu_bytes_max <= PDV_HEADER.size:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a maximum length of {proposal.pdu_bytes_max} bytes")
    return proposal


def reject(proposal: Proposal, settings: DimseSection) -> Rejection | None:
    """Why the association is refused as a whole, if it is (PS3.8 9.3.4, PS3.7 D.1)."""
    if not proposal.protocol_version & 1:
        return Rejection.PROTOCOL_VERSION_NOT_SUPPORTED
    if proposal.application_context != APPLICATION_CONTEXT:
        return Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED
    if settings.called_ae_title_required and proposal.called_ae_title != settings.ae_title.strip():
        return Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED
    if settings.calling_ae_titles and proposal.calling_ae_title not in settings.calling_ae_titles:
        return Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED
    return None


def accept(proposal: Proposal, services: Sequence[Service], pdu_bytes_max: int) -> Outcome:
    """Choose among what is proposed, and encode the answer.

    Parameters
    ----------
    proposal : Proposal
        Not rejected.
    services : sequence of Service
        The first that supports an abstract syntax gets it.
    pdu_bytes_max : int
        Largest P-DATA-TF that the requestor may send.
    """
    contexts: dict[int, Context] = {}
    chosen: dict[int, Service] = {}
    results: list[PresentationContextItemAC] = []
    for context_id, abstract_syntax, proposed in proposal.contexts:
        service = _service_of(abstract_syntax, services)
        transfer_syntax = None
        if service is not None:
            transfer_syntax = service.choose_transfer_syntax([uid for uid in proposed if _is_uid(uid)])
        if service is not None and transfer_syntax is not None:
            contexts[context_id] = Context(context_id, abstract_syntax, transfer_syntax)
            chosen[context_id] = service
            results.append(_result(context_id, ACCEPTED, transfer_syntax))
        else:
            reason = TRANSFER_SYNTAXES_NOT_SUPPORTED if service else ABSTRACT_SYNTAX_NOT_SUPPORTED
            results.append(_result(context_id, reason, proposed[0] if proposed else IMPLICIT_VR_LITTLE_ENDIAN))
    pdu = A_ASSOCIATE_AC()
    application_context = ApplicationContextItem()
    application_context.application_context_name = APPLICATION_CONTEXT
    user = UserInformationItem()
    user.user_data = [*_user_items(pdu_bytes_max), *_role_items(proposal.roles, services)]
    pdu.variable_items = [application_context, *results, user]
    encoded = bytearray(pdu.encode())
    encoded[_TITLES] = proposal.encoded[_TITLES]  # "identical to the value received", PS3.8 table 9-17
    return Outcome(contexts, chosen, bytes(encoded))


def _context(item: PresentationContextItemRQ) -> tuple[int, str, list[str]]:
    return item.context_id or 0, str(item.abstract_syntax or ""), [str(uid or "") for uid in item.transfer_syntax]


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


def _result(context_id: int, result: int, transfer_syntax: str) -> PresentationContextItemAC:
    item = PresentationContextItemAC()
    item.presentation_context_id, item.result_reason = context_id, result
    syntax = TransferSyntaxSubItem()
    syntax.transfer_syntax_name = transfer_syntax
    item.transfer_syntax_sub_item = [syntax]
    return item


def _user_items(pdu_bytes_max: int) -> Iterator[MaximumLengthSubItem | ImplementationClassUIDSubItem | ImplementationVersionNameSubItem]:
    length = MaximumLengthSubItem()
    length.maximum_length_received = pdu_bytes_max
    yield length
    class_uid = ImplementationClassUIDSubItem()
    class_uid.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    yield class_uid
    version = ImplementationVersionNameSubItem()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    yield version


def _role_items(roles: Mapping[str, tuple[bool, bool]], services: Sequence[Service]) -> Iterator[SCP_SCU_RoleSelectionSubItem]:
    for uid, (scu, scp) in roles.items():
        service = _service_of(uid, services)
        if service is None:
            continue
        item = SCP_SCU_RoleSelectionSubItem()
        item.sop_class_uid = uid
        item.scu_role, item.scp_role = (int(role) for role in service.accept_roles(scu, scp))
        yield item


def _known_items(encoded: bytes, start: int, end: int) -> Iterator[bytes]:
    """Variable items that are defined for an A-ASSOCIATE-RQ: others are to be ignored (PS3.8 9.3.1)."""
    while start < end:
        kind, length = _ITEM.unpack_from(encoded, start)
        body, start = start + _ITEM.size, start + _ITEM.size + length
        if start > end:
            raise Violation(AbortReason.INVALID_PARAMETER, f"an item of {length} bytes beyond the end of what holds it")
        if kind == _USER_INFORMATION:
            items = b"".join(_known_items(encoded, body, start))
            yield _ITEM.pack(kind, len(items)) + items
        elif kind in _ITEMS_KNOWN:
            yield encoded[body - _ITEM.size : start]


def is_associate_rq(header: bytes | memoryview) -> int:
    """Length of the rest of an A-ASSOCIATE-RQ whose header this is.

    Raises
    ------
    Violation
        It is another PDU or none.
    """
    pdu_type, length = PDU_HEADER.unpack(header)
    if pdu_type == PduType.A_ASSOCIATE_RQ:
        return int(length)
    known = pdu_type in PduType.__members__.values()
    reason = AbortReason.UNEXPECTED_PDU if known else AbortReason.UNRECOGNIZED_PDU
    raise Violation(reason, f"a PDU of type 0x{pdu_type:02X} where an A-ASSOCIATE-RQ belongs")
