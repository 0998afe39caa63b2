"""Writing what a pack holds into the index: one synced transaction for each pack, the same from a fresh pack and from its tail."""

import struct
import zlib
from typing import Any

from archive.dicom.attributes import INSTANCE_ATTRIBUTES, PATIENT_ATTRIBUTES, SERIES_ATTRIBUTES, STUDY_ATTRIBUTES
from archive.dicom.json import dumps
from archive.index.environment import Transaction
from archive.index.located import DIGEST_CHARACTERS, Located, PackPlace, SeriesKey, hash_uid
from archive.index.packed import Extent, PackedIndex, PackInfo, SeriesRecord, StudyRecord, name_key, pack_instance
from archive.index.terms import terms_of
from archive.pack.descriptor import Deletion, InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, SeriesRow

_ID = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
_ORDINAL = struct.Struct(">II")
STUDY_LEVEL = frozenset(PATIENT_ATTRIBUTES + STUDY_ATTRIBUTES)
SERIES_LEVEL = STUDY_LEVEL | frozenset(SERIES_ATTRIBUTES)
INSTANCE_LEVEL = frozenset(INSTANCE_ATTRIBUTES)
MODALITY, MODALITIES_IN_STUDY = "00080060", "00080061"


def only(attributes: dict[str, Any], tags: frozenset[str]) -> dict[str, Any]:
    return {tag: value for tag, value in attributes.items() if tag in tags}


