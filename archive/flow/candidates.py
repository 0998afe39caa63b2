"""Which studies a search has to look at: all that may match, in the order of the answer, as few others as the index allows."""

import heapq
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import islice

from archive.index.environment import Transaction
from archive.index.index import Index
from archive.index.terms import STUDY_DATE, TERM_BYTES_MAX, fold, fold_date, literal_start, study_date, study_of_term, term_prefix

Path = tuple[str, ...]
Place = tuple[str, str]
"""StudyDate and Study Instance UID: answers go from the highest to the lowest."""
Span = tuple[str, str]
"""First and last StudyDate; an empty last one leaves it open."""
EVER: Span = ("", "")

STUDY_INSTANCE_UID, SERIES_INSTANCE_UID, SOP_INSTANCE_UID = "0020000D", "0020000E", "00080018"
PATIENT_NAME = "00100010"
_SELECTIVE = ("00080050", "00100020", PATIENT_NAME)
"""AccessionNumber, PatientID, PatientName: the most selective first."""
CHOSEN_MIN, CHOSEN_SHARE = 10_000, 1 / 8
"""A term that leaves more than both, of all studies, is no help: all are looked at by date then, and answers come at once."""
_DATES = re.compile(r"^(\d{8})?(-)?(\d{8})?$")
BATCH = 256


def candidate_studies(index: Index, keys: dict[Path, str], fuzzy: bool, tick: Callable[[], None] = lambda: None) -> Iterator[str]:
    """Study Instance UIDs, newest StudyDate first.

    Parameters
    ----------
    tick : callable
        Called now and then before the first; what it raises ends the search.
    """
    single = {path[0]: text for path, text in keys.items() if len(path) == 1 and text.strip("* ")}
    pending = _pending_dates(index)
    chosen = _by_uid(index, single, pending)
    if chosen is None:
        chosen = _by_term(index, single, fuzzy)
        if chosen is not None:
            chosen |= set(pending)
    if chosen is not None:
        for _, study in sorted(_places(index, chosen, pending, EVER, tick), reverse=True):
            yield study
        return
    span = _span(single)
    waiting = sorted(_places(index, pending, pending, span, tick), reverse=True)
    last = ""
    for _, study in heapq.merge(_by_date(index, span), waiting, reverse=True):
        if study != last:
            yield study
        last = study


def _pending_dates(index: Index) -> dict[str, str]:
    """StudyDate of each study that has something pending; taken in one snapshot, for what is pending now may be packed in a moment."""
    with index.pending.environment.reading() as t:
        out: dict[str, str] = {}
        for state in index.pending.states(t):
            if state.key.study_instance_uid not in out:
                first = index.pending.first_instance(t, state.key)
                out[state.key.study_instance_uid] = study_date(first.descriptor.attributes if first else {})
        return out


def _places(index: Index, studies: Iterable[str], pending: dict[str, str], span: Span, tick: Callable[[], None]) -> Iterator[Place]:
    """Studies with their dates."""
    left = iter(studies)
    while batch := list(islice(left, BATCH)):
        with index.packed.environment.reading() as t:
            dates = [_date(index, t, study, span) for study in batch]
        tick()
        for study, date in zip(batch, dates, strict=True):
            yield pending.get(study, "") if date is None else date, study


def _date(index: Index, t: Transaction, study: str, span: Span) -> str | None:
    """As packs know it: the first, or, where that lies outside of the span, the last inside; None where they do not know the study."""
    record = index.packed.study(t, study)
    if record is None:
        return None
    first = study_date(record.attributes)
    if _is_inside(first, span):
        return first
    others = (fold_date(str(value or "")) for value in record.attributes.get(STUDY_DATE, {}).get("Value", ()))
    return max((date for date in others if _is_inside(date, span)), default=first)


def _is_inside(date: str, span: Span) -> bool:
    return span[0] <= date <= span[1] + "\xff"


def _uids(text: str) -> list[str]:
    return [uid.strip(" \0") for uid in text.replace(",", "\\").split("\\") if uid.strip(" \0")]


def _by_uid(index: Index, keys: dict[str, str], pending: dict[str, str]) -> set[str] | None:
    """Studies that UIDs in the query name; None where it names none."""
    if STUDY_INSTANCE_UID in keys:
        found = set()
        with index.packed.environment.reading() as t:
            for uid in _uids(keys[STUDY_INSTANCE_UID]):
                if uid in pending or index.packed.study(t, uid) is not None:
                    found.add(uid)
        return found
    if SOP_INSTANCE_UID in keys:
        return {i.study_instance_uid for uid in _uids(keys[SOP_INSTANCE_UID]) for i in index.revisions(uid)}
    if SERIES_INSTANCE_UID in keys:
        wanted = set(_uids(keys[SERIES_INSTANCE_UID]))
        with index.pending.environment.reading() as t:
            found = {s.key.study_instance_uid for s in index.pending.states(t) if s.key.series_instance_uid in wanted}
        with index.packed.environment.reading() as t:
            return found.union(*(index.packed.studies_of_series(t, uid) for uid in wanted))
    return None


def _by_term(index: Index, keys: dict[str, str], fuzzy: bool) -> set[str] | None:
    """Packed studies that the best term of the query leaves; None where no term helps."""
    for tag in _SELECTIVE:
        text = keys.get(tag, "")
        start = literal_start(text)
        if not fold(start) or "\\" in text or "=" in text or (fuzzy and tag == PATIENT_NAME):
            continue
        prefix = term_prefix(tag, start)
        if start == text and tag != PATIENT_NAME and len(fold(text).encode()) < TERM_BYTES_MAX:
            prefix += b"\0"  # All of the value: what it is the beginning of does not match.
        with index.packed.environment.reading() as t:
            most = max(CHOSEN_MIN, int(t.count("studies") * CHOSEN_SHARE))
            found = [study_of_term(key) for key, _ in islice(t.scan("terms", prefix), most + 1)]
        if len(found) <= most:
            return set(found)
    return None


def _span(keys: dict[str, str]) -> Span:
    """Of StudyDate, as far as the query bounds it."""
    dates = _DATES.match(keys.get(STUDY_DATE, "").strip())
    if not dates or not (dates[1] or dates[3]):
        return EVER
    first = dates[1] or ""
    return first, dates[3] or ("" if dates[2] else first)


def _by_date(index: Index, span: Span) -> Iterator[Place]:
    """Every packed study of a span, each at one date, newest first; no snapshot is held while rows are made of what it gave."""
    prefix = term_prefix(STUDY_DATE)
    before = prefix + span[1].encode() + b"\xff"
    while True:
        with index.packed.environment.reading() as t:
            keys = t.keys_before("terms", prefix, before, BATCH)
            places = [(key[len(prefix) : key.rindex(b"\0")].decode(), study_of_term(key)) for key in keys]
            places = [place for place in places if place[0] >= span[0]]
            dates = [_date(index, t, study, span) for _, study in places]
        yield from (place for place, date in zip(places, dates, strict=True) if place[0] == date)
        if len(places) < BATCH:
            return
        before = keys[-1]
