"""Erasing: what was deleted leaves every file of the data folder and of this node's packs, and that is proved.

Everything is packed; packs that hold a deleted object are written again without it, and deleted at once; journal segments that are kept for
another life are removed, and so are pool and derived data, and what `repair` put into quarantine; the index is made anew, since LMDB leaves
old bytes in its pages. What is cut off may be run again. Files are unlinked: what a disk does with their blocks is not ours.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.config import Settings
from archive.errors import ArchiveError
from archive.flow.compaction import Compactor
from archive.flow.held_segments import rewrite_held
from archive.flow.home import Home
from archive.flow.packing import Packer
from archive.flow.recovery import rebuild_index
from archive.tier.tails import read_pack_tail

SLOT = "erase"
QUARANTINE = "quarantine"


@dataclass(frozen=True, slots=True)
class ErasureReport:
    """What was done, and where something that was deleted may still be.

    Attributes
    ----------
    deleted : int
        Objects that were ever deleted.
    left : list of str
        Files that may still hold some of them, and why; none where it is proved that they are gone.
    """

    packs_read: int
    packs_written: int
    deleted: int
    left: list[str]


def erase(settings: Settings, progress: Callable[[str], None] = lambda _: None) -> ErasureReport:
    """Erase, in a data folder that was recovered and that this process has alone.

    Raises
    ------
    ArchiveError
        Something cannot be packed or written now. Nothing is lost, and nothing is proved.
    """
    with Home(settings, SLOT) as home:
        home.journal.remove_spares()  # Before anything is appended: a segment's new life may begin in one of them.
        packer = Packer(home)
        packer.pack_now(progress)
        compaction = Compactor(home, packer).compact(progress, every_deletion=True, grace_seconds=0)
        rewrite_held(home, every=True)
        packer.release_segments()
        home.journal.remove_spares()
        for away in home.tier.delete_quarantined(home.identity.name):
            progress(f"removed {away} from the tier's quarantine")
    for name in ("pool", "derived", QUARANTINE):
        progress(f"removing what is in {name}/")
        _empty(settings, name)
    rebuild_index(settings, progress)
    if settings.journal.mirror:
        shutil.rmtree(Path(settings.journal.mirror) / QUARANTINE, ignore_errors=True)
    with Home(settings) as home:
        left = [*compaction.kept, *_left_in_packs(home, progress), *_left_in_journal(home), *_left_in_quarantine(home)]
        with home.index.packed.environment.reading() as t:
            deleted = home.index.packed.deleted(t)
    return ErasureReport(compaction.packs_read, compaction.packs_written, deleted, left)


def _empty(settings: Settings, name: str) -> None:
    folder = settings.node.data / name
    shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        raise ArchiveError(f"{folder} cannot be removed")
    folder.mkdir()


def _left_in_packs(home: Home, progress: Callable[[str], None]) -> Iterator[str]:
    """Packs of any node that hold a deleted object; those that the new index finds all of need no look."""
    packed = home.index.packed
    with packed.environment.reading() as t:
        doubtful = [info for info in packed.packs(t) if packed.live(t, info.pack_id)[0] < info.instances]
    for info in doubtful:
        progress(f"looking into {info.name}")
        tail = read_pack_tail(home.tier, info.name)
        with packed.environment.reading() as t:
            deleted = [d for s in tail.series for _, d in s.instances if packed.is_revision_deleted(t, d.revision)]
        if deleted:
            of = "" if info.name.node == home.identity.name else f", a pack of node {info.name.node}: erase there"
            yield f"pack {info.name}: holds {len(deleted)} deleted objects{of}"
    for node in home.tier.nodes():
        for entry in home.tier.list_packs(node):
            with packed.environment.reading() as t:
                if packed.find_pack(t, node, entry.name.sequence) is None:
                    yield f"pack {entry.name}: cannot be read, so it is not known what it holds"
    for name in home.tier.strangers():
        yield f"file {name} of the tier: is no pack"


def _left_in_journal(home: Home) -> Iterator[str]:
    with home.index.pending.environment.reading() as t:
        for number in home.journal.sealed():
            if 0 in home.index.pending.sequences(t, number):
                yield f"journal segment {number}: is kept because it is damaged"
    if home.settings.journal.mirror and (away := Path(home.settings.journal.mirror) / QUARANTINE).exists():
        yield f"{away} cannot be removed"


def _left_in_quarantine(home: Home) -> Iterator[str]:
    if quarantined := home.tier.quarantined():
        yield f"the tier's quarantine holds {len(quarantined)} files that are not of this node: {', '.join(quarantined[:3])}"
