"""What Storage Commitment asks and tells: the Push Model's Action and Event Information (DICOM PS3.4 J.3.2, J.3.3; PS3.3 C.14)."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

from archive.dicom.identifier import write_identifier
from archive.dicom.scan import RawElement, scan_elements, scan_items, sniff_encoding
from archive.dicom.uid import check_uid
from archive.errors import BadInput

_REFERENCED_SOP_CLASS_UID, _REFERENCED_SOP_INSTANCE_UID = 0x00081150, 0x00081155
_TRANSACTION_UID, _REFERENCED_SOP_SEQUENCE = 0x00081195, 0x00081199


class FailureReason(IntEnum):
    """Why an instance is not committed (PS3.3 C.14.1.1)."""

    PROCESSING_FAILURE = 0x0110
    NO_SUCH_OBJECT_INSTANCE = 0x0112
    CLASS_INSTANCE_CONFLICT = 0x0119


class Reference(NamedTuple):
    """An instance, as the requestor names it."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """
    Attributes
    ----------
    committed : list of Reference
        In the order of the request.
    failed : list of (Reference, FailureReason)
        The others.
    """

    committed: list[Reference]
    failed: list[tuple[Reference, FailureReason]]


def read_action_information(data: bytes, transfer_syntax_uid: str) -> tuple[str, list[Reference]]:
    """Transaction UID and references of a request, each reference once.

    Raises
    ------
    BadInput
        It is no data set, or lacks something, or names something that is no UID.
    """
    encoding = sniff_encoding(data, transfer_syntax_uid)
    level = {element.tag: element for element in scan_elements(data, encoding)}
    transaction_uid = _uid(data, level, _TRANSACTION_UID, "TransactionUID")
    sequence = level.get(_REFERENCED_SOP_SEQUENCE)
    if sequence is None or sequence.truncated:
        raise BadInput("a storage commitment request without a whole ReferencedSOPSequence")
    references: dict[Reference, None] = {}
    for item in scan_items(data, sequence, encoding):
        inside = {e.tag: e for e in scan_elements(data, item.encoding, item.offset, item.offset + item.length)}
        sop_class_uid = _uid(data, inside, _REFERENCED_SOP_CLASS_UID, "ReferencedSOPClassUID")
        references[Reference(sop_class_uid, _uid(data, inside, _REFERENCED_SOP_INSTANCE_UID, "ReferencedSOPInstanceUID"))] = None
    if not references:
        raise BadInput("a storage commitment request for no instance")
    return transaction_uid, list(references)


def write_event_information(transaction_uid: str, verdict: Verdict, retrieve_ae_title: str, transfer_syntax_uid: str) -> bytes:
    """The data set of a report."""
    attributes: dict[str, Any] = {
        "00081195": {"vr": "UI", "Value": [transaction_uid]},
        "00080054": {"vr": "AE", "Value": [retrieve_ae_title]},
    }
    if verdict.committed:
        attributes["00081199"] = {"vr": "SQ", "Value": [_reference(one) for one in verdict.committed]}
    if verdict.failed:
        items = [{**_reference(one), "00081197": {"vr": "US", "Value": [int(reason)]}} for one, reason in verdict.failed]
        attributes["00081198"] = {"vr": "SQ", "Value": items}
    return write_identifier(attributes, transfer_syntax_uid, b"")


def _reference(reference: Reference) -> dict[str, Any]:
    return {
        "00081150": {"vr": "UI", "Value": [reference.sop_class_uid]},
        "00081155": {"vr": "UI", "Value": [reference.sop_instance_uid]},
    }


def _uid(data: bytes, level: dict[int, RawElement], tag: int, keyword: str) -> str:
    element = level.get(tag)
    value = b"" if element is None else data[element.offset : element.offset + element.length]
    return check_uid(value.decode("latin-1").strip("\0 "), keyword)
