"""Errors to statuses (DICOM PS3.4 table B.2-1)."""

import errno

import pytest

from archive.dimse.status import comment_of, status_of
from archive.errors import ArchiveError, BadInput, Damaged, Duplicate, Exhausted, Mismatch, NotUnderstood, Unavailable


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (NotUnderstood("no Study Instance UID"), 0xC000, "no Study Instance UID"),
        (BadInput("no"), 0xC000, "no"),
        (Mismatch("another object"), 0xA900, "another object"),
        (Duplicate("known"), 0x0111, "known"),
        (Exhausted("journal full"), 0xA700, "journal full"),
        (Unavailable("no tier"), 0xA700, "no tier"),
        (OSError(errno.ENOSPC, "No space left on device"), 0xA700, "No space left on device"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), 0xA700, "Disk quota exceeded"),
        (MemoryError(), 0xA700, "internal error"),
        (OSError(errno.EIO, "Input/output error"), 0x0110, "Input/output error"),
        (Damaged("bad"), 0x0110, "bad"),
        (ArchiveError("bad"), 0x0110, "bad"),
        (ValueError("patient's name"), 0x0110, "internal error"),
    ],
)
def test_errors_become_statuses(error: BaseException, status: int, comment: str) -> None:
    assert (status_of(error), comment_of(error)) == (status, comment)
