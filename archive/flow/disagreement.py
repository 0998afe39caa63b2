"""What instances say of their study and patient, where those of one study say several things.

Nothing is damaged by it, and nothing is put right: objects are kept and sent as they came, and searches have a rule for whom to
believe (`archive.index.series_writer`). But one patient's images among another's look like this.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from archive.dicom.attributes import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES, keyword_of
from archive.dicom.json import dumps
from archive.index.environment import Transaction
from archive.index.index import Index
from archive.index.located import SeriesKey
from archive.index.series_writer import said_in

NAMED_MAX = 3
STUDIES_AT_ONCE = 256


def disagreements(index: Index) -> Iterator[tuple[str, str]]:
    """Study Instance UIDs, and in which attributes of study and patient the study's instances do not agree.

    An instance that says nothing, or nothing of an attribute, agrees with all. Values are not told: they are of patients.
    """
    for study_instance_uid in _studies(index):
        with index.packed.environment.reading() as t:
            found = list(_of_study(index, t, study_instance_uid))
        yield from found


def _studies(index: Index) -> Iterator[str]:
    """Those in the journal first: what is packed meanwhile is among the packed ones. No snapshot is held while one is looked at."""
    with index.pending.environment.reading() as t:
        waiting = {state.key.study_instance_uid for state in index.pending.states(t)}
    yield from sorted(waiting)
    last = b""
    while True:
        with index.packed.environment.reading() as t:
            some = [key for key, _ in islice(t.scan("studies", start=last), STUDIES_AT_ONCE + 1) if key != last][:STUDIES_AT_ONCE]
        if not some:
            return
        yield from (key.decode() for key in some if key.decode() not in waiting)
        last = some[-1]


def _of_study(index: Index, t: Transaction, study_instance_uid: str) -> Iterator[tuple[str, str]]:
    said: dict[str, dict[bytes, str]] = {tag: {} for tag in PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES}
    for sop_instance_uid, attributes in _instances(index, t, study_instance_uid):
        for tag, values in said.items():
            value = _significant(attributes.get(tag, {}))
            if value:
                values.setdefault(dumps(value), sop_instance_uid)
    several = [f"{keyword_of(tag)} ({_some(list(values.values()))})" for tag, values in said.items() if len(values) > 1]
    if several:
        yield study_instance_uid, f"its instances do not agree about {', '.join(several)}: one instance is named for each value"


def _instances(index: Index, t: Transaction, study_instance_uid: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """SOP Instance UIDs and what each says; those of a series that say the same are one object, and come once."""
    with index.pending.environment.reading() as pending:
        for state in index.pending.states(pending, study_instance_uid):
            yield from ((i.descriptor.sop_instance_uid, i.descriptor.attributes) for i in index.pending.instances(pending, state.key))
    study = index.packed.study(t, study_instance_uid)
    for series_instance_uid in study.series_instance_uids if study else []:
        record = index.packed.series(t, SeriesKey(study_instance_uid, series_instance_uid))
        for extent in record.extents if record else []:
            unlike: dict[int, tuple[str, dict[str, Any]]] = {}
            for one in said_in(index.packed, t, extent):
                unlike.setdefault(id(one.attributes), (one.sop_instance_uid, one.attributes))
            yield from unlike.values()


def _significant(attribute: dict[str, Any]) -> list[Any]:
    """Values without what PS3.5 6.2.1.1 lets a person's name leave out: empty components and groups at its end."""
    values = attribute.get("Value", [])
    if attribute.get("vr") == "PN":
        names = [{group: text.rstrip("^ ") for group, text in (value or {}).items()} for value in values]
        values = [{group: text for group, text in name.items() if text} for name in names]
    return values if any(value not in (None, "", {}) for value in values) else []


def _some(uids: list[str]) -> str:
    return ", ".join(uids[:NAMED_MAX]) + (f" and {len(uids) - NAMED_MAX} more" if len(uids) > NAMED_MAX else "")
