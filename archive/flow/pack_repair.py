"""A damaged pack: as it was, where all of it can be had; else its whole objects go back into the journal, to be packed anew."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace

from archive.disk import Bytes
from archive.errors import ArchiveError
from archive.flow.copies import PIECE_BYTES, JournalCopies, describe_again, journal_again
from archive.flow.home import Home
from archive.flow.mending import Mending
from archive.flow.pack_steps import pack_header
from archive.index.located import Located, PackPlace
from archive.pack.checksum import crc32
from archive.pack.descriptor import InstanceDescriptor, Plan, Revision
from archive.pack.naming import PackName
from archive.pack.pack_writer import PackWriter
from archive.pack.segment import now_us
from archive.pack.walking import search

VOID_REASON_BYTES_MAX = 4000


@dataclass(frozen=True, slots=True)
class Salvage:
    """What of a pack can be had.

    Attributes
    ----------
    objects : list of InstanceDescriptor
        Whole ones that nothing else holds, by revision id.
    lost : list of str
        SOP Instance UIDs (or names of entries) of which there is no whole copy.
    """

    objects: list[tuple[InstanceDescriptor, int]]
    lost: list[str]


class PackRepair:
    """What can be done about one damaged pack, and doing it."""

    def __init__(self, home: Home, mending: Mending, copies: JournalCopies) -> None:
        self._home, self._mending, self._copies = home, mending, copies
        self.name = mending.name

    # --- as it was

    def restore(self) -> None:
        """Put the pack back as it was; what rested under its name goes into quarantine.

        It is put together in a file first, for it is read from what is moved away then.
        """
        disk, folder = self._home.disk, self._home.settings.node.data / "quarantine"
        disk.make_folder(folder)
        path = folder / f"{self.name.digest}.part"
        path.unlink(missing_ok=True)
        fd = disk.create(path)
        try:
            length = 0
            for piece in self._mending.stream():
                length += disk.write(fd, [piece], length)

            def chunks() -> Iterator[Bytes]:
                for at in range(0, length, PIECE_BYTES):
                    yield disk.read(fd, min(PIECE_BYTES, length - at), at)

            self._home.tier.quarantine(self.name)
            self._home.tier.put(self.name.node, self.name.sequence, length, chunks(), lambda _: self.name)
        finally:
            disk.close(fd)
        disk.unlink(path)

    # --- its objects

    def salvage(self) -> Salvage:
        """Every object of the pack: by its content index, by the index, or by what still looks like an entry."""
        content = self._mending.content()
        objects: list[tuple[InstanceDescriptor, int]] = []
        lost: list[str] = []
        if content is not None:
            found: Iterator[tuple[str, InstanceDescriptor | None, int]] = (
                (d.sop_instance_uid, d, offset) for s in content.series for offset, d in s.instances
            )
        elif self._mending.rows:
            found = ((row.sop_instance_uid, *self._by_row(row)) for row in self._mending.rows)
        else:
            found = self._by_entries()
        for item, descriptor, offset in found:
            if descriptor is None or not self._is_whole(descriptor, offset):
                if not self._is_elsewhere(item, descriptor):
                    lost.append(item)
            elif not self._is_elsewhere(item, descriptor):
                objects.append((descriptor, offset))
        return Salvage(objects, lost)

    def _by_row(self, row: Located) -> tuple[InstanceDescriptor | None, int]:
        assert isinstance(row.place, PackPlace)
        offset = row.place.offset
        data = self._payload(offset, row.length, row.crc)
        made = None if data is None else self._describe(data)
        return made and replace(made, revision=row.revision, received_us=row.received_us), offset

    def _by_entries(self) -> Iterator[tuple[str, InstanceDescriptor | None, int]]:
        end = max(self._mending.length, self._mending.rest_length())
        for entry, crc in search(lambda offset, length: self._mending.raw(offset, length).ljust(length, b"\0"), end):
            if entry.name.endswith(".dcm"):
                data = self._payload(entry.data_offset, entry.length, crc)
                yield entry.name, None if data is None else self._describe(data), entry.data_offset

    def _describe(self, data: bytes) -> InstanceDescriptor | None:
        return describe_again(self._home, data, Revision(self._home.identity.node, 0), now_us(), f"repair:{self.name}")

    # --- bytes

    def _pieces(self, offset: int, length: int, crc: int) -> Iterator[bytes]:
        """From the pack where it is whole there, block by block or as it rests; else from the journal."""
        rests = 0
        for at in range(0, length, PIECE_BYTES):
            rests = crc32(self._mending.raw(offset + at, min(PIECE_BYTES, length - at)), rests)
        for at in range(0, length, PIECE_BYTES):
            wanted = min(PIECE_BYTES, length - at)
            if rests == crc:
                yield self._mending.raw(offset + at, wanted)
            else:
                yield self._copies.read(length, crc, at, wanted) or self._mending.read(offset + at, wanted)

    def _payload(self, offset: int, length: int, crc: int) -> bytes | None:
        try:
            data = b"".join(self._pieces(offset, length, crc))
        except ArchiveError:
            return None
        return data if (len(data), crc32(data)) == (length, crc) else None

    def _is_whole(self, descriptor: InstanceDescriptor, offset: int) -> bool:
        crc = length = 0
        try:
            for piece in self._pieces(offset, descriptor.length, descriptor.crc):
                crc, length = crc32(piece, crc), length + len(piece)
        except ArchiveError:
            return False
        return (length, crc) == (descriptor.length, descriptor.crc)

    def _is_elsewhere(self, item: str, descriptor: InstanceDescriptor | None) -> bool:
        """Whether the journal or another pack has the same object, or it is deleted."""
        uid = descriptor.sop_instance_uid if descriptor else item
        packed, pack_id = self._home.index.packed, self._mending.info.pack_id if self._mending.info else -1
        if descriptor is not None and descriptor.revision.sequence:
            with packed.environment.reading() as t:
                if packed.is_revision_deleted(t, descriptor.revision):
                    return True
        for other in self._home.index.revisions(uid):
            same = descriptor is None or (other.digest, other.transfer_syntax_uid) == (
                descriptor.digest[: len(other.digest)],
                descriptor.transfer_syntax_uid,
            )
            here = isinstance(other.place, PackPlace) and other.place.pack_id == pack_id
            if same and not here:
                return True
        return False

    # --- without it

    def replace(self, salvage: Salvage) -> None:
        """Whole objects into the journal, the pack into quarantine, its number published as a pack that holds nothing and says why."""
        for descriptor, offset in salvage.objects:
            if descriptor.revision.node != self._home.identity.node or not descriptor.revision.sequence:
                descriptor = replace(descriptor, revision=Revision(self._home.identity.node, self._home.journal.next_sequence()))
            journal_again(self._home, descriptor, self._pieces(offset, descriptor.length, descriptor.crc))
        self._home.tier.quarantine(self.name)
        reason = f"repair: {self.name} was damaged; {len(salvage.objects)} of its objects went into later packs"
        if salvage.lost:
            reason += f", {len(salvage.lost)} are lost: {' '.join(salvage.lost)}"
        put_void(self._home, self.name, self._plan_id(), reason[:VOID_REASON_BYTES_MAX])

    def _plan_id(self) -> str:
        """Of the plan that the pack fulfilled, so that the plan is done with."""
        if self._mending.info:
            return self._mending.info.plan_id
        with self._home.index.pending.environment.reading() as t:
            plans = {plan.pack_sequence: plan.plan_id for _, plan in self._home.index.pending.plans(t)}
        return plans.get(self.name.sequence, uuid.uuid4().hex)


def put_void(home: Home, name: PackName, plan_id: str, reason: str) -> None:
    """Publish a pack's number as one that holds nothing, unless another pack has it."""
    first = next(iter(home.tier.list_packs(name.node, name.sequence)), None)
    if first is not None and first.name.sequence == name.sequence:
        return
    writer = PackWriter(pack_header(home.identity, Plan(plan_id, name.sequence, []), reason), [], [])

    def no_object(_: InstanceDescriptor) -> Iterator[Bytes]:
        return iter(())

    home.tier.put(
        name.node, name.sequence, writer.length, writer.stream(no_object), lambda digest: PackName(name.node, name.sequence, digest)
    )
