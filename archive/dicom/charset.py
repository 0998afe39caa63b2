"""Text in the character set of its object (DICOM PS3.5 6.1, PS3.3 C.12.1.1.2)."""

import logging
import warnings
from codecs import lookup
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from pydicom.charset import convert_encodings, decode_bytes, python_encoding
from pydicom.valuerep import TEXT_VR_DELIMS

_log = logging.getLogger(__name__)
_T = TypeVar("_T")

DEFAULT_ENCODINGS = ("iso8859",)
"""What text is taken for where Specific Character Set is missing: ASCII, and Latin-1 for what is none."""

_TEXT_CODECS = frozenset(lookup(name).name for name in python_encoding.values())
_quiet = Lock()


def encodings_of(specific_character_set: bytes) -> tuple[str, ...]:
    """Python's names of the encodings that a Specific Character Set (0008,0005) stands for.

    Parameters
    ----------
    specific_character_set : bytes
        The raw value, several terms joined by a backslash. Terms with common misspellings are understood; others
        are taken for the default.
    """
    terms = specific_character_set.decode("iso8859").replace("\0", " ").rstrip().split("\\")
    encodings = _without_warnings(lambda: convert_encodings(terms))
    # pydicom lets every name of Python's pass, also of codecs that make no text.
    return tuple(name if lookup(name).name in _TEXT_CODECS else DEFAULT_ENCODINGS[0] for name in encodings) or DEFAULT_ENCODINGS


def decode_text(raw: bytes, encodings: tuple[str, ...]) -> str:
    """Text of a value of SH, LO, ST, LT, UC, UT or PN, padding included.

    Bytes that are no text in the encoding become U+FFFD: a damaged name is still worth reading.
    """
    if b"\x1b" in raw:
        # pydicom leaves the escape sequence of ISO 2022 IR 58 in the text.
        return _without_warnings(lambda: decode_bytes(raw, encodings, TEXT_VR_DELIMS)).replace("\x1b$)A", "")
    try:
        return raw.decode(encodings[0])
    except UnicodeError:
        _log.warning("text is not in its character set %s; what is not is replaced", encodings[0])
        return raw.decode(encodings[0], "replace")


def _without_warnings(work: Callable[[], _T]) -> _T:
    """pydicom warns of what it mends; the filters of `warnings` are shared by all threads."""
    with _quiet, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work()
