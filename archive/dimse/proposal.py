"""What a requestor proposes: A-ASSOCIATE-RQ, understood (DICOM PS3.8 9.3.2, annex D; PS3.7 annex D.3.3).

The PDU is read here: pynetdicom's decoder knows no unknown items, which are to be ignored, and warns of each UID that it dislikes, in a
proposal of 128 contexts for some milliseconds. The tests hold it against pynetdicom.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

from archive.dimse.pdu import PDU_HEADER, PDV_HEADER, AbortReason, PduType, Violation

ITEM = Struct(">BxH")
VARIABLE_ITEMS = 74
"""Where they begin in A-ASSOCIATE-RQ and -AC."""


class Item(IntEnum):
    """Types of items and sub-items of A-ASSOCIATE-RQ and -AC."""

    APPLICATION_CONTEXT = 0x10
    PRESENTATION_CONTEXT = 0x20
    PRESENTATION_CONTEXT_RESULT = 0x21
    ABSTRACT_SYNTAX = 0x30
    TRANSFER_SYNTAX = 0x40
    USER_INFORMATION = 0x50
    MAXIMUM_LENGTH = 0x51
    IMPLEMENTATION_CLASS_UID = 0x52
    OPERATIONS_WINDOW = 0x53
    ROLE_SELECTION = 0x54
    IMPLEMENTATION_VERSION_NAME = 0x55
    EXTENDED_NEGOTIATION = 0x56


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
    extended : dict of str to bytes
        Service class application information of SOP class extended negotiation, by SOP class (PS3.7 D.3.3.5).
    operations : tuple of int, or None
        Operations that the requestor wants to invoke and to perform at once, 0 for any number, where it negotiates them (PS3.7 D.3.3.3).
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
    extended: dict[str, bytes]
    operations: tuple[int, int] | None
    pdu_bytes_max: int
    implementation: str


def read_proposal(encoded: bytes) -> Proposal:
    """Decode an A-ASSOCIATE-RQ (PS3.8 9.3.2, annex D; PS3.7 D.3.3.3-D.3.3.5).

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
    if len(encoded) < VARIABLE_ITEMS:
        raise Violation(AbortReason.INVALID_PARAMETER, f"an A-ASSOCIATE-RQ of {len(encoded)} bytes")
    application_context, implementation, pdu_bytes_max = "", "", 0
    contexts: list[tuple[int, str, list[str]]] = []
    roles: dict[str, tuple[bool, bool]] = {}
    extended: dict[str, bytes] = {}
    operations = None
    for kind, body in read_items(encoded[VARIABLE_ITEMS:]):
        if kind == Item.APPLICATION_CONTEXT:
            application_context = text_of(body)
        elif kind == Item.PRESENTATION_CONTEXT:
            contexts.append(_read_context(body))
        elif kind == Item.USER_INFORMATION:
            for user_kind, value in read_items(body):
                if user_kind == Item.MAXIMUM_LENGTH:
                    pdu_bytes_max = int.from_bytes(value[:4], "big")
                elif user_kind == Item.ROLE_SELECTION:
                    uid, role = after_uid(value)
                    if len(role) != 2:
                        raise Violation(AbortReason.INVALID_PARAMETER, f"a role selection with {len(role)} bytes of roles")
                    roles[uid] = role[0] == 1, role[1] == 1
                elif user_kind == Item.EXTENDED_NEGOTIATION:
                    uid, information = after_uid(value)
                    extended[uid] = information
                elif user_kind == Item.OPERATIONS_WINDOW and len(value) == 4:
                    operations = int.from_bytes(value[:2], "big"), int.from_bytes(value[2:], "big")
                elif user_kind == Item.IMPLEMENTATION_VERSION_NAME or (user_kind == Item.IMPLEMENTATION_CLASS_UID and not implementation):
                    implementation = text_of(value)
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
        extended=extended,
        operations=operations,
        pdu_bytes_max=pdu_bytes_max,
        implementation=implementation,
    )


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


def write_item(kind: int, value: bytes) -> bytes:
    """An item or sub-item."""
    return ITEM.pack(kind, len(value)) + value


def sized_uid(uid: str) -> bytes:
    """A UID behind its length, as sub-items of user information begin."""
    return len(uid).to_bytes(2, "big") + uid.encode("ascii")


def read_items(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each item or sub-item."""
    at = 0
    while at < len(data):
        kind, length = ITEM.unpack_from(data, at) if at + ITEM.size <= len(data) else (0, len(data))
        at += ITEM.size + length
        if at > len(data):
            raise Violation(AbortReason.INVALID_PARAMETER, "an item that reaches beyond the end of what holds it")
        yield kind, data[at - length : at]


def _read_context(body: bytes) -> tuple[int, str, list[str]]:
    names: dict[int, list[str]] = {Item.ABSTRACT_SYNTAX: [], Item.TRANSFER_SYNTAX: []}
    for kind, value in read_items(body[4:]):
        if kind in names:
            names[kind].append(text_of(value))
    if not body or len(names[Item.ABSTRACT_SYNTAX]) != 1:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a presentation context with {len(names[Item.ABSTRACT_SYNTAX])} abstract syntaxes")
    return body[0], names[Item.ABSTRACT_SYNTAX][0], names[Item.TRANSFER_SYNTAX]


def after_uid(value: bytes) -> tuple[str, bytes]:
    """The SOP class that a sub-item begins with, and what it says of it."""
    end = 2 + int.from_bytes(value[:2], "big")
    if len(value) < max(end, 2):
        raise Violation(AbortReason.INVALID_PARAMETER, f"a user information sub-item of {len(value)} bytes for a UID of {end - 2}")
    return text_of(value[2:end]), value[end:]


def text_of(value: bytes) -> str:
    """A name without the padding that is wrong here and comes all the same."""
    return value.decode("latin-1").strip("\0 ")


def _ae_title(field: bytes, which: str) -> str:
    """Leading and trailing spaces are no part of a title, and there is nothing else than ASCII in one (PS3.5 6.2, AE)."""
    title = field.decode("latin-1").strip("\0 ")
    if not title or "\\" in title or not (title.isascii() and title.isprintable()):
        raise Violation(AbortReason.INVALID_PARAMETER, f"a {which} AE title that is none: {title!r}")
    return title
