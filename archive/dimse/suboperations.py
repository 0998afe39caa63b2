"""C-STORE sub-operations of C-MOVE and C-GET: sent one by one, counted, told (DICOM PS3.4 C.4.2, C.4.3; PS3.7 9.1.3, 9.1.4)."""

import logging
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from archive.dimse.command import CommandField, Field
from archive.dimse.status import SUCCESS, is_warning
from archive.flow.deliverable import Deliverable
from archive.flow.selection import Level
from archive.index.located import Located

log = logging.getLogger(__name__)

_PRIORITY_MEDIUM = 0


class Source(Protocol):
    """Where instances come from."""

    def select(self, level: Level, keys: Mapping[str, str]) -> Sequence[Located]:
        """Instances that the unique keys ask for; raises where they make no sense."""

    def open(self, stored: Located, accepted: Sequence[str]) -> AbstractContextManager[Deliverable]:
        """An instance's data set in one of the transfer syntaxes accepted; raises where it cannot be given in any."""


class Tally:
    """How many sub-operations of an operation came to which end; any number of threads.

    Parameters
    ----------
    instances : sequence of Located
        All of them.
    whose : str
        The operation, for the log.
    """

    def __init__(self, instances: Sequence[Located], whose: str) -> None:
        self.remaining = len(instances)
        self.completed = self.warned = 0
        self.failed: list[str] = []
        self.reason = ""
        self._whose = whose
        self._lock = threading.Lock()

    def count(self, stored: Located, status: int, comment: str = "") -> None:
        """One is over, with the status that its receiver gave."""
        if status == SUCCESS or is_warning(status):
            with self._lock:
                self.remaining -= 1
                if status == SUCCESS:
                    self.completed += 1
                else:
                    self.warned += 1
            if status != SUCCESS:
                log.warning(
                    "sub-operation with warning 0x%04X: %s sop_instance_uid=%s %s", status, self._whose, stored.sop_instance_uid, comment
                )
        else:
            self.fail(stored, f"the receiver answered 0x{status:04X} {comment}".rstrip())

    def fail(self, stored: Located, reason: str) -> None:
        """One failed."""
        self._count_failed([stored], reason)
        log.warning("sub-operation failed: %s sop_instance_uid=%s: %s", self._whose, stored.sop_instance_uid, reason)

    def give_up(self, rest: Sequence[Located], reason: str) -> None:
        """These are not tried."""
        if rest:
            self._count_failed(rest, reason)
            log.warning("%d sub-operations given up: %s: %s", len(rest), self._whose, reason)

    def _count_failed(self, failed: Sequence[Located], reason: str) -> None:
        with self._lock:
            self.remaining -= len(failed)
            self.failed += [one.sop_instance_uid for one in failed]
            self.reason = self.reason or reason

    @property
    def done(self) -> int:
        """How many are over."""
        return self.completed + self.warned + len(self.failed)

    def fields(self, with_remaining: bool) -> dict[int, int | bytes]:
        """Elements of a response; numbers that do not fit into one are told as the largest that does."""
        with self._lock:
            numbers: dict[int, int] = {
                Field.NUMBER_OF_COMPLETED_SUBOPERATIONS: self.completed,
                Field.NUMBER_OF_FAILED_SUBOPERATIONS: len(self.failed),
                Field.NUMBER_OF_WARNING_SUBOPERATIONS: self.warned,
            }
            if with_remaining:
                numbers[Field.NUMBER_OF_REMAINING_SUBOPERATIONS] = self.remaining
        return {field: min(number, 0xFFFF) for field, number in numbers.items()}


def store_command(stored: Located) -> dict[int, int | bytes]:
    """Elements of a C-STORE-RQ, without Message ID and Command Data Set Type (PS3.7 table 9.3-1)."""
    return {
        Field.AFFECTED_SOP_CLASS_UID: stored.sop_class_uid.encode("ascii"),
        Field.COMMAND_FIELD: CommandField.C_STORE_RQ,
        Field.PRIORITY: _PRIORITY_MEDIUM,
        Field.AFFECTED_SOP_INSTANCE_UID: stored.sop_instance_uid.encode("ascii"),
    }
