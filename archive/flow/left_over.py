"""What one process began and another finishes, or makes void: at the node's start, or at that of a process that alone died."""

from collections.abc import Iterator
from pathlib import Path

from archive.dicom.json import loads
from archive.errors import Damaged
from archive.flow.following import is_done_with
from archive.flow.home import Home
from archive.flow.voiding import refuse, void_sequences
from archive.pack.descriptor import Deletion, InstanceDescriptor
from archive.pack.frame import Kind
from archive.pack.journal import Location
from archive.pack.journal_reader import Found, scan_segment

PENDING_BATCH = 64
"""Records that are forgotten in one transaction: receivers wait for it."""


def deletions_in(number: int, path: Path) -> Iterator[tuple[Location, Deletion]]:
    """Whole deletions of a segment, void ones too; none of a segment that cannot be read, which start-up names and keeps."""
    try:
        found = list(scan_segment(number, path, lambda _: True, only=(Kind.DELETION,)))
    except Damaged:
        return
    for item in found:
        if isinstance(item, Found) and not item.damage:
            yield item.location, Deletion.from_json(loads(item.payload))


def forget_deleted(home: Home, deletion: Deletion) -> None:
    """What a deletion names waits for no pack any more."""
    sequences = [revision.sequence for revision, _ in deletion.deleted if revision.node == home.identity.node]
    for start in range(0, len(sequences), PENDING_BATCH):
        with home.index.pending.environment.writing() as t:
            home.index.pending.remove(t, sequences[start : start + PENDING_BATCH])


def settle_deletions(home: Home) -> None:
    """Finish what a packer that died began to delete, before any segment is released; nothing else may be packing.

    Where the index of packs let go of it, it is deleted, and waits for a pack. Else nobody was told of it, and the record is made void:
    what it names may have been called "the same" since, so that no later start may take it for deleted.

    Raises
    ------
    Exhausted
        The pending index is full.
    """
    pending, packed = home.index.pending, home.index.packed
    with pending.environment.reading() as t:
        waiting = {deletion.revision: deletion for deletion in pending.deletions(t)}
    begun: list[tuple[Location, Deletion]] = []
    for number in home.journal.sealed():
        for location, deletion in deletions_in(number, home.journal.path_of(number)):
            with packed.environment.reading() as t:
                if deletion.revision not in waiting and not packed.is_deletion_known(t, deletion.revision):
                    begun.append((location, deletion))
    void = void_sequences(home.journal.segments()) if begun else set()
    for location, deletion in begun:
        sequence = deletion.revision.sequence
        if sequence in void:
            continue
        with packed.environment.reading() as t:
            applied = packed.is_done(t, deletion)
        if not applied:
            refuse(home, (location.segment, sequence))
            continue
        with pending.environment.writing() as t:
            pending.add_deletion(t, location, deletion)
        waiting[deletion.revision] = deletion
    for deletion in waiting.values():
        forget_deleted(home, deletion)


def refuse_unpublished(home: Home) -> None:
    """Make void what the process before this one in its slot took in and died before it could be found; before anything is taken in here.

    Nobody was told of it, and its sender sends it again, to whichever process: a deletion names that second record alone, and the next
    start would bring back what was deleted with the first.
    """
    unpublished = [(number, s) for number in home.journal.left_over for s in _unpublished(home, number)]
    if unpublished:
        void = void_sequences(home.journal.segments())
        refuse(home, *(record for record in unpublished if record[1] not in void))
    home.journal.left_over.clear()


def _unpublished(home: Home, number: int) -> Iterator[int]:
    """Sequences of instances of a segment that neither wait nor rest in packs nor are deleted."""
    try:
        found = list(scan_segment(number, home.journal.path_of(number), lambda _: False))
    except (Damaged, FileNotFoundError):  # Released meanwhile, or for start-up to name.
        return
    for item in found:
        if not isinstance(item, Found) or item.damage or item.header.kind != Kind.INSTANCE:
            continue
        descriptor = InstanceDescriptor.from_json(loads(item.descriptor))
        with home.index.pending.environment.reading() as t:
            waits = home.index.pending.get(t, item.header.sequence) is not None
        with home.index.packed.environment.reading() as t:  # Behind: who packs commits there before it lets go here.
            if not waits and not is_done_with(home.index.packed, t, descriptor):
                yield item.header.sequence
