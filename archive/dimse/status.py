"""Statuses of responses: what became of a request, as the peer is told (DICOM PS3.4 tables B.2-1 and C.4-1, PS3.7 annex C)."""

import errno

from archive.errors import ArchiveError, BadInput, Duplicate, Exhausted, Mismatch

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
DUPLICATE_SOP_INSTANCE = 0x0111
NO_SUCH_OBJECT_INSTANCE = 0x0112
INVALID_ARGUMENT_VALUE = 0x0115
INVALID_SOP_INSTANCE = 0x0117
SOP_CLASS_NOT_SUPPORTED = 0x0122
NO_SUCH_ACTION = 0x0123
NOT_AUTHORIZED = 0x0124
UNRECOGNIZED_OPERATION = 0x0211
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
UNABLE_TO_CALCULATE_MATCHES = 0xA701
UNABLE_TO_PERFORM_SUBOPERATIONS = 0xA702
MOVE_DESTINATION_UNKNOWN = 0xA801
DATA_SET_DOES_NOT_MATCH_SOP_CLASS = 0xA900
RESULTS_LEFT_OUT = 0xB000
UNABLE_TO_EXTRACT_FRAMES = 0xAA02
SUBOPERATIONS_COMPLETE_WITH_FAILURES = 0xB000
CANNOT_UNDERSTAND = 0xC000
CANCEL = 0xFE00
PENDING = 0xFF00
PENDING_KEYS_NOT_SUPPORTED = 0xFF01

_OF_ERRORS: tuple[tuple[type[BaseException], int], ...] = (
    (Duplicate, DUPLICATE_SOP_INSTANCE),
    (Mismatch, DATA_SET_DOES_NOT_MATCH_SOP_CLASS),
    (BadInput, CANNOT_UNDERSTAND),
    (Exhausted, OUT_OF_RESOURCES),
    (MemoryError, OUT_OF_RESOURCES),
)
_OUT_OF_RESOURCES = frozenset((errno.ENOSPC, errno.EDQUOT, errno.ENOMEM, errno.EMFILE, errno.ENFILE))


def status_of(error: BaseException) -> int:
    """The status that tells a sender of this error.

    What is not the object's fault and no stated limit is a processing failure: trying again may help.
    """
    if isinstance(error, OSError) and error.errno in _OUT_OF_RESOURCES:
        return OUT_OF_RESOURCES
    return next((status for kind, status in _OF_ERRORS if isinstance(error, kind)), PROCESSING_FAILURE)


def is_warning(status: int) -> bool:
    """Whether an operation was carried out, with something to remark (PS3.7 annex C.4)."""
    return status in (0x0001, 0x0107, 0x0116) or status >> 12 == 0xB


def outcome_of(status: int) -> str:
    """What a status says, for the audit log: success, warning, cancelled or failure."""
    if status == CANCEL:
        return "cancelled"
    return "success" if status == SUCCESS else "warning" if is_warning(status) else "failure"


def comment_of(error: BaseException) -> str:
    """What the sender is told in words; of what went wrong inside, nothing but that."""
    if isinstance(error, ArchiveError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "internal error"
