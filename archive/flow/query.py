"""Searching: one engine for QIDO-RS and C-FIND (DICOM PS3.4 C.2.2, PS3.18 10.6), over journal and packs together.

Terms of the index find candidate studies; the matching engine decides. Results are in a stated order, newest StudyDate first, then
Study Instance UID, SeriesNumber, InstanceNumber, so that paging is stable; limit and offset count what is left after all else.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, Literal

from archive.dicom.attributes import (
    INSTANCE_ATTRIBUTES,
    PATIENT_ATTRIBUTES,
    SERIES_ATTRIBUTES,
    STUDY_ATTRIBUTES,
    level_of,
)
from archive.dicom.matching import Matcher, compile_keys
from archive.flow.candidates import candidate_studies
from archive.flow.home import Home
from archive.flow.patients import COUNTED_OF_PATIENT, count_patient, keys_of_patient, patient_of
from archive.flow.series_view import Member, instances_of_series, study_view
from archive.index.located import SeriesKey
from archive.index.packed import SeriesRecord, StudyRecord

Level = Literal["patient", "study", "series", "instance"]
Path = tuple[str, ...]
Row = dict[str, Any]

STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, SOP_CLASS_UID = "0020000D", "0020000E", "00080018", "00080016"
MODALITY, MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY = "00080060", "00080061", "00080062"
RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY, SPECIFIC_CHARACTER_SET = "00080054", "00080056", "00080005"
SERIES_OF_STUDY, INSTANCES_OF_STUDY, INSTANCES_OF_SERIES = "00201206", "00201208", "00201209"

COUNTED = (
    RETRIEVE_AE_TITLE,
    INSTANCE_AVAILABILITY,
    MODALITIES_IN_STUDY,
    SOP_CLASSES_IN_STUDY,
    SERIES_OF_STUDY,
    INSTANCES_OF_STUDY,
    INSTANCES_OF_SERIES,
)
"""What rows hold besides attributes of objects: counted, or known of the whole node. Of patients: `patients.COUNTED_OF_PATIENT`."""
SEARCHABLE = frozenset((*PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES, *SERIES_ATTRIBUTES, *INSTANCE_ATTRIBUTES, *COUNTED))

COUNTED_PATIENTS_MAX = 1000
"""Remembered while a query goes on: of a patient with many studies they are counted once."""

_OWN_LEVEL: dict[str, Level] = {
    **dict.fromkeys((STUDY_INSTANCE_UID, MODALITIES_IN_STUDY, SOP_CLASSES_IN_STUDY, SERIES_OF_STUDY, INSTANCES_OF_STUDY), "study"),
    **dict.fromkeys((SERIES_INSTANCE_UID, INSTANCES_OF_SERIES), "series"),
    **dict.fromkeys((SOP_INSTANCE_UID, SOP_CLASS_UID), "instance"),
    **dict.fromkeys((RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY, SPECIFIC_CHARACTER_SET), "study"),
    **dict.fromkeys(COUNTED_OF_PATIENT, "patient"),
}
_LEVEL_NUMBER: dict[Level, int] = {"patient": 0, "study": 1, "series": 2, "instance": 3}
_DEPTH: dict[Level, int] = {"patient": 0, "study": 0, "series": 1, "instance": 2}


@dataclass(frozen=True, slots=True)
class Query:
    """A search.

    Attributes
    ----------
    keys : dict
        From attribute path (tags of 8 hexadecimal digits) to the text of the key.
    include : frozenset of str, or 'all'
        Attributes of higher levels that the rows have besides; what is counted of a patient is there only where it is named here.
    limit, offset : int
        Of the rows after matching.
    fuzzy : bool
        Fuzzy matching of person names.
    combined : bool
        A date and its time are matched as one moment.
    """

    level: Level
    keys: dict[Path, str]
    include: frozenset[str] | Literal["all"]
    limit: int
    offset: int
    fuzzy: bool = False
    combined: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """
    Attributes
    ----------
    rows : list of dict
        DICOM JSON, without RetrieveURL.
    more : bool
        Whether there are rows behind the last.
    """

    rows: list[Row]
    more: bool


class Search:
    """The reading side's searches; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._ae_title = home.settings.dimse.ae_title

    def search(self, query: Query) -> Answer:
        """A page of rows.

        Raises
        ------
        BadInput
            A key cannot be a value of its attribute.
        """
        found = list(islice(self.rows(query), query.offset, query.offset + query.limit + 1))
        return Answer([_chosen(query, row) for row in found[: query.limit]], len(found) > query.limit)

    def rows(self, query: Query, tick: Callable[[], None] = lambda: None) -> Iterator[Row]:
        """Every row with all that is known of it, one after the other as they are found; `limit` and `offset` are not looked at.

        Parameters
        ----------
        tick : callable
            Called for each study that is looked at, match or not; what it raises ends the search.

        Raises
        ------
        BadInput
            As `search`.
        """
        rows = self._rows(query, _by_level(query), tick)
        return _one_of_each_patient(rows) if query.level == "patient" else rows

    def _rows(self, query: Query, matchers: list[Matcher], tick: Callable[[], None]) -> Iterator[Row]:
        depth = _DEPTH[query.level]
        of_patient = query.include != "all" and not COUNTED_OF_PATIENT.isdisjoint(query.include)
        counted: dict[tuple[str, ...], Row] = {}
        for study in candidate_studies(self._home.index, query.keys, query.fuzzy, tick):
            tick()
            study_row, series = self._study(study)
            if not matchers[0](study_row):
                continue
            matching = [(key, row) for key, row in series.items() if matchers[1](row)]
            members: list[list[Row]] = []
            if depth == 2 or not matchers[2].universal:
                members = [self._matching_members(matchers[2], key) for key, _ in matching]
                matching = [one for one, found in zip(matching, members, strict=True) if found]
                members = [found for found in members if found]
            if not matching:
                continue
            if of_patient:
                patient = patient_of(study_row)
                if patient not in counted:
                    if len(counted) >= COUNTED_PATIENTS_MAX:
                        counted.clear()
                    counted[patient] = count_patient(self._studies_of_patient(study_row))
                study_row.update(counted[patient])
            if depth == 0:
                yield study_row
            elif depth == 1:
                yield from ({**study_row, **row} for _, row in matching)
            else:
                for (_, series_row), found in zip(matching, members, strict=True):
                    above = {**study_row, **series_row}
                    yield from ({**above, **row} for row in found)

    def _studies_of_patient(self, row: Row) -> Iterator[Row]:
        patient = patient_of(row)
        for study in candidate_studies(self._home.index, keys_of_patient(row), fuzzy=False):
            found, _ = self._study(study)
            if patient_of(found) == patient:
                yield found

    def _matching_members(self, matcher: Matcher, key: SeriesKey) -> list[Row]:
        return [row for row in map(self._instance_row, instances_of_series(self._home.index, key).members) if matcher(row)]

    # --- rows

    def _study(self, study: str) -> tuple[Row, dict[SeriesKey, Row]]:
        """The row of a study and those of its series, in order."""
        view = study_view(self._home.index, study)
        rows = {key: self._series_row(key, record) for key, record in view.series.items()}
        return self._study_row(study, view.record, list(rows.values())), rows

    def _study_row(self, study: str, record: StudyRecord | None, series: list[Row]) -> Row:
        row: Row = dict(record.attributes) if record else {}
        for one in series:
            for tag, value in one.items():
                if _level(tag) in ("patient", "study"):
                    row.setdefault(tag, value)
        modalities = {m for one in series for m in one.get(MODALITY, {}).get("Value", []) if m is not None}
        classes = {c for one in series for c in one[SOP_CLASSES_IN_STUDY]["Value"]}
        row[STUDY_INSTANCE_UID] = _value("UI", study)
        row[MODALITIES_IN_STUDY] = {"vr": "CS", "Value": sorted(modalities)}
        row[SOP_CLASSES_IN_STUDY] = {"vr": "UI", "Value": sorted(classes)}
        row[SERIES_OF_STUDY] = _value("IS", len(series))
        row[INSTANCES_OF_STUDY] = _value("IS", sum(one[INSTANCES_OF_SERIES]["Value"][0] for one in series))
        row[INSTANCE_AVAILABILITY] = _value("CS", "ONLINE")
        row[RETRIEVE_AE_TITLE] = _value("AE", self._ae_title)
        return row

    def _series_row(self, key: SeriesKey, record: SeriesRecord | None) -> Row:
        if record is None:
            view = instances_of_series(self._home.index, key)
            attributes, count, classes = view.attributes, len(view.members), {m.located.sop_class_uid for m in view.members}
        else:
            attributes, count, classes = record.attributes, record.instances, set(record.sop_classes)
        # Text is UTF-8 here, whatever the object's own character set was.
        row = {tag: value for tag, value in attributes.items() if _level(tag) != "instance" and tag != SPECIFIC_CHARACTER_SET}
        row[SERIES_INSTANCE_UID] = _value("UI", key.series_instance_uid)
        row[INSTANCES_OF_SERIES] = _value("IS", count)
        row[SOP_CLASSES_IN_STUDY] = {"vr": "UI", "Value": sorted(classes)}
        return row

    @staticmethod
    def _instance_row(member: Member) -> Row:
        row = {tag: value for tag, value in member.attributes.items() if _level(tag) == "instance"}
        row[SOP_INSTANCE_UID] = _value("UI", member.located.sop_instance_uid)
        row[SOP_CLASS_UID] = _value("UI", member.located.sop_class_uid)
        return row


