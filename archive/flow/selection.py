"""Which instances a C-MOVE or C-GET identifier asks for (DICOM PS3.4 C.4.2.1, C.4.3.1)."""

from collections.abc import Mapping
from typing import Literal

from archive.dicom.uid import check_uid
from archive.errors import BadInput, Exhausted
from archive.flow.candidates import candidate_studies
from archive.flow.home import Home
from archive.flow.query import SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, Path, Query, Search
from archive.flow.series_view import instances_of_series, series_of_study
from archive.index.located import Located, SeriesKey

Level = Literal["patient", "study", "series", "instance"]

PATIENT_ID = "00100020"
INSTANCES_MAX = 100_000
"""Most instances of one request; each takes some hundred bytes of memory until it is sent."""

_KEYS: dict[Level, str] = {
    "patient": PATIENT_ID,
    "study": STUDY_INSTANCE_UID,
    "series": SERIES_INSTANCE_UID,
    "instance": SOP_INSTANCE_UID,
}


class Selection:
    """Finds what is asked for; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._home, self._index = home, home.index
        self._search = Search(home)

    def select(self, level: Level, keys: Mapping[str, str]) -> list[Located]:
        """Instances in the order in which they lie; one for each SOP Instance UID.

        Keys of higher levels narrow the choice and may be missing, as relational retrieval has it; nobody is refused for want of a
        negotiation that older devices do not know.

        Parameters
        ----------
        level : {'patient', 'study', 'series', 'instance'}
            Query/Retrieve Level.
        keys : mapping of str to str
            Unique keys by tag of 8 hexadecimal digits; several UIDs are joined by backslashes.

        Raises
        ------
        BadInput
            The key of the level is missing, a key is none, several values stand where one may, or a key of a lower level is there.
        Exhausted
            There are more than `INSTANCES_MAX`.
        """
        wanted = {name: self._values(tag, keys.get(tag, "")) for name, tag in _KEYS.items()}
        order = list(_KEYS)
        depth = order.index(level)
        if not wanted[level]:
            raise BadInput(f"a retrieval of {level} level without ({_KEYS[level][:4]},{_KEYS[level][4:]})")
        for name in order[depth + 1 :]:
            if wanted[name]:
                raise BadInput(f"a key of {name} level in a retrieval of {level} level")
        for name in ("patient", *order[:depth]):
            if len(wanted[name]) > 1:
                raise BadInput(f"several values of the key of {name} level")
        studies = self._studies(wanted["patient"], wanted["study"]) if wanted["patient"] else wanted["study"]
        if wanted["patient"] and not studies:
            return []
        if level == "instance":
            return self._instances(wanted["instance"], studies, wanted["series"])
        found: dict[str, Located] = {}
        for key in self._series(studies, wanted["series"]):
            for one in instances_of_series(self._index, key).instances():
                found.setdefault(one.sop_instance_uid, one)
            if len(found) > INSTANCES_MAX:
                raise Exhausted(f"more than {INSTANCES_MAX} instances match")
        return list(found.values())

    @staticmethod
    def _values(tag: str, text: str) -> list[str]:
        if tag == PATIENT_ID:
            if "*" in text or "?" in text:
                raise BadInput("a wildcard in the PatientID of a retrieval")
            return [value for value in (part.strip() for part in text.split("\\")) if value]
        values = [value.strip(" \0") for value in text.split("\\")]
        return [check_uid(value, f"({tag[:4]},{tag[4:]})") for value in dict.fromkeys(values) if value]

    def _studies(self, patient: list[str], studies: list[str]) -> list[str]:
        keys: dict[Path, str] = {(PATIENT_ID,): patient[0]}
        if studies:
            keys[STUDY_INSTANCE_UID,] = "\\".join(studies)
        rows = self._search.search(Query("study", keys, frozenset(), INSTANCES_MAX, 0)).rows
        return [row[STUDY_INSTANCE_UID]["Value"][0] for row in rows]

    def _series(self, studies: list[str], series: list[str]) -> list[SeriesKey]:
        if not series:
            return [key for study in studies for key in series_of_study(self._index, study)]
        if not studies:
            studies = list(candidate_studies(self._index, {(SERIES_INSTANCE_UID,): "\\".join(series)}, fuzzy=False))
        return [SeriesKey(study, one) for study in studies for one in series]

    def _instances(self, uids: list[str], studies: list[str], series: list[str]) -> list[Located]:
        if len(uids) > INSTANCES_MAX:
            raise Exhausted(f"more than {INSTANCES_MAX} instances are named")
        out = []
        for uid in uids:
            found = [
                i
                for i in self._index.revisions(uid)
                if (not studies or i.study_instance_uid in studies) and (not series or i.series_instance_uid in series)
            ]
            if found:
                out.append(self._index.served(found))
        return out
