"""Patients among studies: nothing is kept of a patient alone, so a patient is what studies have in common (DICOM PS3.4 C.6.1.1.2)."""

import re
from collections.abc import Iterable
from typing import Any

Row = dict[str, Any]
Path = tuple[str, ...]

PATIENT_NAME, PATIENT_ID, ISSUER_OF_PATIENT_ID, PATIENT_BIRTH_DATE = "00100010", "00100020", "00100021", "00100030"
STUDY_INSTANCE_UID, SERIES_OF_STUDY, INSTANCES_OF_STUDY = "0020000D", "00201206", "00201208"
STUDIES_OF_PATIENT, SERIES_OF_PATIENT, INSTANCES_OF_PATIENT = "00201200", "00201202", "00201204"
COUNTED_OF_PATIENT = frozenset((STUDIES_OF_PATIENT, SERIES_OF_PATIENT, INSTANCES_OF_PATIENT))


def patient_of(row: Row) -> tuple[str, ...]:
    """What tells patients apart: Patient ID and its issuer; without an ID, name and birth date; without a name, the study."""
    patient_id = _text(row, PATIENT_ID)
    if patient_id:
        return (PATIENT_ID, patient_id, _text(row, ISSUER_OF_PATIENT_ID))
    name = _text(row, PATIENT_NAME)
    if name:
        return (PATIENT_NAME, name, _text(row, PATIENT_BIRTH_DATE))
    return (STUDY_INSTANCE_UID, _text(row, STUDY_INSTANCE_UID))


def keys_of_patient(row: Row) -> dict[Path, str]:
    """Keys of a search whose candidates hold every study of the patient."""
    tag, text = patient_of(row)[:2]
    first = re.split(r"[\\=]", text)[0]  # the first value, its first group
    return {(tag,): first if first == text else f"{first}*"}


def count_patient(studies: Iterable[Row]) -> Row:
    """How many studies, series and instances the patient has."""
    counts = [(one[SERIES_OF_STUDY]["Value"][0], one[INSTANCES_OF_STUDY]["Value"][0]) for one in studies]
    numbers = (len(counts), sum(series for series, _ in counts), sum(instances for _, instances in counts))
    tags = (STUDIES_OF_PATIENT, SERIES_OF_PATIENT, INSTANCES_OF_PATIENT)
    return {tag: {"vr": "IS", "Value": [number]} for tag, number in zip(tags, numbers, strict=True)}


def _text(row: Row, tag: str) -> str:
    """Values as one text; of a name its groups."""
    values = row.get(tag, {}).get("Value", [])
    return "\\".join("=".join(map(str, value.values())) if isinstance(value, dict) else str(value or "") for value in values).strip()
