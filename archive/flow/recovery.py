"""Start-up: settle what the last life left, so that the index says what packs and journal hold. `docs/recovery.md` has the table.

Packs are the truth: a pack that rests in the tier and is not in the index is taken in from its tail. Then all that is pending is
made anew from the journal; nothing of the unsynced part of the index is trusted.
"""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from archive.config import Settings
from archive.dicom.json import loads
from archive.disk import LOCAL_DISK, Disk, boot_id
from archive.errors import BadInput, Damaged, Unavailable, UnknownFormat
from archive.flow.following import adopt_packs
from archive.flow.home import Home, sole_writer
from archive.flow.identity import delete_left_over
from archive.flow.ingest import same_as_located, same_object
from archive.flow.left_over import deletions_in
from archive.flow.mirroring import settle_mirror
from archive.flow.retrieve import Retrieval
from archive.flow.voiding import void_sequences
from archive.index.environment import Transaction
from archive.index.index import INDEX_FORMAT, format_found
from archive.index.packed_writer import PackedWriter
from archive.index.pending import PendingIndex
from archive.pack.descriptor import Deletion, InstanceDescriptor, Plan, Void
from archive.pack.frame import FLAG_MUST_UNDERSTAND, Kind
from archive.pack.journal_reader import Found, Gap, scan_segment
from archive.tier.opening import open_tier

logger = logging.getLogger(__name__)

SLOT = "recovery"
BATCH = 1000


@dataclass(slots=True)
class RecoveryReport:
    """What start-up found and did."""

    packs_adopted: int = 0
    instances_pending: int = 0
    damaged: list[str] = field(default_factory=list)
    torn: list[str] = field(default_factory=list)
    left_over: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    segments_released: int = 0
    tier_away: str = ""


Progress = Callable[[str], None]
BOOT = "boot"


def recover(settings: Settings, progress: Progress = lambda _: None, disk: Disk = LOCAL_DISK) -> RecoveryReport:
    """Bring a node's data folder into order before anyone serves from it.

    Raises
    ------
    Locked
        Processes of the node still run.
    UnknownFormat
        A newer version wrote journal or packs.
    Unavailable
        The index is lost, or of another version, and the tier does not answer.
    """
    data = settings.node.data
    with sole_writer(data, disk):
        mended = settle_mirror(settings, disk)
        left_over = delete_left_over(data, disk)
        shutil.rmtree(data / "index" / "pending", ignore_errors=True)
        is_anew = _discard_other_version(data)
        has_lived = (data / "journal" / "counters").exists()
    with Home(settings, SLOT, disk) as home:
        report = RecoveryReport(left_over=left_over, mended=mended)
        work = _Recovery(home, progress, report)
        work.settle_tier()
        if is_anew and has_lived and report.tier_away:
            # Served from the journal alone, what was deleted would be back, and be called "the same" when it is sent again.
            raise Unavailable(f"the index has to be made anew from the packs, and the tier does not answer: {report.tier_away}")
        _mark_boot(data / "index" / "pending")
        if is_anew:
            (data / "index" / "format").write_text(f"{INDEX_FORMAT}\n")
        return work.run()


def renew_torn_pending(settings: Settings, disk: Disk = LOCAL_DISK) -> None:
    """Make the index of what waits anew where the machine was started since, or it cannot be opened; and nothing else.

    It is never synced: a power cut may leave any pages of it, on which LMDB ends the process that reads them.

    Raises
    ------
    Locked
        It cannot be opened, and processes of the node still run.
    Damaged
        The index of packs cannot be opened either.
    """
    if not _is_torn_pending(settings):
        return
    with sole_writer(settings.node.data, disk):
        folder = settings.node.data / "index" / "pending"
        if not _is_torn_pending(settings):  # A node was started and stopped meanwhile.
            return
        shutil.rmtree(folder)
        with Home(settings, disk=disk) as home:
            _Recovery(home, lambda _: None, RecoveryReport()).take_journal()
        _mark_boot(folder)


def _is_torn_pending(settings: Settings) -> bool:
    folder = settings.node.data / "index" / "pending"
    with contextlib.suppress(FileNotFoundError):
        if (folder / BOOT).read_text() != boot_id():
            return True
    try:
        PendingIndex(folder, settings.index.map_bytes_max).environment.close()
    except Damaged:
        return True
    return False


def _mark_boot(folder: Path) -> None:
    """The index of what waits is of this run of the machine."""
    (folder / BOOT).write_text(boot_id())


def _discard_other_version(data: Path) -> bool:
    """An index that another version wrote is not converted but made anew: it is derived. Whether that is so, or there is none."""
    found = format_found(data / "index")
    if found == INDEX_FORMAT:
        return False
    if (data / "index" / "packed").exists():
        logger.warning("the index has format %s, not %s, and is made anew from packs and journal", found or "of no name", INDEX_FORMAT)
    shutil.rmtree(data / "index", ignore_errors=True)
    (data / "index").mkdir(parents=True)
    return True


