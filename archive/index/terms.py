"""Search terms: from an attribute's value to the studies that have it, so that a search need not read every study.

A term finds candidates, never fewer than match; the matching engine (`archive.dicom.matching`) decides. So terms are folded
further than matching folds: no case, no accents, compatibility forms unified, cut to 96 bytes.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any

TERM_BYTES_MAX = 96
STUDY_DATE = "00080020"
STUDY_TERMS = ("00080020", "00080050", "00100010", "00100020", "00080061")
"""StudyDate, AccessionNumber, PatientName, PatientID, ModalitiesInStudy."""
SERIES_INSTANCE_UID = "0020000E"


def fold(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in decomposed if not unicodedata.combining(c)).strip(" \0").rstrip("^ ")


def fold_date(text: str) -> str:
    """A date as it is ordered, 16 ASCII characters at most; dots are of the form before DICOM 3.0, `2020.01.31`.

    Folded again it stays what it is, so that a study's date can be compared with the one in its term.
    """
    return fold(text).replace(".", "").encode("ascii", "ignore").decode()[:16].strip(" \0^")


def study_date(attributes: dict[str, Any]) -> str:
    """The date by which a study is ordered: its first one, which has a term, be it empty."""
    values = attributes.get(STUDY_DATE, {}).get("Value") or [""]
    return fold_date(str(values[0] or ""))


def term_prefix(tag: str, text: str = "") -> bytes:
    return tag.encode() + b"=" + fold(text).encode()[:TERM_BYTES_MAX]


def term_key(tag: str, text: str, study_instance_uid: str) -> bytes:
    return term_prefix(tag, text) + b"\0" + study_instance_uid.encode()


def study_of_term(key: bytes) -> str:
    return key[key.rindex(b"\0") + 1 :].decode()


def terms_of(attributes: dict[str, Any], study_instance_uid: str) -> Iterator[bytes]:
    """Keys of all terms of a study; each has a StudyDate, be it empty, for that is the order of a full listing."""
    for tag in STUDY_TERMS:
        texts = set(_texts(attributes.get(tag, {}).get("Value", [])))
        if tag == STUDY_DATE:
            texts = {study_date(attributes), *map(fold_date, texts)}
        for text in texts:
            yield term_key(tag, text, study_instance_uid)


def _texts(values: list[Any]) -> Iterator[str]:
    for value in values:
        if isinstance(value, dict):
            yield from (str(group) for group in value.values())
        elif value is not None:
            yield str(value)


def literal_start(key: str) -> str:
    """What every match of a wildcard key begins with."""
    for position, character in enumerate(key):
        if character in "*?":
            return key[:position]
    return key
