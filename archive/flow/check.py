"""Verify: everything at rest is read and held against its checksums, and packs, journal and index against each other.

It changes nothing and may run beside a working node: what moves while it looks is looked at again before it is called damage.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from archive.config import Settings
from archive.errors import ArchiveError, Damaged, NotFound, Unavailable
from archive.flow.check_index import check_extents, check_tables
from archive.flow.disagreement import disagreements
from archive.flow.home import Home
from archive.flow.mirroring import missing_in_mirror
from archive.index.environment import Transaction
from archive.index.located import DIGEST_CHARACTERS, Located
from archive.index.packed import TABLES as PACKED_TABLES
from archive.index.packed import Extent, PackInfo
from archive.index.pending import TABLES as PENDING_TABLES
from archive.index.pending import Pending
from archive.pack.checksum import BLOCK_BYTES, BlockCrcs
from archive.pack.descriptor import InstanceDescriptor
from archive.pack.frame import Kind
from archive.pack.journal_reader import Found, Gap, scan_segment
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX
from archive.tier.tails import read_pack_tail

Severity = Literal["damage", "unreferenced", "disagreement"]
Part = Literal["index", "pack", "journal", "mirror", "tier", ""]
READ_BYTES = 4 << 20
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One item that is not as it should be.

    Attributes
    ----------
    severity : {'damage', 'unreferenced', 'disagreement'}
        Damage is wrong, missing, cut short or stale; what is merely unreferenced harms nothing. A disagreement is between objects that
        are as they came.
    item : str
        What, by name.
    detail : str
        How it is wrong.
    part : {'index', 'pack', 'journal', 'mirror', 'tier', ''}
        Where it has to be mended; empty where that is the work of another finding.
    key : str
        Name of the pack, number of the segment.
    """

    severity: Severity
    item: str
    detail: str
    part: Part = ""
    key: str = ""


def verify(settings: Settings, progress: Progress = lambda _: None) -> list[Finding]:
    """Every finding; none where all is well."""
    with Home(settings) as home:
        return list(_Check(home, progress).run())