def rebuild_index(settings: Settings, progress: Progress = lambda _: None, disk: Disk = LOCAL_DISK) -> RecoveryReport:
    """Make the whole index anew from pack tails and journal, deletions included; no pixel is read. The change log starts anew.

    Raises
    ------
    Locked
        Processes of the node still run.
    Unavailable
        The tier does not answer.
    """
    data = settings.node.data
    open_tier(settings.node.tier, data / "packs", disk, settings.webhdfs).nodes()  # The old one is better than none.
    with sole_writer(data, disk):
        shutil.rmtree(data / "index", ignore_errors=True)
    return recover(settings, progress, disk)


class _Recovery:
    def __init__(self, home: Home, progress: Progress, report: RecoveryReport) -> None:
        self._home, self._progress = home, progress
        self._pending, self._packed = home.index.pending, home.index.packed
        self._retrieval = Retrieval(home)
        self._report = report
        self._last_sequence = self._last_segment = 0
        self._segments: set[int] = set()
        self._missing: list[int] = []
        self._void: set[int] = set()

    def run(self) -> RecoveryReport:
        home, report = self._home, self._report
        home.journal.seal_left_over(lambda _: True)
        report.left_over += home.journal.delete_left_over()
        held = self.take_journal()
        with self._packed.environment.reading() as t:
            self._last_sequence = max(self._last_sequence, self._packed.last_revision(t, home.identity.node))
        self._say_missing()
        home.journal.raise_counters(self._last_sequence, self._last_segment)
        # What a life before this one named is believed, and what it released must not come back: not once the void record that names
        # a record of it is gone.
        home.journal.sync_released()
        home.journal.held.write([*held, *self._missing])
        for number in sorted(self._segments.difference(held)):
            home.journal.release(number)
            report.segments_released += 1
        for text in report.damaged:
            logger.error("recovery: %s", text)
        for text in report.torn:
            logger.warning("recovery: %s", text)
        return report

    def take_journal(self) -> list[int]:
        """Take in what waits in the journal; the segments that are needed."""
        segments = list(self._home.journal.segments())
        for _, path in segments:
            self._home.disk.sync_file(path)  # What is found is believed, so it must not vanish with the power.
        self._segments = {number for number, _ in segments}
        self._missing = self._home.journal.missing()
        self._void = void_sequences(segments)
        for number, path in segments:
            self._take_deletions(number, path)
        return [number for number, path in segments if self._scan(number, path)]

    def _say_missing(self) -> None:
        for number in self._missing:
            self._last_segment = max(self._last_segment, number)
            self._report.damaged.append(
                f"journal segment {number} is missing: what was accepted into it and rests in no pack is lost, unless the file is put back"
            )
        try:
            self._home.journal.held.read()
        except Damaged as error:
            self._report.damaged.append(f"{error}; it is written anew, and whether a segment is missing is not known")

    def settle_tier(self) -> None:
        """Packs first. Without the tier the node starts all the same: it takes objects in, and the packer comes back to this."""
        try:
            self._report.left_over += self._home.tier.delete_in_flight(self._home.identity.name)
            followed = adopt_packs(self._home, self._progress)
        except Unavailable as error:
            self._report.tier_away = str(error)
            with self._pending.environment.writing() as t:
                self._pending.set_unfollowed(t, True)
                self._pending.set_problem(t, f"the tier did not answer when the node started: {error}")
            logger.error("recovery: the tier does not answer, its packs are looked at later: %s", error)
            return
        self._report.packs_adopted = followed.adopted
        self._report.damaged += followed.damaged

    # --- the journal

    def _take_deletions(self, number: int, path: Path) -> None:
        """Before any instance: what was sent again after its deletion must not be taken for the copy that is deleted."""
        for location, deletion in deletions_in(number, path):
            if deletion.revision.sequence in self._void:
                continue
            with self._packed.environment.reading() as t:
                if self._packed.is_deletion_known(t, deletion.revision):
                    continue
                applied = self._packed.is_done(t, deletion)
            with self._pending.environment.writing() as t:
                self._pending.add_deletion(t, location, deletion)
            if not applied:
                with self._packed.environment.writing() as t:
                    PackedWriter(self._packed).delete(t, deletion)

    def _scan(self, number: int, path: Path) -> bool:
        """Take in a segment; whether anything in it is still needed."""
        self._last_segment = max(self._last_segment, number)
        try:
            items = list(scan_segment(number, path, lambda kind: kind != Kind.INSTANCE))
        except Damaged as error:
            self._report.damaged.append(str(error))
            self._keep(number)
            return True
        # A torn record at the very end was never acknowledged; damage before a good record was, or could have been.
        while items and _is_torn(items[-1]):
            at = items.pop().location
            self._report.torn.append(
                f"journal segment {at.segment}: what was being written at {at.offset} when the node stopped is incomplete"
            )
        needed = False
        for batch in _batches(items):
            with self._pending.environment.writing() as t, self._packed.environment.reading() as packed:
                for item in batch:
                    needed |= self._take(t, packed, item)
        return needed

    def _keep(self, number: int) -> None:
        with self._pending.environment.writing() as t:
            self._pending.keep(t, number)

    def _take(self, t: Transaction, packed: Transaction, item: Found | Gap) -> bool:
        if isinstance(item, Gap):
            self._report.damaged.append(
                f"journal segment {item.location.segment}: {item.length} damaged bytes at {item.location.offset}; the segment is kept"
            )
            self._pending.keep(t, item.location.segment)
            return True
        header = item.header
        self._last_sequence = max(self._last_sequence, header.sequence)
        if header.sequence in self._void:
            return False
        if header.kind == Kind.INSTANCE:
            return self._take_instance(t, packed, item)
        if header.kind == Kind.END:
            return False
        if item.damage:
            self._report.damaged.append(f"journal record {header.sequence} (kind {header.kind}): {item.damage}; its segment is kept")
            self._pending.keep(t, item.location.segment)
            return True
        if header.kind == Kind.PLAN:
            plan = Plan.from_bytes(item.payload)
            if self._packed.is_fulfilled(packed, self._home.identity.name, plan):
                return False
            self._pending.add_plan(t, item.location, header.sequence, plan)
            return True
        if header.kind == Kind.DELETION:
            return not self._packed.is_deletion_known(packed, Deletion.from_json(loads(item.payload)).revision)
        if header.kind == Kind.VOID:
            void = Void.from_bytes(item.payload)
            self._pending.add_void(t, item.location, header.sequence, void)
            return void.is_needed(item.location.segment, self._segments.union(self._missing))  # Those may be put back.
        if header.flags & FLAG_MUST_UNDERSTAND:
            raise UnknownFormat(
                f"journal record {header.sequence} is of kind {header.kind}, which this program must understand and does not"
            )
        self._pending.keep(t, item.location.segment)
        return True

    def _take_instance(self, t: Transaction, packed: Transaction, item: Found) -> bool:
        sequence = item.header.sequence
        try:
            descriptor = InstanceDescriptor.from_json(loads(item.descriptor))
        except (Damaged, BadInput) as error:
            self._report.damaged.append(f"journal record {sequence}: {error}; its segment is kept")
            self._pending.keep(t, item.location.segment)
            return True
        if self._packed.is_revision_deleted(packed, descriptor.revision):
            return False
        known = self._packed.find(packed, descriptor.sop_instance_uid)
        if any(k.revision == descriptor.revision for k in known):
            return False
        if any(same_as_located(descriptor, k) and self._retrieval.can_be_read(k) for k in known):
            self._refuse(t, item.location.segment, sequence)
            return False
        others = self._pending.find(t, descriptor.sop_instance_uid)
        same = [o for o in others if same_object(o.descriptor, descriptor)]
        if any(o.descriptor.revision == descriptor.revision for o in same):
            return False  # It lies in two segments, since it was moved from one to the other.
        if same and (item.damage or not self._pending.aside(t).keys() >= {o.descriptor.revision.sequence for o in same}):
            self._refuse(t, item.location.segment, sequence)
            return False
        for damaged in same:  # This one was accepted in their place.
            self._pending.remove(t, [damaged.descriptor.revision.sequence])
            self._refuse(t, damaged.location.segment, damaged.descriptor.revision.sequence)
        self._pending.add(t, item.location, descriptor, item.descriptor, further=bool(known or len(others) > len(same)))
        self._report.instances_pending += 1
        if item.damage:
            reason = f"{descriptor.sop_instance_uid}: {item.damage}"
            self._pending.set_aside(t, sequence, reason)
            self._report.damaged.append(f"journal record {sequence} of instance {reason}; it is set aside")
        return True

    def _refuse(self, t: Transaction, segment: int, sequence: int) -> None:
        """Another record has the same object; who wrote the second died before it was made void, and a deletion would not name it."""
        self._pending.refuse(t, [(segment, sequence)])


def _is_torn(item: Found | Gap) -> bool:
    """Written in one go from start to end, a record whose last part (the descriptor, where it has one) is whole was written whole."""
    return isinstance(item, Gap) or item.damage.startswith("descriptor") or (bool(item.damage) and not item.descriptor)


def _batches(items: list[Found | Gap]) -> Iterable[list[Found | Gap]]:
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def describe_report(report: RecoveryReport) -> list[str]:
    """Lines for people."""
    lines = [f"{report.packs_adopted} packs taken into the index, {report.instances_pending} instances wait in the journal"]
    if report.tier_away:
        lines.append(f"the tier does not answer: {report.tier_away}")
    lines += [f"mended: {text}" for text in report.mended]
    lines += [f"damaged: {text}" for text in report.damaged] + [f"incomplete: {text}" for text in report.torn]
    return lines + [f"left over and removed: {name}" for name in report.left_over]
