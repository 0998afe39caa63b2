"""Compaction: small packs are joined, series that lie in several packs are brought together, deleted bytes are left out.

The steps of one group of packs: their live instances are written into a new pack (or a few), checked while they go by, under the next
numbers; the index takes each in one synced transaction, and from then on finds them there. The old packs are deleted after a grace
period by `archive.flow.superseded`. Nothing is planned in the journal: what is cut off before its commit never was.
"""

import gzip
import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from archive.dicom.metadata import METADATA_VERSION
from archive.disk import Bytes
from archive.errors import ArchiveError, BadInput, Damaged, NotFound, Unavailable
from archive.flow.compaction_choice import choose
from archive.flow.home import Home
from archive.flow.pack_content import MetadataArray
from archive.flow.packing import Packer
from archive.flow.portions import order_in_pack, portions
from archive.flow.retrieve import Retrieval
from archive.flow.superseded import delete_superseded
from archive.index.located import Located, SeriesKey
from archive.index.packed import Extent, PackInfo
from archive.pack.checksum import crc32
from archive.pack.descriptor import Deletion, InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, SeriesRow
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX, PackHeader, PackWriter, SeriesContent
from archive.tier.tails import read_pack_tail

logger = logging.getLogger(__name__)

READ_BYTES = 4 << 20
PIECES_KEPT = 8
DELETED_PER_PACK_MAX = 65536
"""Objects that the deletions of one pack name."""


@dataclass(slots=True)
class CompactionReport:
    """What one run did.

    Attributes
    ----------
    packs_read, packs_written : int
        Old packs whose content went on, and the new ones.
    length_dropped : int
        Bytes by which the new ones are shorter.
    packs_waiting : int
        Superseded packs that still rest in the tier, until their grace period is over.
    kept : list of str
        Packs that could not be written again or deleted, and why.
    """

    packs_read: int
    packs_written: int
    length_dropped: int
    packs_waiting: int
    kept: list[str]


@dataclass(frozen=True, slots=True)
class _Item:
    """An instance on its way from one pack to another."""

    info: PackInfo
    row: SeriesRow
    line: int
    offset: int
    descriptor: InstanceDescriptor
    located: Located

    @property
    def key(self) -> SeriesKey:
        return SeriesKey(self.row.study_instance_uid, self.row.series_instance_uid)


class _BadPack(ArchiveError):
    """A pack cannot be read as it should; the others are written without it."""

    def __init__(self, info: PackInfo, error: Exception) -> None:
        super().__init__(f"{info.name}: {error}")
        self.info = info


