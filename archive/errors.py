"""Errors, named by what the caller can do about them.

Each wire turns them into its own words: `dimse/` into a status (DICOM PS3.4 B.2.3), `web/` into an HTTP code with a JSON
body, `cli/` into one line on stderr and an exit code.
"""


class ArchiveError(Exception):
    """Anything the archive says no to; its text is one sentence for people."""

    exit_code = 1


class WrongUse(ArchiveError):
    """The command line or the settings are wrong: change them."""

    exit_code = 2


class BadInput(ArchiveError):
    """What was sent cannot be taken as it is: change it."""


class NotUnderstood(BadInput):
    """The bytes are not what they claim to be, or lack what every object has."""


class Mismatch(BadInput):
    """A data set does not fit the command it came with: it names another object, or lacks what the SOP class wants."""


class Duplicate(BadInput):
    """Another object is known under this SOP Instance UID, and the settings refuse a second."""


class NotFound(ArchiveError):
    """There is no such thing here."""


class Exhausted(ArchiveError):
    """A stated limit is reached: try again later.

    Parameters
    ----------
    message : str
        What is exhausted.
    retry_after_seconds : int
        When another try makes sense.
    """

    def __init__(self, message: str, retry_after_seconds: int = 10) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class Unavailable(Exhausted):
    """Something the archive depends on (a tier) does not answer now: try again later."""


class Damaged(ArchiveError):
    """Bytes at rest do not match their checksum or length: refuse, report, repair."""


class UnknownFormat(ArchiveError):
    """Written by a newer version than this one knows: upgrade."""


class Locked(ArchiveError):
    """Another process holds what this one needs; the text says which."""
