"""Repair: what `verify` found, mended from what is still whole; what is taken out of service is kept aside, never deleted.

A damaged pack is put together again as it was (from another copy of it, the pool, the journal, or the one bit that its checksum
finds), or its whole objects go back into the journal. A damaged journal record is mended likewise. The index is made anew. What would
be given up for lost is only given up where that was asked for.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from archive.config import Settings
from archive.disk import LOCAL_DISK, Disk
from archive.errors import Damaged, NotFound, Unavailable
from archive.flow.check import Finding, verify
from archive.flow.copies import JournalCopies
from archive.flow.home import Home
from archive.flow.mending import Mending
from archive.flow.mirroring import mirror_has_all, twin_of
from archive.flow.pack_repair import PackRepair
from archive.flow.recovery import recover, renew_torn_pending
from archive.flow.segment_repair import SegmentRepair
from archive.pack.naming import PackName
from archive.tier.opening import open_tier
from archive.tier.protocol import Tier

logger = logging.getLogger(__name__)

SLOT = "repair"
Progress = Callable[[str], None]


@dataclass(slots=True)
class RepairReport:
    """
    Attributes
    ----------
    steps : list of str
        What was done, or would be.
    lost : list of str
        What cannot be mended, by name.
    left : list of Finding
        Damage that is still there; of a plan alone, all that was found.
    """

    steps: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    left: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class How:
    """
    Attributes
    ----------
    apply : bool
        Do it; else only say what would be done.
    accept_loss : bool
        Give up what cannot be mended, so that what is left is whole.
    replica : str
        URL of a tier that holds copies of the packs; empty for none.
    """

    apply: bool = False
    accept_loss: bool = False
    replica: str = ""


def repair(settings: Settings, how: How, progress: Progress = lambda _: None, disk: Disk = LOCAL_DISK) -> RepairReport:
    """Mend what `verify` finds, or say what would be done.

    Raises
    ------
    Locked
        Processes of the node still run.
    Unavailable
        The tier does not answer, or holds none of the packs that the index knows.
    """
    renew_torn_pending(settings, disk)
    found = _damage(settings, progress)
    report = RepairReport(left=found)
    if not found:
        return report
    with Home(settings, SLOT if how.apply else "", disk) as home:
        work = _Repair(home, how, report, progress, open_tier(how.replica, Path(), disk, settings.webhdfs) if how.replica else None)
        work.run(found)
    if how.apply and report.steps:
        if work.index_is_stale:
            _set_index_aside(settings, disk)
        recover(settings, progress, disk)
        report.left = _damage(settings, progress)
    return report


def _damage(settings: Settings, progress: Progress) -> list[Finding]:
    return [finding for finding in verify(settings, progress) if finding.severity == "damage"]


def _set_index_aside(settings: Settings, disk: Disk) -> None:
    folder = settings.node.data / "quarantine"
    disk.make_folder(folder)
    disk.rename(settings.node.data / "index", folder / f"index-{time.time_ns()}")
    disk.sync_folder(settings.node.data)


class _Repair:
    def __init__(self, home: Home, how: How, report: RepairReport, progress: Progress, replica: Tier | None) -> None:
        self._home, self._how, self._report, self._progress, self._replica = home, how, report, progress, replica
        self._copies = JournalCopies(home)
        self.index_is_stale = False

    def run(self, found: list[Finding]) -> None:
        """Packs first, while the index still knows them; then the journal; the index last."""
        tier = next((finding for finding in found if finding.part == "tier"), None)
        if tier is not None:
            raise Unavailable(f"{tier.item}: {tier.detail}")
        for key in dict.fromkeys(finding.key for finding in found if finding.part == "pack"):
            self._pack(PackName.parse(key))
        for item in dict.fromkeys(finding.item for finding in found if finding.part == "mirror"):
            self._step(f"{item}: written anew, of what is whole in either")  # By the recovery behind all this.
        for key in dict.fromkeys(finding.key for finding in found if finding.part == "journal"):
            self._segment(int(key), [finding.item for finding in found if finding.key == key])
        if any(finding.part == "index" for finding in found):
            self.index_is_stale = True
            self._step("the index goes into quarantine and is made anew from packs and journal")

    def _step(self, text: str) -> None:
        self._report.steps.append(text)
        self._progress(text)
        if self._how.apply:
            logger.warning("repair: %s", text)

    def _give_up(self, lost: list[str], where: str) -> bool:
        """Whether to go on without these."""
        self._report.lost += [f"{item} of {where}" for item in lost]
        return self._how.accept_loss or not lost

    # --- packs

    def _pack(self, name: PackName) -> None:
        if name.node != self._home.identity.name:
            self._report.lost.append(f"pack {name} belongs to node {name.node}: repair it there")
            return
        self._want_mounted(name)
        mending = Mending(self._home, name, self._copies, self._replica)
        work = PackRepair(self._home, mending, self._copies)
        taken = self._number_is_of_another(name)
        if not taken and mending.is_possible():
            if mending.is_resting():
                self.index_is_stale = True  # It is whole: what the index knows of it is not.
                self._step(f"pack {name} is whole, and the index is stale about it")
                return
            sources = ", ".join(f"{count} blocks from {label}" for label, count in mending.used.items() if label != "the tier")
            self._step(f"pack {name} is put together again as it was{sources and ': '}{sources}; what rests there goes into quarantine")
            if self._how.apply:
                work.restore()
            return
        salvage = work.salvage()
        if not self._give_up(salvage.lost, f"pack {name}"):
            return
        self.index_is_stale = True
        self._step(f"pack {name} goes into quarantine; {len(salvage.objects)} whole objects of it go back into the journal")
        if self._how.apply:
            work.replace(salvage)

    def _number_is_of_another(self, name: PackName) -> bool:
        """Whether the index knows another pack under this number."""
        packed = self._home.index.packed
        try:
            with packed.environment.reading() as t:
                info = packed.find_pack(t, name.node, name.sequence)
        except Damaged:
            return False
        return info is not None and info.name != name

    def _want_mounted(self, name: PackName) -> None:
        try:
            self._home.tier.length(name)
        except NotFound:
            if next(iter(self._home.tier.list_packs(self._home.identity.name)), None) is None and self._replica is None:
                raise Unavailable(f"{self._home.tier.url} holds no pack of node {self._home.identity.name}: is it mounted?") from None

    # --- the journal

    def _segment(self, number: int, items: list[str]) -> None:
        try:
            path = self._home.journal.path_of(number)
        except FileNotFoundError:
            if twin_of(self._home.settings, self._home.journal.folder / "sealed" / f"{number:012d}.seg"):
                self._step(f"journal segment {number} is taken from the mirror")
                return
            if self._give_up(items, f"journal segment {number}, which is missing"):
                self._step(f"journal segment {number} is missing: {len(items)} items are given up")
                if self._how.apply:
                    self._home.journal.held.forget([number])
            return
        if mirror_has_all(self._home.settings, number, path, self._home.disk):
            self._step(f"journal segment {number} is taken from the mirror; what rests there goes into quarantine")
            return
        work = SegmentRepair(self._home, number, path)
        salvage = work.salvage()
        where = f"journal segment {number}"
        ways = ", ".join(f"{uid} {mended}" for uid, mended in ((_name(r.descriptor, r.sequence), r.mended) for r in salvage.mended))
        if not self._give_up(salvage.lost, where):
            if salvage.mended:
                self._step(f"{where}: mended and written anew: {ways}")
                if self._how.apply:
                    work.put_back(salvage.mended)
            return
        self._step(
            f"{where} goes into quarantine; {len(salvage.records)} records of it are written anew" + (f", mended {ways}" if ways else "")
        )
        if self._how.apply:
            work.put_back(salvage.records)
            work.move_away()


def _name(descriptor: object, sequence: int) -> str:
    return str(getattr(descriptor, "sop_instance_uid", f"record {sequence}"))
