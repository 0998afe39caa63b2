"""A series as it is served: journal and packs together, one revision of each instance, in order."""

from dataclasses import dataclass, field
from typing import Any

from archive.index.index import Index
from archive.index.located import Located, SeriesKey, in_order_of_arrival
from archive.index.packed import Extent, SeriesRecord, StudyRecord
from archive.index.pending import Pending
from archive.pack.descriptor import Revision

INSTANCE_NUMBER, SERIES_NUMBER = "00200013", "00200011"


@dataclass(frozen=True, slots=True)
class Member:
    """An instance in its series.

    Attributes
    ----------
    attributes : dict
        Query attributes of instance level, and of higher ones where it is pending.
    extent : Extent or None
        The part of the pack that holds it, None in the journal.
    line : int
        Its place in the extent, counted from 0.
    """

    located: Located
    attributes: dict[str, Any]
    extent: Extent | None
    line: int


@dataclass(slots=True)
class SeriesView:
    """One series.

    Attributes
    ----------
    attributes : dict
        Of patient, study and series level: what the object that came first says, filled up by later ones.
    members : list of Member
        One for each SOP Instance UID, by InstanceNumber, then by arrival.
    """

    key: SeriesKey
    attributes: dict[str, Any] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    record: SeriesRecord | None = None

    def instances(self) -> list[Located]:
        return [m.located for m in self.members]


def whole_extent(index: Index, key: SeriesKey) -> Extent | None:
    """The one extent that holds exactly what is served of a series, where there is one: its metadata can go out as it lies.

    A pack lies in InstanceNumber order; as many distinct instances as the extent has places means no further revision and no deletion.
    """
    with index.pending.environment.reading() as t:
        if index.pending.first_instance(t, key) is not None:
            return None
    with index.packed.environment.reading() as t:
        record = index.packed.series(t, key)
    if record is None or len(record.extents) != 1 or record.extents[0].instances != record.instances:
        return None
    return record.extents[0]


def integer(attributes: dict[str, Any], tag: str) -> int:
    """First value of an integer string, 0 where there is none."""
    values = attributes.get(tag, {}).get("Value") or [0]
    return values[0] if isinstance(values[0], int) else 0


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study and its series.

    Attributes
    ----------
    record : StudyRecord or None
        What packs hold of it.
    series : dict of SeriesKey to SeriesRecord or None
        By SeriesNumber, then UID; None where the journal holds some of it, so that only its instances tell what it is.
    """

    record: StudyRecord | None
    series: dict[SeriesKey, SeriesRecord | None]


def study_view(index: Index, study_instance_uid: str) -> StudyView:
    """The study; without series where it is not known."""
    numbers: dict[SeriesKey, int] = {}
    records: dict[SeriesKey, SeriesRecord] = {}
    moving = set()
    with index.pending.environment.reading() as t:  # First, as everywhere: what moves meanwhile is then in the record.
        for state in index.pending.states(t, study_instance_uid):
            first = index.pending.first_instance(t, state.key)
            numbers[state.key] = integer(first.descriptor.attributes, SERIES_NUMBER) if first else 0
            if first is not None:
                moving.add(state.key)
    with index.packed.environment.reading() as t:
        study = index.packed.study(t, study_instance_uid)
        for uid in study.series_instance_uids if study else []:
            key = SeriesKey(study_instance_uid, uid)
            record = index.packed.series(t, key)
            if record is not None:
                numbers[key] = integer(record.attributes, SERIES_NUMBER)
                records[key] = record
    ordered = sorted(numbers, key=lambda k: (numbers[k], k))
    return StudyView(study, {key: None if key in moving else records.get(key) for key in ordered})


def series_of_study(index: Index, study_instance_uid: str) -> list[SeriesKey]:
    """Keys of every series, by SeriesNumber, then UID."""
    return list(study_view(index, study_instance_uid).series)


def instances_of_series(index: Index, key: SeriesKey) -> SeriesView:
    """The series; without members where it is not known."""
    view = SeriesView(key)
    revisions: dict[str, dict[Revision, Member]] = {}

    def add(member: Member) -> None:
        revisions.setdefault(member.located.sop_instance_uid, {})[member.located.revision] = member

    with index.pending.environment.reading() as t:
        pending = index.pending.instances(t, key)
    for record in pending:
        add(_pending_member(record))
    with index.packed.environment.reading() as t:
        view.record = index.packed.series(t, key)
        for extent in view.record.extents if view.record else []:
            rows = index.packed.rows(t, extent)
            for ordinal, located in index.packed.instances(t, extent):
                line = ordinal - extent.first
                add(Member(located, rows[line], extent, line))
    if view.record:
        view.attributes = dict(view.record.attributes)
    for record in pending:
        for tag, value in record.descriptor.attributes.items():
            view.attributes.setdefault(tag, value)
    for members in revisions.values():
        if len(members) == 1:  # As nearly always; a series may have thousands.
            view.members += members.values()
        else:
            served = index.served(in_order_of_arrival(m.located for m in members.values()))
            view.members.append(members[served.revision])
    view.members.sort(key=lambda m: (integer(m.attributes, INSTANCE_NUMBER), m.located.revision.sequence, m.located.sop_instance_uid))
    return view


def _pending_member(record: Pending) -> Member:
    return Member(record.located(), record.descriptor.attributes, None, 0)
