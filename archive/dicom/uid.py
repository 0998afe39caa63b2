"""UIDs, checked before one becomes a key or a name (DICOM PS3.5 chapter 9)."""

import re
from functools import lru_cache

from archive.errors import BadInput

LENGTH_MAX = 64

# Each object that comes in is asked seven times.
_well_formed = lru_cache(maxsize=1024)(re.compile(r"[0-9]+(?:\.[0-9]+)*").fullmatch)


def check_uid(value: str, what: str = "UID") -> str:
    """Return the UID if it is one.

    Components with leading zeros are tolerated: the Standard forbids them, devices send them, and they do no harm in a key.

    Parameters
    ----------
    value : str
        1 to 64 characters, digits and dots, without padding.
    what : str
        Name of the UID for the message.

    Raises
    ------
    BadInput
        The value is empty, too long, or holds anything but numbers joined by dots.
    """
    if not value:
        raise BadInput(f"{what} is empty")
    if len(value) > LENGTH_MAX:
        raise BadInput(f"{what} has {len(value)} characters, {LENGTH_MAX} are allowed")
    if _well_formed(value) is None:
        raise BadInput(f"{what} is not a UID: {value!r}")
    return value


def uid_or_empty(value: str) -> str:
    """Return the UID, without padding; empty where the value is none, or several: anything may stand there, a patient's name too."""
    uid = value.strip("\0 ")
    return uid if len(uid) <= LENGTH_MAX and _well_formed(uid) else ""
