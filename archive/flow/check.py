"""Verify: everything at rest is read and held against its checksums, and packs, journal and index against each other.

It changes nothing and may run beside a working node: what moves while it looks is looked at again before it is called damage.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from archive.config import Settings
from archive.errors import ArchiveError, Damaged, NotFound, Unavailable
from archive.flow.home import Home
from archive.index.packed import TABLES as PACKED_TABLES
from archive.index.packed import PackInfo
from archive.index.pending import TABLES as PENDING_TABLES
from archive.pack.checksum import BLOCK_BYTES, BlockCrcs
from archive.pack.descriptor import Revision
from archive.pack.frame import Kind
from archive.pack.journal_reader import Found, Gap, scan_segment
from archive.pack.pack_reader import PackTail
from archive.tier.tails import read_pack_tail

Severity = Literal["damage", "unreferenced"]
READ_BYTES = 4 << 20
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One item that is not as it should be.

    Attributes
    ----------
    severity : {'damage', 'unreferenced'}
        Damage is wrong, missing, cut short or stale; what is merely unreferenced harms nothing.
    item : str
        What, by name.
    detail : str
        How it is wrong.
    """

    severity: Severity
    item: str
    detail: str


def verify(settings: Settings, progress: Progress = lambda _: None) -> list[Finding]:
    """Every finding; none where all is well."""
    with Home(settings) as home:
        return list(_Check(home, progress).run())