class Compactor:
    """Writes packs of this node again, in the process that packs or in one that has the data folder alone."""

    def __init__(self, home: Home, packer: Packer) -> None:
        self._home, self._packer = home, packer
        self._packed = home.index.packed
        self._retrieval = Retrieval(home)
        self._lock = threading.Lock()

    def compact(
        self,
        progress: Callable[[str], None] = lambda _: None,
        stop: threading.Event | None = None,
        *,
        every_deletion: bool = False,
        grace_seconds: float | None = None,
    ) -> CompactionReport:
        """Write again what is worth it, and delete what was superseded long ago.

        Parameters
        ----------
        every_deletion : bool
            Leave out every deleted object, also where it is a small share of its pack.
        grace_seconds : float, optional
            In place of `compaction.grace_seconds`.

        Raises
        ------
        Unavailable
            The tier does not answer, or `stop` was set; what is done stays done.
        """
        grace = self._home.settings.compaction.grace_seconds if grace_seconds is None else grace_seconds
        report = CompactionReport(0, 0, 0, 0, [])
        with self._lock:
            for group in choose(self._home, every_deletion=every_deletion):
                if stop is not None and stop.is_set():
                    raise Unavailable("compaction was stopped; what is done stays done")
                self._compact(group, report, progress)
            report.kept += delete_superseded(self._home, grace, stop)
        with self._packed.environment.reading() as t:
            report.packs_waiting = len(self._packed.superseded(t))
        return report

    def _compact(self, group: list[PackInfo], report: CompactionReport, progress: Callable[[str], None]) -> None:
        while group:
            try:
                written = self._write(group)
                break
            except _BadPack as error:
                logger.error("a pack is not compacted: %s", error)
                report.kept.append(str(error))
                group = [info for info in group if info != error.info]
        else:
            return
        length = sum(info.length for info in written)
        report.packs_read += len(group)
        report.packs_written += len(written)
        report.length_dropped += sum(info.length for info in group) - length
        progress(f"{len(group)} packs went on in {', '.join(str(info.name) for info in written)}")

    # --- one group

    def _write(self, group: list[PackInfo]) -> list[PackInfo]:
        """The new packs, committed."""
        series: dict[SeriesKey, list[_Item]] = {}
        deletions: dict[Revision, Deletion] = {}
        versions = []
        for info in group:
            tail = self._tail(info)
            if deletions and sum(len(d.deleted) for d in [*deletions.values(), *tail.deletions]) > DELETED_PER_PACK_MAX:
                raise _BadPack(info, Damaged("its deletions are too many for one pack together with others"))
            deletions |= {d.revision: d for d in tail.deletions}
            versions.append(tail.header["attributes_version"])
            for item in self._live(info, tail):
                series.setdefault(item.key, []).append(item)
        for items in series.values():
            items.sort(key=lambda i: order_in_pack(i.descriptor))
        target = self._home.settings.packer.pack_bytes_target
        source = _Source(self._home)
        names = [
            self._publish(portion, list(deletions.values()), group, min(versions), source)
            for portion in [*portions(series.values(), lambda i: i.descriptor.length, target)] or [[]]
        ]
        with self._packed.environment.reading() as t:
            found = [self._packed.find_pack(t, name.node, name.sequence) for name in names]
        return [info for info in found if info is not None]

    def _tail(self, info: PackInfo) -> PackTail:
        try:
            return read_pack_tail(self._home.tier, info.name)
        except (BadInput, Damaged, NotFound) as error:
            raise _BadPack(info, error) from error

    def _live(self, info: PackInfo, tail: PackTail) -> Iterator[_Item]:
        """Instances that are found in a pack."""
        with self._packed.environment.reading() as t:
            found = dict(self._packed.instances(t, Extent(info.pack_id, 0, INSTANCES_PER_PACK_MAX, 0, 0, 0)))
        for row in tail.series:
            for line, (offset, descriptor) in enumerate(row.instances):
                located = found.pop(row.first + line, None)
                if located is None:
                    continue
                if located.revision != descriptor.revision or located.place[1] != offset:
                    raise _BadPack(info, Damaged("the index is stale about it: run rebuild-index"))
                yield _Item(info, row, line, offset, descriptor, located)
        if found:
            raise _BadPack(info, Damaged("the index knows instances in it that it does not hold: run rebuild-index"))

    def _publish(
        self, portion: list[_Item], deletions: list[Deletion], group: list[PackInfo], attributes_version: int, source: "_Source"
    ) -> PackName:
        items = {item.descriptor.revision: item for item in portion}
        content = [self._series(key, list(found), source) for key, found in groupby(portion, key=lambda i: i.key)]

        def make(header: PackHeader) -> PackWriter:
            return PackWriter(replace(header, attributes_version=attributes_version), content, deletions)

        def read(descriptor: InstanceDescriptor) -> Iterator[Bytes]:
            return source.instance(items[descriptor.revision])

        return self._packer.publish(make, read, [(info.name.node, info.name.sequence) for info in group])

    def _series(self, key: SeriesKey, items: list[_Item], source: "_Source") -> SeriesContent:
        """A series of the new pack; its metadata is that of the old packs, line by line, unless another generator made it."""
        names: set[str] = set()
        instances = []
        metadata = MetadataArray()
        for item in items:
            uid = item.descriptor.sop_instance_uid
            instances.append((item.descriptor, item.located.further or uid in names))
            names.add(uid)
            document = source.document(item)
            if document is None:
                try:
                    document = self._retrieval.document(item.located)
                except Damaged as error:
                    raise _BadPack(item.info, error) from error
            metadata.add(document)
        return SeriesContent(*key, instances, metadata.finish())


class _Source:
    """Bytes of old packs, read in long pieces, whatever small ones are asked for."""

    def __init__(self, home: Home) -> None:
        self._tier = home.tier
        self._pieces: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lines: OrderedDict[tuple[int, int], list[bytes] | None] = OrderedDict()

    def _read(self, info: PackInfo, offset: int, length: int) -> Iterator[memoryview]:
        end = offset + length
        while offset < end:
            number = offset // READ_BYTES
            key, start = (info.pack_id, number), number * READ_BYTES
            if key not in self._pieces:
                self._pieces[key] = self._tier.read(info.name, start, min(READ_BYTES, info.length - start))
                while len(self._pieces) > PIECES_KEPT:
                    self._pieces.popitem(last=False)
            piece = memoryview(self._pieces[key])[offset - start : end - start]
            offset += len(piece)
            yield piece

    def instance(self, item: _Item) -> Iterator[Bytes]:
        """A Part 10 object in pieces, checked before the last goes out."""
        d, crc = item.descriptor, 0
        try:
            for piece in self._read(item.info, item.offset, d.length):
                crc = crc32(piece, crc)
                yield piece
            if crc != d.crc:
                raise Damaged(f"instance {d.sop_instance_uid} does not match its CRC")
        except (Damaged, NotFound) as error:
            raise _BadPack(item.info, error) from error

    def document(self, item: _Item) -> bytes | None:
        """Metadata of an instance as its pack has it; None where that is of an older generator or damaged."""
        key = (item.info.pack_id, item.row.first)
        if key not in self._lines:
            self._lines[key] = self._documents(item)
            while len(self._lines) > PIECES_KEPT:
                self._lines.popitem(last=False)
        lines = self._lines[key]
        return None if lines is None else lines[item.line]

    def _documents(self, item: _Item) -> list[bytes] | None:
        if item.info.metadata_version != METADATA_VERSION:
            return None
        row = item.row
        try:
            data = b"".join(self._read(item.info, row.metadata_offset, row.metadata_length))
        except (Damaged, NotFound) as error:
            raise _BadPack(item.info, error) from error
        if crc32(data) != row.metadata_crc:
            return None
        lines = gzip.decompress(data).removeprefix(b"[\n").removesuffix(b"\n]").split(b",\n")
        return lines if len(lines) == len(row.instances) else None
