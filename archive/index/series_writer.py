"""What the index says of series and studies, from what their instances say.

The rule where instances disagree: of a series, what the instance that came first says stays, and later ones add what it left out; of a
study, what the series says whose first instance came first, and later series add what it left out. So it does not matter in which order
packs come into the index, nor into which packs the instances were put.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from archive.index.attribute_rows import SERIES_LEVEL, STUDY_LEVEL, only, pack_json, pack_rows, unpack_rows
from archive.index.environment import Transaction
from archive.index.located import SeriesKey, in_order_of_arrival
from archive.index.packed import ORDINAL, Extent, PackedIndex, SeriesRecord
from archive.index.terms import terms_of
from archive.pack.descriptor import InstanceDescriptor, Revision

MODALITY, MODALITIES_IN_STUDY = "00080060", "00080061"


class Said(NamedTuple):
    """What one instance says of its series, study and patient."""

    revision: Revision
    received_us: int
    sop_instance_uid: str
    sop_class_uid: str
    attributes: dict[str, Any]


class SeriesWriter:
    """Series that change in one transaction; `settle` at its end writes what is true of them and of their studies then."""

    def __init__(self, index: PackedIndex, t: Transaction) -> None:
        self._index, self._t = index, t
        self._extents: dict[SeriesKey, list[Extent]] = {}
        self._new: dict[SeriesKey, list[Said]] = {}
        """Series of one new extent alone, which need not be read back."""

    def touch(self, key: SeriesKey) -> list[Extent]:
        """An instance of it came or went; its extents."""
        self._new.pop(key, None)
        if key not in self._extents:
            record = self._index.series(self._t, key)
            self._extents[key] = list(record.extents) if record else []
        return self._extents[key]

    def add(self, key: SeriesKey, extent: Extent, all_of_it: list[InstanceDescriptor], taken: Mapping[int, InstanceDescriptor]) -> None:
        """One more extent; `taken` are the instances of it that are found there, by line."""
        extents = self.touch(key)
        rows = pack_rows([d.attributes for d in all_of_it])
        self._t.append("rows", ORDINAL.pack(extent.pack_id, extent.first), rows)
        if not extents:
            said = unpack_rows(rows, SERIES_LEVEL)
            self._new[key] = [Said(d.revision, d.received_us, d.sop_instance_uid, d.sop_class_uid, said[n]) for n, d in taken.items()]
        extents.append(extent)

    def settle(self) -> None:
        """Write the records of every series that changed, then of their studies."""
        for key, extents in self._extents.items():
            self._put(key, extents, self._new[key] if key in self._new else self._said(extents))
        for study in {key.study_instance_uid for key in self._extents}:
            self._settle_study(study, [key.series_instance_uid for key in self._extents if key.study_instance_uid == study])

    def _said(self, extents: list[Extent]) -> list[Said]:
        """What the index holds of a series; extents of which nothing is found any more are left out."""
        out: list[Said] = []
        for extent in list(extents):
            found = said_in(self._index, self._t, extent)
            if not found:
                extents.remove(extent)
                self._t.delete("rows", ORDINAL.pack(extent.pack_id, extent.first))
            out += found
        return out

    def _put(self, key: SeriesKey, extents: list[Extent], said: list[Said]) -> None:
        t, other_way = self._t, f"{key.series_instance_uid}\0{key.study_instance_uid}".encode()
        if not said:
            t.delete("series", key.to_bytes())
            t.delete("series_studies", other_way)
            return
        t.put("series", key.to_bytes(), pack_json(series_row(extents, said)))
        t.put("series_studies", other_way, b"")

    def _settle_study(self, study_instance_uid: str, touched: list[str]) -> None:
        t, key = self._t, study_instance_uid.encode()
        before = self._index.study(t, study_instance_uid)
        uids = {*(before.series_instance_uids if before else []), *touched}
        found = [self._index.series(t, SeriesKey(study_instance_uid, uid)) for uid in uids]
        series = [s for s in found if s is not None]
        terms = set(terms_of(before.attributes, study_instance_uid)) if before else set()
        if not series:
            t.delete("studies", key)
        else:
            row = study_row(series)
            t.put("studies", key, pack_json(row))
            now = set(terms_of(row["attributes"], study_instance_uid))
            for term in now - terms:
                t.put("terms", term, b"")
            terms -= now
        for term in terms:
            t.delete("terms", term)


def series_row(extents: list[Extent], said: list[Said]) -> dict[str, Any]:
    """What table `series` has of a series with these extents, of which these instances are found."""
    said = in_order_of_arrival(said)
    return {
        "attributes": first_says([one.attributes for one in said]),
        "extents": [[e.pack_id, e.first, e.instances, e.metadata_offset, e.metadata_length, e.metadata_crc] for e in extents],
        "instances": len({one.sop_instance_uid for one in said}),
        "sop_classes": sorted({one.sop_class_uid for one in said}),
        "first": said[0].received_us,
    }


def said_in(index: PackedIndex, t: Transaction, extent: Extent) -> list[Said]:
    """What the index holds of the instances of an extent that are found."""
    found = list(index.instances(t, extent))
    said = index.said(t, extent) if found else []
    return [Said(i.revision, i.received_us, i.sop_instance_uid, i.sop_class_uid, said[n - extent.first]) for n, i in found]


def study_row(series: list[SeriesRecord]) -> dict[str, Any]:
    """What table `studies` has of a study of these series."""
    series = sorted(series, key=lambda s: (s.first_us, s.key.series_instance_uid))
    return {"attributes": study_says(series), "series": [s.key.series_instance_uid for s in series]}


def first_says(said: list[dict[str, Any]]) -> dict[str, Any]:
    """What the first says, and what later ones add to it."""
    out: dict[str, Any] = {}
    seen: set[int] = set()
    for attributes in said:
        if id(attributes) not in seen:  # Those of a series are one object, mostly.
            seen.add(id(attributes))
            for tag, value in attributes.items():
                out.setdefault(tag, value)
    return out


def study_says(series: list[SeriesRecord]) -> dict[str, Any]:
    """Attributes of a study, from its series in order of arrival; with all their modalities."""
    out = first_says([only(s.attributes, STUDY_LEVEL) for s in series])
    modalities = {m for s in series for m in s.attributes.get(MODALITY, {}).get("Value", [])}
    out[MODALITIES_IN_STUDY] = {"vr": "CS", "Value": sorted(str(m) for m in modalities if m is not None)}
    return out
