"""Association negotiation: what the requestor proposes, what is accepted of it, and the answer (DICOM PS3.8 9.3.2-9.3.4, annex D).

The choice is the services'. The PDUs are read and written here: pynetdicom's decoder knows no unknown items, which are to be ignored,
and warns of each UID that it dislikes, in a proposal of 128 contexts for some milliseconds. The tests hold both against it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from struct import Struct

from archive.config import DimseSection
from archive.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.dicom.syntax import IMPLICIT_VR_LITTLE_ENDIAN
from archive.dicom.uid import check_uid
from archive.dimse.message import Context
from archive.dimse.pdu import PDU_HEADER, PDV_HEADER, AbortReason, PduType, Rejection, Violation
from archive.dimse.service import Service
from archive.errors import BadInput

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 0x0001

_TITLES = slice(10, 74)  # called and calling AE title and the reserved bytes after them, in -RQ and -AC alike
_VARIABLE_ITEMS = 74
_ITEM = Struct(">BxH")
_APPLICATION_CONTEXT, _PRESENTATION_CONTEXT, _ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _USER_INFORMATION = 0x10, 0x20, 0x30, 0x40, 0x50
_PRESENTATION_CONTEXT_RESULT = 0x21
_MAXIMUM_LENGTH, _IMPLEMENTATION_CLASS_UID, _ROLE_SELECTION, _IMPLEMENTATION_VERSION_NAME = 0x51, 0x52, 0x54, 0x55

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
    """Decode an A-ASSOCIATE-RQ (PS3.8 9.3.2, annex D; PS3.7 D.3.3.4).

    Items that are not defined are ignored, as PS3.8 9.3.1 has it. Nothing is said of UIDs here: what is none is refused context
    by context.

    Parameters
    ----------
    encoded : bytes
        The whole PDU, header included.

    Raises
    ------
    Violation
        It cannot be understood.
    """
    if len(encoded) < _VARIABLE_ITEMS:
        raise Violation(AbortReason.INVALID_PARAMETER, f"an A-ASSOCIATE-RQ of {len(encoded)} bytes")
    application_context, implementation, pdu_bytes_max = "", "", 0
    contexts: list[tuple[int, str, list[str]]] = []
    roles: dict[str, tuple[bool, bool]] = {}
    for kind, body in _items(encoded[_VARIABLE_ITEMS:]):
        if kind == _APPLICATION_CONTEXT:
            application_context = _text(body)
        elif kind == _PRESENTATION_CONTEXT:
            contexts.append(_read_context(body))
        elif kind == _USER_INFORMATION:
            for user_kind, value in _items(body):
                if user_kind == _MAXIMUM_LENGTH:
                    pdu_bytes_max = int.from_bytes(value[:4], "big")
                elif user_kind == _ROLE_SELECTION:
                    uid, (scu, scp) = _read_role(value)
                    roles[uid] = scu, scp
                elif user_kind == _IMPLEMENTATION_VERSION_NAME or (user_kind == _IMPLEMENTATION_CLASS_UID and not implementation):
                    implementation = _text(value)
    ids = [context_id for context_id, _, _ in contexts]
    if not ids or len(ids) != len(set(ids)) or not all(context_id % 2 for context_id in ids):
        raise Violation(AbortReason.INVALID_PARAMETER, f"presentation context ids that are none: {ids}")
    if 0 < pdu_bytes_max <= PDV_HEADER.size:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a maximum length of {pdu_bytes_max} bytes")
    return Proposal(
        encoded=encoded,
        called_ae_title=_ae_title(encoded[10:26], "called"),
        calling_ae_title=_ae_title(encoded[26:42], "calling"),
        protocol_version=int.from_bytes(encoded[6:8], "big"),
        application_context=application_context,
        contexts=contexts,
        roles=roles,
        pdu_bytes_max=pdu_bytes_max,
        implementation=implementation,
    )


def reject(proposal: Proposal, settings: DimseSection) -> Rejection | None:
    """Why the association is refused as a whole, if it is (PS3.8 9.3.4, PS3.7 D.1)."""
    if not proposal.protocol_version & PROTOCOL_VERSION:
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
    results: list[bytes] = []
    for context_id, abstract_syntax, names in proposal.contexts:
        proposed = [name for name in names if _is_uid(name)]
        service = _service_of(abstract_syntax, services)
        transfer_syntax = None
        if service is not None:
            transfer_syntax = service.choose_transfer_syntax(proposed)
        if service is not None and transfer_syntax is not None:
            contexts[context_id] = Context(context_id, abstract_syntax, transfer_syntax)
            chosen[context_id] = service
            results.append(_result(context_id, ACCEPTED, transfer_syntax))
        else:
            reason = TRANSFER_SYNTAXES_NOT_SUPPORTED if service else ABSTRACT_SYNTAX_NOT_SUPPORTED
            results.append(_result(context_id, reason, proposed[0] if proposed else IMPLICIT_VR_LITTLE_ENDIAN))
    user = [
        _item(_MAXIMUM_LENGTH, pdu_bytes_max.to_bytes(4, "big")),
        _item(_IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        _item(_IMPLEMENTATION_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
        *_role_items(proposal.roles, services),
    ]
    items = [_item(_APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii")), *results, _item(_USER_INFORMATION, b"".join(user))]
    # The titles go back "identical to the value received" (PS3.8 table 9-17).
    body = PROTOCOL_VERSION.to_bytes(2, "big") + bytes(2) + proposal.encoded[_TITLES] + b"".join(items)
    encoded = PDU_HEADER.pack(PduType.A_ASSOCIATE_AC, len(body)) + body
    return Outcome(contexts, chosen, encoded)


def _items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item."""
    at = 0
    while at < len(data):
        kind, length = _ITEM.unpack_from(data, at) if at + _ITEM.size <= len(data) else (0, len(data))
        at += _ITEM.size + length
        if at > len(data):
            raise Violation(AbortReason.INVALID_PARAMETER, "an item that reaches beyond the end of what holds it")
        yield kind, data[at - length : at]