class PackedWriter:
    """Adds packs to the index. Used by one process at a time: the packer, recovery or rebuild-index."""

    def __init__(self, index: PackedIndex) -> None:
        self._index = index

    def add_pack(self, t: Transaction, name: PackName, tail: PackTail) -> PackInfo:
        """All that a pack holds; a pack that is known already is left as it is.

        What the object that came first says of its study and series stays; later ones add what it left out.
        """
        known = self._index.find_pack(t, name.node, name.sequence)
        if known is not None:
            return known
        last = t.last_key("packs")
        pack_id = _ID.unpack(last)[0] + 1 if last else 1
        header = tail.header
        row = {
            "name": str(name),
            "length": tail.length,
            "covered": tail.covered,
            "plan_id": header["plan_id"],
            "node": header["node"],
            "metadata_version": header["metadata_version"],
            "instances": sum(len(s.instances) for s in tail.series),
            "created_us": header["created_us"],
        }
        t.put("packs", _ID.pack(pack_id), dumps(row))
        t.put("names", name_key(name.node, name.sequence), _ID.pack(pack_id))
        t.put("blocks", _ID.pack(pack_id), struct.pack(f"<{len(tail.block_crcs)}I", *tail.block_crcs))
        for deletion in tail.deletions:
            self._delete(t, deletion)
        for series in tail.series:
            self._add_series(t, pack_id, series)
        self._raise_revisions(t, [d.revision for s in tail.series for _, d in s.instances] + [d.revision for d in tail.deletions])
        self._change(t, {"kind": "pack", "pack": str(name)})
        t.put("meta", b"bytes", _NUMBER.pack(self._index.bytes_packed(t) + tail.length))
        return PackInfo(pack_id, name, **{k: v for k, v in row.items() if k != "name"})

    def _raise_revisions(self, t: Transaction, revisions: list[Revision]) -> None:
        last: dict[str, int] = {}
        for revision in revisions:
            last[revision.node] = max(last.get(revision.node, 0), revision.sequence)
        for node, sequence in last.items():
            t.put("meta", b"sequence " + node.encode(), _NUMBER.pack(max(sequence, self._index.last_revision(t, node))))

    def _change(self, t: Transaction, change: dict[str, Any]) -> None:
        last = t.last_key("changes")
        t.put("changes", _NUMBER.pack(_NUMBER.unpack(last)[0] + 1 if last else 1), dumps(change))

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

    def _add_series(self, t: Transaction, pack_id: int, series: SeriesRow) -> None:
        key = SeriesKey(series.study_instance_uid, series.series_instance_uid)
        known = self._index.series(t, key) or SeriesRecord(key, {}, [], 0, [])
        attributes, classes, distinct = dict(known.attributes), set(known.sop_classes), known.instances
        rows: list[dict[str, Any]] = []
        taken: list[InstanceDescriptor] = []
        code = self._code(t, key.to_bytes().decode())
        for number, (offset, d) in enumerate(series.instances):
            rows.append(only(d.attributes, INSTANCE_LEVEL))
            if self._index.is_revision_deleted(t, d.revision):
                continue
            others = self._index.find(t, d.sop_instance_uid)
            if any(o.revision == d.revision for o in others):
                continue  # A pack that supersedes another carries it too.
            distinct += not any(o.series_key == key for o in others)
            located = _located(d, PackPlace(pack_id, offset), further=bool(others))
            codes = (self._code(t, d.revision.node), code, self._code(t, d.sop_class_uid), self._code(t, d.transfer_syntax_uid))
            place = _ORDINAL.pack(pack_id, series.first + number)
            t.put("instances", place, pack_instance(located, codes))
            t.add("uids", hash_uid(d.sop_instance_uid), place)
            taken.append(d)
            classes.add(d.sop_class_uid)
        for d in sorted(taken, key=lambda d: (d.received_us, d.revision.sequence)):  # In the order in which they came, as in the journal.
            for tag, value in only(d.attributes, SERIES_LEVEL).items():
                attributes.setdefault(tag, value)
        if not distinct:
            return  # All of it was deleted before it came.
        extent = Extent(pack_id, series.first, len(series.instances), series.metadata_offset, series.metadata_length, series.metadata_crc)
        t.put("rows", _ORDINAL.pack(pack_id, series.first), zlib.compress(dumps(rows), 6))
        self._put_series(t, SeriesRecord(key, attributes, [*known.extents, extent], distinct, sorted(classes)))
        self._add_to_study(t, key, attributes)

    @staticmethod
    def _put_series(t: Transaction, series: SeriesRecord) -> None:
        extents = [[e.pack_id, e.first, e.instances, e.metadata_offset, e.metadata_length, e.metadata_crc] for e in series.extents]
        row = {"attributes": series.attributes, "extents": extents, "instances": series.instances, "sop_classes": series.sop_classes}
        t.put("series", series.key.to_bytes(), dumps(row))
        t.put("series_studies", f"{series.key.series_instance_uid}\0{series.key.study_instance_uid}".encode(), b"")

    def _add_to_study(self, t: Transaction, key: SeriesKey, attributes: dict[str, Any]) -> None:
        study = self._index.study(t, key.study_instance_uid) or StudyRecord(key.study_instance_uid, {}, [])
        merged = dict(study.attributes)
        for tag, value in only(attributes, STUDY_LEVEL).items():
            merged.setdefault(tag, value)
        modalities = {*merged.get(MODALITIES_IN_STUDY, {}).get("Value", []), *attributes.get(MODALITY, {}).get("Value", [])}
        merged[MODALITIES_IN_STUDY] = {"vr": "CS", "Value": sorted(str(m) for m in modalities if m is not None)}
        series = study.series_instance_uids
        if key.series_instance_uid not in series:
            series = [*series, key.series_instance_uid]
        t.put("studies", key.study_instance_uid.encode(), dumps({"attributes": merged, "series": series}))
        before = set(terms_of(study.attributes, key.study_instance_uid)) if study.series_instance_uids else set()
        after = set(terms_of(merged, key.study_instance_uid))
        for term in before - after:
            t.delete("terms", term)
        for term in after - before:
            t.put("terms", term, b"")

    # --- deletions

    def _delete(self, t: Transaction, deletion: Deletion) -> None:
        """What a deletion names goes out of the index, and whatever of it comes later does not come in."""
        t.put("deletions", b"record " + str(deletion.revision).encode(), dumps(deletion.to_json()))
        for revision, uid in deletion.deleted:
            t.put("deletions", str(revision).encode(), b"")
            for place, located in self._index.find_places(t, uid):
                if located.revision == revision:
                    t.delete("instances", place)
                    t.remove("uids", hash_uid(uid), place)
                    self._uncount(t, located)

    def _uncount(self, t: Transaction, gone: Located) -> None:
        key = SeriesKey(gone.study_instance_uid, gone.series_instance_uid)
        series = self._index.series(t, key)
        left = self._index.find(t, gone.sop_instance_uid)
        if series is None or any(i.series_key == key for i in left):
            return
        if series.instances > 1:
            self._put_series(t, SeriesRecord(key, series.attributes, series.extents, series.instances - 1, series.sop_classes))
            return
        t.delete("series", key.to_bytes())
        t.delete("series_studies", f"{key.series_instance_uid}\0{key.study_instance_uid}".encode())
        self._remove_from_study(t, key)

    def _remove_from_study(self, t: Transaction, key: SeriesKey) -> None:
        study = self._index.study(t, key.study_instance_uid)
        if study is None:
            return
        for term in terms_of(study.attributes, key.study_instance_uid):
            t.delete("terms", term)
        t.delete("studies", key.study_instance_uid.encode())
        for uid in study.series_instance_uids:
            series = self._index.series(t, SeriesKey(key.study_instance_uid, uid))
            if series is not None:
                self._add_to_study(t, series.key, series.attributes)


def _located(d: InstanceDescriptor, place: PackPlace, further: bool) -> Located:
    return Located(
        d.study_instance_uid,
        d.series_instance_uid,
        d.sop_instance_uid,
        d.sop_class_uid,
        d.transfer_syntax_uid,
        d.length,
        d.data_set_offset,
        d.crc,
        d.digest[:DIGEST_CHARACTERS],
        d.revision,
        d.received_us,
        further,
        d.pixels,
        place,
    )
