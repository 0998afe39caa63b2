"""What this node proposes when it requests an association, and what is answered (DICOM PS3.8 9.3.2-9.3.4, PS3.7 annex D.3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from archive.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from archive.dimse.message import Context
from archive.dimse.negotiation import ACCEPTED, APPLICATION_CONTEXT, PROTOCOL_VERSION
from archive.dimse.pdu import PDU_HEADER, PDV_HEADER, AbortReason, PduType, Violation
from archive.dimse.proposal import VARIABLE_ITEMS, Item, after_uid, read_items, sized_uid, text_of, write_item

CONTEXTS_MAX = 128
"""Presentation contexts of an association: their ids are the odd numbers of a byte."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A presentation context to propose."""

    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Granted:
    """An A-ASSOCIATE-AC, understood.

    Attributes
    ----------
    contexts : dict of int to Context
        Accepted presentation contexts by id, with the peer's roles.
    pdu_bytes_max : int
        Largest P-DATA-TF that the peer takes; 0: no limit.
    """

    contexts: dict[int, Context]
    pdu_bytes_max: int


def associate_rq(
    called_ae_title: str,
    calling_ae_title: str,
    wanted: Sequence[Wanted],
    pdu_bytes_max: int,
    roles: Mapping[str, tuple[bool, bool]] | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ PDU.

    Parameters
    ----------
    wanted : sequence of Wanted
        At most `CONTEXTS_MAX`; the n-th gets the id 2n + 1, counted from 0.
    pdu_bytes_max : int
        Largest P-DATA-TF that the peer may send.
    roles : mapping of str to (bool, bool)
        Roles of SCU and SCP that this node wants, by SOP class; without a row it is SCU.
    """
    contexts = [
        write_item(
            Item.PRESENTATION_CONTEXT,
            bytes((2 * n + 1, 0, 0, 0))
            + write_item(Item.ABSTRACT_SYNTAX, one.abstract_syntax.encode("ascii"))
            + b"".join(write_item(Item.TRANSFER_SYNTAX, uid.encode("ascii")) for uid in one.transfer_syntaxes),
        )
        for n, one in enumerate(wanted)
    ]
    user = [
        write_item(Item.MAXIMUM_LENGTH, pdu_bytes_max.to_bytes(4, "big")),
        write_item(Item.IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_CLASS_UID.encode("ascii")),
        *(write_item(Item.ROLE_SELECTION, sized_uid(uid) + bytes(role)) for uid, role in (roles or {}).items()),
        write_item(Item.IMPLEMENTATION_VERSION_NAME, IMPLEMENTATION_VERSION_NAME.encode("ascii")),
    ]
    titles = b"".join(f"{title:<16}".encode("ascii") for title in (called_ae_title, calling_ae_title))
    application_context = write_item(Item.APPLICATION_CONTEXT, APPLICATION_CONTEXT.encode("ascii"))
    items = b"".join((application_context, *contexts, write_item(Item.USER_INFORMATION, b"".join(user))))
    body = PROTOCOL_VERSION.to_bytes(2, "big") + bytes(2) + titles + bytes(32) + items
    return PDU_HEADER.pack(PduType.A_ASSOCIATE_RQ, len(body)) + body


def read_granted(encoded: bytes, wanted: Sequence[Wanted], roles: Mapping[str, tuple[bool, bool]] | None = None) -> Granted:
    """Decode an A-ASSOCIATE-AC.

    A context that was not proposed, or is accepted with another transfer syntax than one proposed, counts as refused.

    Parameters
    ----------
    encoded : bytes
        The whole PDU, header included.
    wanted, roles
        As they were proposed.

    Raises
    ------
    Violation
        It cannot be understood.
    """
    accepted: dict[int, str] = {}
    answered: dict[str, tuple[bool, bool]] = {}
    pdu_bytes_max = 0
    for kind, body in read_items(encoded[VARIABLE_ITEMS:]):
        if kind == Item.PRESENTATION_CONTEXT_RESULT and len(body) >= 4 and body[2] == ACCEPTED:
            accepted[body[0]] = next((text_of(value) for inner, value in read_items(body[4:]) if inner == Item.TRANSFER_SYNTAX), "")
        elif kind == Item.USER_INFORMATION:
            for user_kind, value in read_items(body):
                if user_kind == Item.MAXIMUM_LENGTH:
                    pdu_bytes_max = int.from_bytes(value[:4], "big")
                elif user_kind == Item.ROLE_SELECTION:
                    uid, role = after_uid(value)
                    answered[uid] = role[:1] == b"\1", role[1:2] == b"\1"
    if 0 < pdu_bytes_max <= PDV_HEADER.size:
        raise Violation(AbortReason.INVALID_PARAMETER, f"a maximum length of {pdu_bytes_max} bytes")
    contexts: dict[int, Context] = {}
    for n, one in enumerate(wanted):
        transfer_syntax = accepted.get(2 * n + 1)
        if transfer_syntax is None or transfer_syntax not in one.transfer_syntaxes:
            continue
        scu, scp = (roles or {}).get(one.abstract_syntax, (True, False))
        if one.abstract_syntax in (roles or {}):
            # A role that the peer does not answer is not granted: the defaults hold (PS3.7 D.3.3.4).
            granted = answered.get(one.abstract_syntax, (True, False))
            scu, scp = scu and granted[0], scp and granted[1]
        # Where this node is SCU the peer is SCP, and the reverse.
        contexts[2 * n + 1] = Context(2 * n + 1, one.abstract_syntax, transfer_syntax, peer_is_scu=scp, peer_is_scp=scu)
    return Granted(contexts, pdu_bytes_max)