def _read_context(body: bytes) -> tuple[int, str, list[str]]:
    names: dict[int, list[str]] = {_ABSTRACT_SYNTAX: [], _TRANSFER_SYNTAX: []}
    for kind, value in _items(body[4:]):
        if kind in names:
            names[kind].append(_text(value))
    if not body or len(names[_ABSTRACT_SYNTAX]) != 1:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a presentation context with {len(names[_ABSTRACT_SYNTAX])} abstract syntaxes")
    return body[0], names[_ABSTRACT_SYNTAX][0], names[_TRANSFER_SYNTAX]


def _read_role(value: bytes) -> tuple[str, tuple[bool, bool]]:
    length = int.from_bytes(value[:2], "big")
    if len(value) != 2 + length + 2:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a role selection of {len(value)} bytes for a UID of {length}")
    return _text(value[2 : 2 + length]), (value[-2] == 1, value[-1] == 1)


def _text(value: bytes) -> str:
    """A name without the padding that is wrong here and comes all the same."""
    return value.decode("latin-1").strip("\0 ")


def _ae_title(field: bytes, which: str) -> str:
    """Leading and trailing spaces are no part of a title, and there is nothing else than ASCII in one (PS3.5 6.2, AE)."""
    title = field.decode("latin-1").strip("\0 ")
    if not title or "\\" in title or not (title.isascii() and title.isprintable()):
        raise Violation(AbortReason.INVALID_PARAMETER, f"a {which} AE title that is none: {title!r}")
    return title


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


def _item(kind: int, value: bytes) -> bytes:
    return _ITEM.pack(kind, len(value)) + value


def _result(context_id: int, result: int, transfer_syntax: str) -> bytes:
    """A presentation context item of the answer (PS3.8 9.3.3.2)."""
    return _item(_PRESENTATION_CONTEXT_RESULT, bytes((context_id, 0, result, 0)) + _item(_TRANSFER_SYNTAX, transfer_syntax.encode("ascii")))


def _role_items(roles: Mapping[str, tuple[bool, bool]], services: Sequence[Service]) -> Iterator[bytes]:
    for uid, (scu, scp) in roles.items():
        service = _service_of(uid, services)
        if service is not None:
            name = uid.encode("ascii")
            yield _item(_ROLE_SELECTION, len(name).to_bytes(2, "big") + name + bytes(service.accept_roles(scu, scp)))


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
