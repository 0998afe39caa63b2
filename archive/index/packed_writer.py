"""Writing what a pack holds into the index: one synced transaction for each pack, the same from a fresh pack and from its tail."""

import struct
from collections.abc import Iterator
from typing import Any

from archive.dicom.json import dumps
from archive.index.chunk import pack_chunk
from archive.index.chunk_writer import ChunkWriter
from archive.index.environment import Transaction
from archive.index.located import Located, SeriesKey, hash_uid
from archive.index.packed import BLOCKS_OF_A_PART, Extent, PackedIndex, PackInfo, Place, name_key, uid_entry
from archive.index.series_writer import SeriesWriter
from archive.pack.descriptor import Deletion, InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, SeriesRow
from archive.pack.segment import now_us

_ID = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
_PART = struct.Struct(">IH")
_LIVE = struct.Struct(">QQ")
_SUPERSEDED = struct.Struct(">QI")


class PackedWriter:
    """Adds packs to the index. Used by one process at a time: the packer, recovery or rebuild-index."""

    def __init__(self, index: PackedIndex) -> None:
        self._index = index

    def add_pack(self, t: Transaction, name: PackName, tail: PackTail) -> PackInfo:
        """All that a pack holds; a pack that is known already is left as it is.

        Of what it supersedes, the instances that it carries are found in it from here on.
        """
        known = self._index.find_pack(t, name.node, name.sequence)
        if known is not None:
            return known
        pack_id = self._next_pack_id(t)
        header = tail.header
        descriptors = [d for s in tail.series for _, d in s.instances]
        row = {
            "name": str(name),
            "length": tail.length,
            "covered": tail.covered,
            "plan_id": header["plan_id"],
            "node": header["node"],
            "metadata_version": header["metadata_version"],
            "instances": len(descriptors),
            "created_us": header["created_us"],
            "held": sum(d.length for d in descriptors),
        }
        t.append("packs", _ID.pack(pack_id), dumps(row))
        t.put("names", name_key(name.node, name.sequence), _ID.pack(pack_id))
        for part, crcs in _parts(tail.block_crcs):
            t.append("blocks", _PART.pack(pack_id, part), struct.pack(f"<{len(crcs)}I", *crcs))
        superseded = self._supersede(t, name, pack_id, header["supersedes"])
        if (by := self._superseder(t, name)) is not None:  # It was damaged, or away, when that one came.
            self._mark_superseded(t, pack_id, by.pack_id)
        series = SeriesWriter(self._index, t)
        for deletion in tail.deletions:
            t.put("deletions", b"record " + str(deletion.revision).encode(), dumps(deletion.to_json()))
            self._delete(t, deletion, series)
        for one in tail.series:
            self._add_instances(t, name, pack_id, one, superseded, series)
        series.settle()
        self._raise_revisions(t, [d.revision for d in descriptors] + [d.revision for d in tail.deletions])
        self._change(t, {"kind": "pack", "pack": str(name)})
        self._count_bytes(t, tail.length)
        return PackInfo(pack_id, name, **{k: v for k, v in row.items() if k != "name"})

    def delete(self, t: Transaction, deletion: Deletion) -> None:
        """What a deletion names is not found from here on, although no pack holds the deletion yet: the journal does."""
        series = SeriesWriter(self._index, t)
        self._delete(t, deletion, series)
        series.settle()
        self._change(t, {"kind": "deletion", "deletion": str(deletion.revision)})

    def forget_pack(self, t: Transaction, info: PackInfo) -> None:
        """A superseded pack is gone from its tier; another thread may have said so already."""
        key = _ID.pack(info.pack_id)
        if t.get("packs", key) is None:
            return
        successor = self._index.successor(t, info.pack_id).pack_id
        for other, value in list(t.scan("superseded")):
            since, by = _SUPERSEDED.unpack(value)
            if by == info.pack_id:
                t.put("superseded", other, _SUPERSEDED.pack(since, successor))
        for table in ("packs", "live", "superseded"):
            t.delete(table, key)
        for part, _ in list(t.scan("blocks", key)):
            t.delete("blocks", part)
        t.delete("names", name_key(info.name.node, info.name.sequence))
        self._count_bytes(t, -info.length)
        self._change(t, {"kind": "gone", "pack": str(info.name)})

    # --- numbers

    def _next_pack_id(self, t: Transaction) -> int:
        """Never given twice, for processes remember what they know of a pack by its id."""
        last = t.get("meta", b"pack")
        number = _NUMBER.unpack(last)[0] + 1 if last else 1
        t.put("meta", b"pack", _NUMBER.pack(number))
        return int(number)

    def _raise_revisions(self, t: Transaction, revisions: list[Revision]) -> None:
        last: dict[str, int] = {}
        for revision in revisions:
            last[revision.node] = max(last.get(revision.node, 0), revision.sequence)
        for node, sequence in last.items():
            t.put("meta", b"sequence " + node.encode(), _NUMBER.pack(max(sequence, self._index.last_revision(t, node))))

    def _change(self, t: Transaction, change: dict[str, Any]) -> None:
        last = t.last_key("changes")
        t.append("changes", _NUMBER.pack(_NUMBER.unpack(last)[0] + 1 if last else 1), dumps(change))

    def _count_bytes(self, t: Transaction, more: int) -> None:
        t.put("meta", b"bytes", _NUMBER.pack(self._index.bytes_packed(t) + more))

    def _count_live(self, t: Transaction, pack_id: int, instances: int, length: int) -> None:
        a, b = self._index.live(t, pack_id)
        t.put("live", _ID.pack(pack_id), _LIVE.pack(a + instances, b + length))

    def _code(self, t: Transaction, text: str) -> int:
        key = hash_uid(text)
        value = t.get("code_numbers", key)
        if value is not None:
            number = int(_ID.unpack(value)[0])
            if self._index.code(t, number) == text:
                return number
        last = t.last_key("codes")
        number = _ID.unpack(last)[0] + 1 if last else 1
        t.put("codes", _ID.pack(number), text.encode())
        t.put("code_numbers", key, _ID.pack(number))
        return number

    # --- instances

    def _supersede(self, t: Transaction, name: PackName, pack_id: int, supersedes: list[list[Any]]) -> set[int]:
        """Ids of the packs that are superseded now; a node speaks for its own packs alone."""
        out = set()
        for node, sequence in supersedes:
            if node != name.node:
                continue
            key = _superseded_key(node, sequence)
            if sequence < name.sequence and t.get("meta", key) is None:
                t.put("meta", key, _NUMBER.pack(name.sequence))
            info = self._index.find_pack(t, node, sequence)
            if info is not None:
                out.add(info.pack_id)
                if not self._index.is_superseded(t, info.pack_id):
                    self._mark_superseded(t, info.pack_id, pack_id)
        return out

    def _superseder(self, t: Transaction, name: PackName) -> PackInfo | None:
        """The pack in which the content of one went on that is only known now, or again."""
        sequence = name.sequence
        while value := t.get("meta", _superseded_key(name.node, sequence)):
            sequence = _NUMBER.unpack(value)[0]
            if (info := self._index.find_pack(t, name.node, sequence)) is not None:
                return info
        return None

    @staticmethod
    def _mark_superseded(t: Transaction, pack_id: int, by: int) -> None:
        t.put("superseded", _ID.pack(pack_id), _SUPERSEDED.pack(now_us(), by))

    def _add_instances(
        self, t: Transaction, name: PackName, pack_id: int, row: SeriesRow, superseded: set[int], series: SeriesWriter
    ) -> None:
        key = SeriesKey(row.study_instance_uid, row.series_instance_uid)
        chunks = ChunkWriter(t, pack_id, key, self._code)
        taken: dict[int, InstanceDescriptor] = {}
        anything_deleted = t.count("deletions") > 0
        for number, (offset, d) in enumerate(row.instances):
            if anything_deleted and self._index.is_revision_deleted(t, d.revision):
                continue
            further = False
            if d.sop_instance_uid in chunks.waiting or self._index.places(t, d.sop_instance_uid):
                chunks.flush()
                others = self._index.find_places(t, d.sop_instance_uid)
                old = next((o for o in others if o[1].revision == d.revision), None)
                if old is not None:
                    if old[1].place[0] not in superseded:
                        earlier = self._index.pack(t, old[1].place[0]).name
                        if earlier.node != name.node or earlier.sequence >= name.sequence:
                            continue
                        # It went on in another pack, and that one in this; the one between was damaged, or away.
                        superseded |= self._supersede(t, name, pack_id, [[earlier.node, earlier.sequence]])
                    self._remove(t, *old)
                further = len(others) > (old is not None)
            chunks.add(row.first + number, offset, d, further=further)
            taken[number] = d
        chunks.flush()
        self._count_live(t, pack_id, len(taken), sum(d.length for d in taken.values()))
        if taken:
            extent = Extent(pack_id, row.first, len(row.instances), row.metadata_offset, row.metadata_length, row.metadata_crc)
            series.add(key, extent, [d for _, d in row.instances], taken)

    def _remove(self, t: Transaction, place: Place, located: Located) -> None:
        found = self._index.chunk(t, place)
        assert found is not None  # It was just found there.
        key, chunk = found
        rows = [row for row in chunk if row.ordinal != place.ordinal]
        if rows:
            t.put("instances", key, pack_chunk(chunk.series, rows))
        else:
            t.delete("instances", key)
        t.remove("uids", *uid_entry(located.sop_instance_uid, place))
        self._count_live(t, located.place[0], -1, -located.length)

    def _delete(self, t: Transaction, deletion: Deletion, series: SeriesWriter) -> None:
        """What a deletion names goes out of the index, and whatever of it comes later does not come in."""
        for revision, uid in deletion.deleted:
            t.put("deletions", str(revision).encode(), b"")
            for place, located in self._index.find_places(t, uid):
                if located.revision == revision:
                    self._remove(t, place, located)
                    series.touch(located.series_key)


def _superseded_key(node: str, sequence: int) -> bytes:
    """Of table `meta`: under which number, always a higher one, a pack's content went on."""
    return b"superseded " + name_key(node, sequence)


def _parts(block_crcs: list[int]) -> Iterator[tuple[int, list[int]]]:
    for part, start in enumerate(range(0, len(block_crcs), BLOCKS_OF_A_PART)):
        yield part, block_crcs[start : start + BLOCKS_OF_A_PART]