class _Check:
    def __init__(self, home: Home, progress: Progress) -> None:
        self._home, self._progress = home, progress
        self._pending, self._packed = home.index.pending, home.index.packed

    def run(self) -> Iterator[Finding]:
        yield from self._tables()
        yield from self._packs()
        yield from self._tier()
        yield from self._journal()

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
                    yield Finding("damage", f"index table {table}", str(error))

    # --- packs

    def _packs(self) -> Iterator[Finding]:
        try:
            with self._packed.environment.reading() as t:
                infos = list(self._packed.packs(t))
        except ArchiveError as error:
            yield Finding("damage", "index table packs", str(error))
            return
        for info in infos:
            self._progress(f"checking {info.name} ({info.length} bytes)")
            try:
                yield from self._pack(info)
            except NotFound:
                yield Finding("damage", f"pack {info.name}", "missing from its tier")
            except (ArchiveError, OSError) as error:
                yield Finding("damage", f"pack {info.name}", str(error))

    def _pack(self, info: PackInfo) -> Iterator[Finding]:
        tier, item = self._home.tier, f"pack {info.name}"
        length = tier.length(info.name)
        if length != info.length:
            yield Finding("damage", item, f"is {length} bytes long, should be {info.length}: cut short or grown")
            return
        crcs, digest = self._read(info)
        if digest != info.name.digest:
            yield Finding("damage", item, f"its SHA-256 is {digest}, not the one in its name")
        with self._packed.environment.reading() as t:
            known = list(self._packed.block_crcs(t, info.pack_id))
        bad = [n for n, (a, b) in enumerate(zip(crcs, known, strict=True)) if a != b]
        if bad:
            yield Finding("damage", item, f"blocks {bad} of 256 KiB do not match the CRCs in the index")
        tail = read_pack_tail(tier, info.name)
        if bad or digest != info.name.digest:
            yield from self._hit(item, tail, bad)
        yield from self._index_of(info, tail)

    def _read(self, info: PackInfo) -> tuple[list[int], str]:
        blocks, whole = BlockCrcs(), hashlib.sha256()
        for offset in range(0, info.length, READ_BYTES):
            data = self._home.tier.read(info.name, offset, min(READ_BYTES, info.length - offset))
            whole.update(data)
            blocks.update(memoryview(data)[: max(0, info.covered - offset)])
        return blocks.finish(), whole.hexdigest()

    @staticmethod
    def _hit(item: str, tail: PackTail, bad: list[int]) -> Iterator[Finding]:
        """Instances that share a damaged block."""
        for series in tail.series:
            for offset, d in series.instances:
                if any(offset < (n + 1) * BLOCK_BYTES and n * BLOCK_BYTES < offset + d.length for n in bad):
                    yield Finding("damage", f"instance {d.sop_instance_uid}", f"shares a damaged block of {item}: refused until repaired")

    def _index_of(self, info: PackInfo, tail: PackTail) -> Iterator[Finding]:
        """The index's rows of a pack against its tail."""
        wanted: dict[Revision, tuple[int, int, int]] = {
            d.revision: (offset, d.length, d.crc) for s in tail.series for offset, d in s.instances
        }
        uids = {d.revision: d.sop_instance_uid for s in tail.series for _, d in s.instances}
        with self._packed.environment.reading() as t:
            for revision, (offset, length, crc) in wanted.items():
                found = [i for i in self._packed.find(t, uids[revision]) if i.revision == revision]
                here = [(i.place[1], i.length, i.crc) for i in found if i.place[0] == info.pack_id]
                item = f"instance {uids[revision]}"
                if not found and not self._packed.is_revision_deleted(t, revision):
                    yield Finding("damage", item, f"is in {info.name} and not in the index: run rebuild-index")
                elif here and (offset, length, crc) not in here:
                    yield Finding("damage", item, f"the index is stale about its place in {info.name}: run rebuild-index")

    # --- what the index does not name

    def _tier(self) -> Iterator[Finding]:
        tier = self._home.tier
        try:
            for node in tier.nodes():
                for entry in tier.list_packs(node):
                    with self._packed.environment.reading() as t:
                        info = self._packed.find_pack(t, node, entry.name.sequence)
                    if info is None:
                        yield self._unknown_pack(str(entry.name), lambda name=entry.name: read_pack_tail(tier, name))  # type: ignore[misc]
                    elif info.name != entry.name:
                        yield Finding("damage", f"pack {entry.name}", f"has the number of {info.name}: two nodes wrote under one name")
            for name in tier.strangers():
                yield Finding("unreferenced", f"file {name}", "is no pack")
        except Unavailable as error:
            yield Finding("damage", f"tier {tier.url}", str(error))

    @staticmethod
    def _unknown_pack(name: str, read: Callable[[], PackTail]) -> Finding:
        try:
            read()
        except ArchiveError as error:
            return Finding("damage", f"pack {name}", f"is not in the index and cannot be read: {error}")
        return Finding("unreferenced", f"pack {name}", "is whole and not in the index yet: the next start or rebuild-index takes it in")

    # --- the journal

    def _journal(self) -> Iterator[Finding]:
        seen: dict[int, str] = {}
        for number, path in self._home.journal.segments():
            try:
                items = self._items(number, path)
            except FileNotFoundError:
                continue  # It was released meanwhile.
            except ArchiveError as error:
                yield Finding("damage", f"journal segment {number}", str(error))
                continue
            yield from self._segment(items, seen)
        with self._pending.environment.reading() as t:
            waiting = [p for s in self._pending.states(t) for p in self._pending.instances(t, s.key)]
        for pending in waiting:
            sequence = pending.descriptor.revision.sequence
            if sequence not in seen and self._is_pending(sequence):
                yield Finding("damage", f"instance {pending.descriptor.sop_instance_uid}", f"journal record {sequence} is missing")

    def _items(self, number: int, path: Path) -> list[Found | Gap]:
        try:
            return list(scan_segment(number, path, lambda _: False))
        except FileNotFoundError:  # It may have been sealed meanwhile.
            return list(scan_segment(number, self._home.journal.path_of(number), lambda _: False))

    def _segment(self, items: list[Found | Gap], seen: dict[int, str]) -> Iterator[Finding]:
        for position, item in enumerate(items):
            where = f"journal segment {item.location.segment} at {item.location.offset}"
            last = position == len(items) - 1
            if isinstance(item, Gap):
                # At the end of a segment it may be a record that is being written right now, or was when the node died.
                severity: Severity = "unreferenced" if last else "damage"
                yield Finding(severity, where, f"{item.length} bytes belong to no whole record")
                continue
            sequence = item.header.sequence
            if not item.damage:
                seen[sequence] = ""
            elif self._is_pending(sequence) or item.header.kind != Kind.INSTANCE:
                seen[sequence] = item.damage
                yield Finding("damage", where, f"record {sequence}{self._name(sequence)}: {item.damage}")
            else:
                yield Finding("unreferenced", where, f"record {sequence}, which nothing needs: {item.damage}")

    def _name(self, sequence: int) -> str:
        with self._pending.environment.reading() as t:
            found = self._pending.get(t, sequence)
        return f" of instance {found.descriptor.sop_instance_uid}" if found else ""

    def _is_pending(self, sequence: int) -> bool:
        with self._pending.environment.reading() as t:
            return self._pending.get(t, sequence) is not None