def _value(vr: str, value: object) -> Row:
    return {"vr": vr, "Value": [value]}


@lru_cache(maxsize=8192)  # Each attribute of each row asks.
def _level(tag: str) -> Level:
    return _OWN_LEVEL.get(tag) or level_of(tag)


def is_returned(tag: str, level: Level) -> bool:
    """Whether rows of a level may hold an attribute: it belongs to that level or to one above."""
    return _LEVEL_NUMBER[_level(tag)] <= _LEVEL_NUMBER[level] or tag in (RETRIEVE_AE_TITLE, INSTANCE_AVAILABILITY)


def _by_level(query: Query) -> list[Matcher]:
    """Matchers of study, series and instance level; keys of a lower level ask that something below matches."""
    keys: list[dict[Path, str]] = [{}, {}, {}]
    for path, key in query.keys.items():
        if path[0] in COUNTED_OF_PATIENT:
            continue  # It would have to be counted of everybody.
        keys[_DEPTH[_level(path[0])]][path] = key
    return [compile_keys(k, query.fuzzy, query.combined) for k in keys]


def _one_of_each_patient(rows: Iterator[Row]) -> Iterator[Row]:
    """The first row of each patient: the newest study that matches tells the patient's attributes."""
    seen = set()
    for row in rows:
        patient = patient_of(row)
        if patient not in seen:
            seen.add(patient)
            yield row


def _chosen(query: Query, row: Row) -> Row:
    """What a row shows: its own level; UIDs of those above; all of those above that the search does not name (PS3.18 10.6.3.3)."""
    depth = _DEPTH[query.level]
    named_study = bool(query.keys.get((STUDY_INSTANCE_UID,)))
    named = (named_study, named_study and bool(query.keys.get((SERIES_INSTANCE_UID,))), False)
    wanted = {path[0] for path in query.keys} | {
        STUDY_INSTANCE_UID,
        SERIES_INSTANCE_UID,
        INSTANCE_AVAILABILITY,
        RETRIEVE_AE_TITLE,
    }

    def shown(tag: str) -> bool:
        above = _DEPTH[_level(tag)]
        if query.include == "all" or tag in wanted or tag in query.include or above == depth:
            return True
        return above < depth and not named[above] and tag != SOP_CLASSES_IN_STUDY

    return {tag: value for tag, value in row.items() if shown(tag)}
