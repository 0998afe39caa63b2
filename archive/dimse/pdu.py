"""Protocol data units of the DICOM upper layer: types, reasons, the short ones in bytes (DICOM PS3.8 9.3).

A-ASSOCIATE-RQ and -AC are `archive.dimse.negotiation`'s; the bytes of P-DATA-TF are read in `archive.dimse.message`.
"""

from enum import IntEnum
from struct import Struct

PDU_HEADER = Struct(">BxI")  # type, length of what follows
PDV_HEADER = Struct(">IBB")  # length of context id, control header and fragment; context id; control header
SHORT_PDU = Struct(">BxIxBBB")  # A-ASSOCIATE-RJ, A-RELEASE-RP, A-ABORT: all of length 4

COMMAND_FRAGMENT = 0x01
LAST_FRAGMENT = 0x02

ASSOCIATE_RQ_BYTES_MAX = 256 * 1024
"""Largest A-ASSOCIATE-RQ that is read: 128 presentation contexts with 30 transfer syntaxes each."""


class PduType(IntEnum):
    """PDU type field."""

    A_ASSOCIATE_RQ = 0x01
    A_ASSOCIATE_AC = 0x02
    A_ASSOCIATE_RJ = 0x03
    P_DATA_TF = 0x04
    A_RELEASE_RQ = 0x05
    A_RELEASE_RP = 0x06
    A_ABORT = 0x07


class AbortReason(IntEnum):
    """Reason of an A-ABORT whose source is the service provider (PS3.8 table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNIZED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNIZED_PARAMETER = 4
    UNEXPECTED_PARAMETER = 5
    INVALID_PARAMETER = 6


class Rejection(IntEnum):
    """Result, source and reason of an A-ASSOCIATE-RJ, a byte each (PS3.8 table 9-21)."""

    APPLICATION_CONTEXT_NOT_SUPPORTED = 0x010102
    CALLING_AE_TITLE_NOT_RECOGNIZED = 0x010103
    CALLED_AE_TITLE_NOT_RECOGNIZED = 0x010107
    PROTOCOL_VERSION_NOT_SUPPORTED = 0x010202
    LOCAL_LIMIT_EXCEEDED = 0x020302


class AssociationEnded(Exception):
    """The association (or the connection before it) is over, as its text tells."""


class Released(AssociationEnded):
    """The peer sent A-RELEASE-RQ."""


class ConnectionLost(AssociationEnded):
    """The peer closed the connection, or the network did."""


class PeerAborted(AssociationEnded):
    """The peer sent A-ABORT."""


class Refused(AssociationEnded):
    """The peer rejected the association that was requested of it, or took nothing of what it was proposed."""


class OutOfTime(AssociationEnded):
    """The peer was silent for longer than it may be."""


class Violation(AssociationEnded):
    """The peer broke the protocol; the reason goes into our A-ABORT.

    Parameters
    ----------
    reason : AbortReason
        For the peer.
    text : str
        For the log.
    """

    def __init__(self, reason: AbortReason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def associate_rj(rejection: Rejection) -> bytes:
    """An A-ASSOCIATE-RJ PDU (PS3.8 9.3.4)."""
    return SHORT_PDU.pack(PduType.A_ASSOCIATE_RJ, 4, rejection >> 16, rejection >> 8 & 0xFF, rejection & 0xFF)


def release_rq() -> bytes:
    """An A-RELEASE-RQ PDU (PS3.8 9.3.6)."""
    return SHORT_PDU.pack(PduType.A_RELEASE_RQ, 4, 0, 0, 0)


def release_rp() -> bytes:
    """An A-RELEASE-RP PDU (PS3.8 9.3.7)."""
    return SHORT_PDU.pack(PduType.A_RELEASE_RP, 4, 0, 0, 0)


def abort(reason: AbortReason | None = None) -> bytes:
    """An A-ABORT PDU (PS3.8 9.3.8): from the service provider with a reason, from the service user without."""
    return SHORT_PDU.pack(PduType.A_ABORT, 4, 0, 0 if reason is None else 2, reason or 0)


def p_data_tf(context_id: int, control: int, fragment: bytes) -> bytes:
    """A P-DATA-TF PDU with one presentation data value (PS3.8 9.3.5)."""
    length = len(fragment) + 2
    return PDU_HEADER.pack(PduType.P_DATA_TF, length + 4) + PDV_HEADER.pack(length, context_id, control) + fragment