class _Check:
    def __init__(self, home: Home, progress: Progress) -> None:
        self._home, self._progress = home, progress
        self._pending, self._packed = home.index.pending, home.index.packed

    def run(self) -> Iterator[Finding]:
        broken = list(self._tables())
        yield from broken
        if not broken:  # What a table with a broken value lacks would be named again.
            yield from self._agreement()
        parts = (("packs", self._packs()), ("the tier", self._tier()), ("the journal", self._journal()), ("studies", self._studies()))
        for what, findings in parts:
            try:
                yield from findings
            except Damaged as error:  # Of the index: what it describes could not be looked at.
                yield _of_index(f"index of {what}", str(error))

    # --- the index itself

    def _tables(self) -> Iterator[Finding]:
        """Every value of the index against its CRC."""
        for part, tables in ((self._packed, PACKED_TABLES), (self._pending, PENDING_TABLES)):
            for table in tables:
                try:
                    with part.environment.reading() as t:
                        for _ in t.scan(table):
                            pass
                except Damaged as error:
                    yield _of_index(f"index table {table}", str(error))

    def _agreement(self) -> Iterator[Finding]:
        """The tables of what is packed against each other."""
        with self._packed.environment.reading() as t:
            yield from _of_tables(check_tables(self._packed, t))

    def _studies(self) -> Iterator[Finding]:
        for study_instance_uid, detail in disagreements(self._home.index):
            yield Finding("disagreement", f"study {study_instance_uid}", detail)

    # --- packs

    def _packs(self) -> Iterator[Finding]:
        try:
            with self._packed.environment.reading() as t:
                infos = list(self._packed.packs(t))
        except ArchiveError as error:
            yield _of_index("index table packs", str(error))
            return
        for info in infos:
            self._progress(f"checking {info.name} ({info.length} bytes)")
            try:
                yield from self._pack(info)
            except NotFound:
                with self._packed.environment.reading() as t:
                    known = self._packed.find_pack(t, info.name.node, info.name.sequence) is not None
                    over = self._packed.is_superseded(t, info.pack_id) and not self._packed.live(t, info.pack_id)[0]
                if known and not over:  # Else its content goes on in another, and it was deleted.
                    yield _of_pack(info.name, "missing from its tier")
            except (ArchiveError, OSError) as error:
                yield _of_pack(info.name, str(error))

    def _pack(self, info: PackInfo) -> Iterator[Finding]:
        tier = self._home.tier
        length = tier.length(info.name)
        if length != info.length:
            yield _of_pack(info.name, f"is {length} bytes long, should be {info.length}: cut short or grown")
            return
        crcs, digest = self._read(info)
        if digest != info.name.digest:
            yield _of_pack(info.name, f"its SHA-256 is {digest}, not the one in its name")
        with self._packed.environment.reading() as t:
            known = list(self._packed.block_crcs(t, info.pack_id))
        bad = [n for n, (a, b) in enumerate(zip_longest(crcs, known)) if a != b]
        if bad:
            yield _of_pack(info.name, f"blocks {bad} of 256 KiB do not match the CRCs in the index")
            yield from self._hit(info, bad)
        tail = read_pack_tail(tier, info.name)
        try:
            yield from self._index_of(info, tail)
        except Damaged as error:
            yield _of_index(f"index of pack {info.name}", str(error))

    def _read(self, info: PackInfo) -> tuple[list[int], str]:
        blocks, whole = BlockCrcs(), hashlib.sha256()
        for offset in range(0, info.length, READ_BYTES):
            data = self._home.tier.read(info.name, offset, min(READ_BYTES, info.length - offset))
            whole.update(data)
            blocks.update(memoryview(data)[: max(0, info.covered - offset)])
        return blocks.finish(), whole.hexdigest()

    def _instances(self, t: Transaction, info: PackInfo) -> list[Located]:
        """What the index says is in a pack."""
        return [i for _, i in self._packed.instances(t, Extent(info.pack_id, 0, INSTANCES_PER_PACK_MAX, 0, 0, 0))]

    def _hit(self, info: PackInfo, bad: list[int]) -> Iterator[Finding]:
        """Instances that share a damaged block; by the index, for the pack's own may be what is damaged."""
        with self._packed.environment.reading() as t:
            instances = self._instances(t, info)
        for i in instances:
            if any(i.place[1] < (n + 1) * BLOCK_BYTES and n * BLOCK_BYTES < i.place[1] + i.length for n in bad):
                detail = f"shares a damaged block of pack {info.name}: refused until repaired"
                yield Finding("damage", f"instance {i.sop_instance_uid}", detail)

    def _index_of(self, info: PackInfo, tail: PackTail) -> Iterator[Finding]:
        """The index's rows of a pack against its tail."""
        wanted = {d.revision: (offset, d) for s in tail.series for offset, d in s.instances}
        with self._packed.environment.reading() as t:
            for revision, (offset, d) in wanted.items():
                found = [i for i in self._packed.find(t, d.sop_instance_uid) if i.revision == revision]
                here = [_of_located(i) for i in found if i.place[0] == info.pack_id]
                item = f"instance {d.sop_instance_uid}"
                if not found and not self._packed.is_revision_deleted(t, revision):
                    yield _of_index(item, f"is in {info.name} and not in the index: run rebuild-index")
                elif here and _of_descriptor(offset, d) not in here:
                    yield _of_index(item, f"the index is stale about its place in {info.name}: run rebuild-index")
            for i in self._instances(t, info):
                if i.revision not in wanted:
                    yield _of_index(f"instance {i.sop_instance_uid}", f"is in the index and not in {info.name}: run rebuild-index")
            yield from _of_tables(check_extents(self._packed, t, info, tail))

    # --- what the index does not name

    def _tier(self) -> Iterator[Finding]:
        tier = self._home.tier
        try:
            for node in tier.nodes():
                for entry in tier.list_packs(node):
                    with self._packed.environment.reading() as t:
                        info = self._packed.find_pack(t, node, entry.name.sequence)
                    if info is None:
                        yield self._unknown_pack(entry.name)
                    elif info.name != entry.name:
                        yield _of_pack(entry.name, f"has the number of {info.name}: two nodes wrote under one name")
            for name in tier.strangers():
                yield Finding("unreferenced", f"file {name}", "is no pack")
        except Unavailable as error:
            yield Finding("damage", f"tier {tier.url}", str(error), "tier")

    def _unknown_pack(self, name: PackName) -> Finding:
        try:
            read_pack_tail(self._home.tier, name)
        except ArchiveError as error:
            return _of_pack(name, f"is not in the index and cannot be read: {error}")
        return Finding("unreferenced", f"pack {name}", "is whole and not in the index yet: the next start or rebuild-index takes it in")

    # --- the journal

    def _journal(self) -> Iterator[Finding]:
        seen: dict[int, str] = {}
        waiting: list[Pending] = []
        try:
            with self._pending.environment.reading() as t:  # Before looking at segments: what comes meanwhile may lie behind the look.
                waiting += (p for s in self._pending.states(t) for p in self._pending.instances(t, s.key))
        except Damaged as error:
            yield _of_index("index of the journal", str(error))
        for number in self._home.journal.missing():
            yield Finding("damage", f"journal segment {number}", "is missing", "journal", str(number))
        for number, path in self._home.journal.segments():
            try:
                items = self._items(number, path)
            except FileNotFoundError:
                continue  # It was released meanwhile.
            except ArchiveError as error:
                yield Finding("damage", f"journal segment {number}", str(error), "journal", str(number))
                continue
            yield from self._segment(items, seen)
        for number, lost in missing_in_mirror(self._home.settings, self._home.journal, self._home.disk):
            yield Finding("damage", f"mirror of journal segment {number}", lost, "mirror", str(number))
        for pending in waiting:
            sequence = pending.descriptor.revision.sequence
            if sequence not in seen and self._is_pending(sequence):
                item, segment = f"instance {pending.descriptor.sop_instance_uid}", str(pending.location.segment)
                yield Finding("damage", item, f"journal record {sequence} is missing", "journal", segment)

    def _items(self, number: int, path: Path) -> list[Found | Gap]:
        try:
            return list(scan_segment(number, path, lambda _: False))
        except FileNotFoundError:  # It may have been sealed meanwhile.
            return list(scan_segment(number, self._home.journal.path_of(number), lambda _: False))

    def _segment(self, items: list[Found | Gap], seen: dict[int, str]) -> Iterator[Finding]:
        for position, item in enumerate(items):
            number = str(item.location.segment)
            where = f"journal segment {number} at {item.location.offset}"
            last = position == len(items) - 1
            if isinstance(item, Gap):
                # At the end of a segment it may be a record that is being written right now, or was when the node died.
                severity: Severity = "unreferenced" if last else "damage"
                yield Finding(severity, where, f"{item.length} bytes belong to no whole record", "journal", number)
                continue
            sequence = item.header.sequence
            if not item.damage:
                seen[sequence] = ""
            elif self._is_pending(sequence) or item.header.kind != Kind.INSTANCE:
                seen[sequence] = item.damage
                yield Finding("damage", where, f"record {sequence}{self._name(sequence)}: {item.damage}", "journal", number)
            else:
                yield Finding("unreferenced", where, f"record {sequence}, which nothing needs: {item.damage}")

    def _name(self, sequence: int) -> str:
        with self._pending.environment.reading() as t:
            found = self._pending.get(t, sequence)
        return f" of instance {found.descriptor.sop_instance_uid}" if found else ""

    def _is_pending(self, sequence: int) -> bool:
        with self._pending.environment.reading() as t:
            return self._pending.get(t, sequence) is not None


def _of_index(item: str, detail: str) -> Finding:
    return Finding("damage", item, detail, "index")


def _of_pack(name: PackName, detail: str) -> Finding:
    return Finding("damage", f"pack {name}", detail, "pack", str(name))


def _of_tables(found: Iterable[tuple[str, str]]) -> Iterator[Finding]:
    for item, detail in found:
        yield _of_index(item, f"{detail}: run rebuild-index")


def _of_located(i: Located) -> tuple[object, ...]:
    """What index and pack have to agree about."""
    uids = (i.study_instance_uid, i.series_instance_uid, i.sop_class_uid, i.transfer_syntax_uid)
    return (i.place[1], i.length, i.data_set_offset, i.crc, i.digest, i.received_us, i.pixels, *uids)


def _of_descriptor(offset: int, d: InstanceDescriptor) -> tuple[object, ...]:
    uids = (d.study_instance_uid, d.series_instance_uid, d.sop_class_uid, d.transfer_syntax_uid)
    return (offset, d.length, d.data_set_offset, d.crc, d.digest[:DIGEST_CHARACTERS], d.received_us, d.pixels, *uids)
