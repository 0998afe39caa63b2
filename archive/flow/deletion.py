"""Deleting instances, series and studies: a sequenced, fsynced record in the journal that names revision ids, then in a pack.

The steps: the record is fsynced; the index of packs lets go of what it names; the deletion is noted as waiting to be packed; the index of
what is pending lets go. `docs/recovery.md` says what start-up does about a cut between any two of them. Bytes stay where they are until
compaction leaves them out.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from archive.dicom.json import dumps
from archive.dicom.uid import check_uid
from archive.errors import BadInput, NotFound, WrongUse
from archive.flow.home import Home
from archive.flow.left_over import forget_deleted
from archive.flow.series_view import series_of_study
from archive.flow.voiding import settle_refused, void_on_error
from archive.index.located import Located, SeriesKey
from archive.index.packed_writer import PackedWriter
from archive.pack.descriptor import Deletion, Revision
from archive.pack.frame import Kind
from archive.pack.segment import now_us

logger = logging.getLogger(__name__)

DELETED_PER_RECORD_MAX = 4096
"""Half a megabyte of payload; what reads the journal back takes records of this kind up to 1 MiB."""
Level = Literal["study", "series", "instance"]


@dataclass(frozen=True, slots=True)
class Doomed:
    """What a UID names.

    Attributes
    ----------
    instances : int
        SOP Instance UIDs in it.
    revisions : int
        Objects: several may have come under one UID.
    length : int
        Their bytes.
    """

    uid: str
    level: Level
    instances: int
    revisions: int
    length: int


@dataclass(frozen=True, slots=True)
class DeletionReport:
    """What was deleted, by the UIDs that were asked for; how many records say so."""

    doomed: list[Doomed]
    records: int


class Deleter:
    """Deletes, in the process that packs or in one that has the data folder alone. Thread-safe."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pending, self._packed = home.index.pending, home.index.packed
        self._writer = PackedWriter(home.index.packed)

    def look(self, uids: Sequence[str]) -> list[Doomed]:
        """What `delete` would delete.

        Raises
        ------
        WrongUse
            Deletion is off.
        NotFound
            Nothing is known under one of the UIDs.
        BadInput
            One is no UID, or names things of two levels.
        """
        return [doomed for doomed, _ in self._find(uids)]

    def delete(self, uids: Sequence[str], source: str, progress: Callable[[str], None] = lambda _: None) -> DeletionReport:
        """Delete studies, series or instances, all revisions of each: durable, and invisible everywhere, when this returns.

        What comes in meanwhile is not named and stays. An error in the middle leaves whole records done: ask again.

        Parameters
        ----------
        source : str
            Who asked, for the record.

        Raises
        ------
        WrongUse, NotFound, BadInput
            As `look`; nothing was deleted then.
        Exhausted
            The disk or the index is full.
        """
        found = self._find(uids)
        # One may be named twice: as itself and by its series.
        named = list({i.revision: (i.revision, i.sop_instance_uid) for _, instances in found for i in instances}.values())
        records = 0
        for start in range(0, len(named), DELETED_PER_RECORD_MAX):
            chunk = named[start : start + DELETED_PER_RECORD_MAX]
            self._delete(chunk, source)
            records += 1
            progress(f"deleted {start + len(chunk)} of {len(named)} objects")
        for doomed, _ in found:
            logger.warning("deleted %s %s for %s: %d objects", doomed.level, doomed.uid, source, doomed.revisions)
        return DeletionReport([doomed for doomed, _ in found], records)

    def _delete(self, chunk: list[tuple[Revision, str]], source: str) -> None:
        journal = self._home.journal
        deletion = Deletion(Revision(self._home.identity.node, journal.next_sequence()), now_us(), source, chunk)
        appended = journal.append_small(Kind.DELETION, deletion.revision.sequence, dumps(deletion.to_json()))
        try:
            with void_on_error(self._home, appended.location.segment, deletion.revision.sequence):
                journal.sync(appended)
                with self._packed.environment.writing() as t:
                    self._writer.delete(t, deletion)
        except BaseException:
            journal.done(appended)
            raise
        # There is no way back any more. An error from here on leaves the segment open, so that the next start does the rest.
        with self._pending.environment.writing() as t:
            self._pending.add_deletion(t, appended.location, deletion)
        forget_deleted(self._home, deletion)
        journal.done(appended)

    # --- what a UID names

    def _find(self, uids: Sequence[str]) -> list[tuple[Doomed, list[Located]]]:
        if not self._home.settings.deletion.allowed:
            raise WrongUse("deletion is off: set deletion.allowed = true")
        for uid in uids:
            check_uid(uid, "UID")
        settle_refused(self._home)
        return [self._named(uid) for uid in dict.fromkeys(uids)]

    def _named(self, uid: str) -> tuple[Doomed, list[Located]]:
        found: dict[Level, list[Located]] = {
            "study": self._of_series(series_of_study(self._home.index, uid)),
            "series": self._of_series(self._series(uid)),
            "instance": self._home.index.revisions(uid),
        }
        levels = [level for level, instances in found.items() if instances]
        if not levels:
            raise NotFound(f"nothing is known under UID {uid}")
        if len(levels) > 1:
            raise BadInput(f"UID {uid} is that of a {' and of a '.join(levels)}: name what is below it")
        instances = found[levels[0]]
        distinct = len({(i.series_key, i.sop_instance_uid) for i in instances})
        return Doomed(uid, levels[0], distinct, len(instances), sum(i.length for i in instances)), instances

    def _series(self, series_instance_uid: str) -> list[SeriesKey]:
        with self._pending.environment.reading() as t:
            keys = {s.key for s in self._pending.states(t) if s.key.series_instance_uid == series_instance_uid}
        with self._packed.environment.reading() as t:
            keys |= {SeriesKey(study, series_instance_uid) for study in self._packed.studies_of_series(t, series_instance_uid)}
        return sorted(keys)

    def _of_series(self, keys: list[SeriesKey]) -> list[Located]:
        """Every revision of every instance."""
        out: dict[Revision, Located] = {}
        for key in keys:
            with self._pending.environment.reading() as t:
                out |= {p.descriptor.revision: p.located() for p in self._pending.instances(t, key)}
            out |= {i.revision: i for i in self._in_packs(key)}
        return list(out.values())

    def _in_packs(self, key: SeriesKey) -> Iterator[Located]:
        with self._packed.environment.reading() as t:
            record = self._packed.series(t, key)
            for extent in record.extents if record else []:
                yield from (located for _, located in self._packed.instances(t, extent))
