"""The information models of Query/Retrieve: SOP classes, levels, unique keys, what an identifier must have (DICOM PS3.4 C.3, C.4, C.6)."""

from enum import Enum
from typing import NamedTuple

from archive.dicom.identifier import QUERY_RETRIEVE_LEVEL, Identifier
from archive.errors import Mismatch

IDENTIFIER_BYTES_MAX = 4 << 20
"""Largest identifier that is read: some 60,000 UIDs."""


class Level(NamedTuple):
    """A level of an information model, and its unique key (PS3.4 tables C.6-1 to C.6-5)."""

    name: str
    unique_key: str


PATIENT = Level("PATIENT", "00100020")
STUDY = Level("STUDY", "0020000D")
SERIES = Level("SERIES", "0020000E")
IMAGE = Level("IMAGE", "00080018")


class Model(Enum):
    """An information model: its levels from the top, and the beginning of its SOP class UIDs."""

    PATIENT_ROOT = ("1.2.840.10008.5.1.4.1.2.1", (PATIENT, STUDY, SERIES, IMAGE))
    STUDY_ROOT = ("1.2.840.10008.5.1.4.1.2.2", (STUDY, SERIES, IMAGE))
    PATIENT_STUDY_ONLY = ("1.2.840.10008.5.1.4.1.2.3", (PATIENT, STUDY))
    COMPOSITE_INSTANCE_ROOT = ("1.2.840.10008.5.1.4.1.2.4", (IMAGE,))

    def __init__(self, root: str, levels: tuple[Level, ...]) -> None:
        self.find, self.move, self.get = (f"{root}.{n}" for n in (1, 2, 3))
        self.levels = levels


FIND_MODELS = {model.find: model for model in Model if model is not Model.COMPOSITE_INSTANCE_ROOT}
MOVE_MODELS = {model.move: model for model in Model}
GET_MODELS = {model.get: model for model in Model}


def level_of(identifier: Identifier, model: Model, relational: bool) -> Level:
    """The level that a request asks at, if the identifier is one of the model.

    Parameters
    ----------
    relational : bool
        Levels above may be left open.

    Raises
    ------
    Mismatch
        It names no level of the model; or the unique key of a level above has not exactly one value, and has to (PS3.4 C.4.1.2).
    """
    named = identifier.single(QUERY_RETRIEVE_LEVEL).strip()
    level = next((level for level in model.levels if level.name == named), None)
    if level is None:
        raise Mismatch(f"QueryRetrieveLevel {named!r} is none of {', '.join(level.name for level in model.levels)}")
    for above in model.levels[: model.levels.index(level)]:
        value = identifier.single(above.unique_key)
        if not relational and (not value.strip() or any(character in value for character in "*?\\")):
            raise Mismatch(f"{level.name} level wants one {_NAMES[above]}, not {value[:24]!r}")
    return level


_NAMES = {PATIENT: "PatientID", STUDY: "StudyInstanceUID", SERIES: "SeriesInstanceUID"}
