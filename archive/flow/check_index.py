"""Whether the tables of what is packed say what the packs' tails say, and the same as each other.

Each finding is an item and what is wrong with it; every one of them is mended by rebuild-index.
"""

from collections.abc import Iterator
from typing import Any

from archive.index.environment import Transaction
from archive.index.located import SeriesKey, hash_uid
from archive.index.packed import Extent, PackedIndex, PackInfo, SeriesRecord
from archive.index.packed_writer import INSTANCE_LEVEL, MODALITIES_IN_STUDY, MODALITY, SERIES_LEVEL, STUDY_LEVEL, only
from archive.index.terms import study_of_term, terms_of
from archive.pack.descriptor import InstanceDescriptor
from archive.pack.pack_reader import PackTail, SeriesRow

Wrong = tuple[str, str]


def check_extents(packed: PackedIndex, t: Transaction, info: PackInfo, tail: PackTail) -> Iterator[Wrong]:
    """What tables say of the series of one pack, against its tail: extents, query attributes, attributes."""
    for row in tail.series:
        known = [d for _, d in row.instances if any(i.place[0] == info.pack_id for i in packed.find(t, d.sop_instance_uid))]
        if known:
            yield from _check_series(packed, t, info, row)


def _check_series(packed: PackedIndex, t: Transaction, info: PackInfo, row: SeriesRow) -> Iterator[Wrong]:
    item = f"series {row.series_instance_uid}"
    record = packed.series(t, SeriesKey(row.study_instance_uid, row.series_instance_uid))
    if record is None:
        yield item, f"is in {info.name} and not in the index"
        return
    wanted = Extent(info.pack_id, row.first, len(row.instances), row.metadata_offset, row.metadata_length, row.metadata_crc)
    if wanted not in record.extents:
        yield item, f"the index is stale about its extent in {info.name}"
        return
    if packed.rows(t, wanted) != [only(d.attributes, INSTANCE_LEVEL) for _, d in row.instances]:
        yield item, f"what the index has for searches of its instances is not what {info.name} says"
    yield from _check_attributes(record, row, first=record.extents[0] == wanted)


def _check_attributes(record: SeriesRecord, row: SeriesRow, *, first: bool) -> Iterator[Wrong]:
    """What came first stays, later instances add: the first extent's values are the series', and none of another's is missing."""
    instances = [d for _, d in sorted(row.instances, key=lambda i: (i[1].received_us, i[1].revision.sequence))]
    for tag in sorted(SERIES_LEVEL):
        values = [d.attributes[tag] for d in instances if tag in d.attributes]
        said = record.attributes.get(tag)
        if values and (said is None or first and said not in values) or not values and said is not None and len(record.extents) == 1:
            yield f"series {record.key.series_instance_uid}", f"attribute {tag} in the index is not what its instances say"
    yield from _check_classes(record, instances)


def _check_classes(record: SeriesRecord, instances: list[InstanceDescriptor]) -> Iterator[Wrong]:
    if len(record.extents) == 1 and not set(record.sop_classes) <= {d.sop_class_uid for d in instances}:
        yield f"series {record.key.series_instance_uid}", "the index names a SOP Class that none of its instances has"


def check_tables(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    """Tables against each other. What one table has for a row of another is looked up, and both are counted: so nothing is left over."""
    yield from _check_packs(packed, t)
    yield from _check_uids(t)
    yield from _check_all_series(packed, t)
    yield from _check_studies(packed, t)
    yield from _check_codes(t)


def _check_packs(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    length = 0
    for info in packed.packs(t):
        length += info.length
        found = packed.find_pack(t, info.name.node, info.name.sequence)
        if found is None or found.pack_id != info.pack_id:
            yield f"pack {info.name}", "the index does not find it by its number"
    for table in ("names", "blocks"):
        if t.count(table) != t.count("packs"):
            yield f"index table {table}", f"has {t.count(table)} entries for {t.count('packs')} packs"
    if length != packed.bytes_packed(t):
        yield "index table meta", f"counts {packed.bytes_packed(t)} bytes in packs, they have {length}"


def _check_uids(t: Transaction) -> Iterator[Wrong]:
    """Every row can be found by its UID; that a found one is the right one is looked at whenever one is found."""
    if t.count("uids") != t.count("instances"):
        yield "index table uids", f"has {t.count('uids')} entries for {t.count('instances')} instances"


def _check_all_series(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    series = 0
    for key, _ in t.scan("series"):
        series += 1
        record = packed.series(t, SeriesKey.from_bytes(key))
        assert record is not None
        item = f"series {record.key.series_instance_uid}"
        study = packed.study(t, record.key.study_instance_uid)
        if study is None or record.key.series_instance_uid not in study.series_instance_uids:
            yield item, "is not in its study in the index"
        if record.key.study_instance_uid not in packed.studies_of_series(t, record.key.series_instance_uid):
            yield item, "the index does not find its study"
        found = {i.sop_instance_uid for e in record.extents for _, i in packed.instances(t, e) if i.series_key == record.key}
        if len(found) != record.instances:
            yield item, f"the index counts {record.instances} instances and has {len(found)}"
    if t.count("series_studies") != series:
        yield "index table series_studies", f"has {t.count('series_studies')} entries for {series} series"


def _check_studies(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    series, terms = 0, 0
    for key, _ in t.scan("studies"):
        uid = key.decode()
        study = packed.study(t, uid)
        assert study is not None
        series += len(study.series_instance_uids)
        records = [r for s in study.series_instance_uids if (r := packed.series(t, SeriesKey(uid, s))) is not None]
        if len(records) != len(study.series_instance_uids):
            yield f"study {uid}", "the index names a series of it that it does not know"
        else:
            yield from ((f"study {uid}", wrong) for wrong in _wrong_in_study(study.attributes, records))
        wanted = set(terms_of(study.attributes, uid))
        terms += len(wanted)
        if any(t.get("terms", term) is None for term in wanted):
            yield f"study {uid}", "searches by its attributes do not find it"
    if series != t.count("series"):
        yield "index table studies", f"names {series} series, the index has {t.count('series')}"
    if terms != t.count("terms"):
        yield from _surplus_terms(packed, t)


def _wrong_in_study(attributes: dict[str, Any], records: list[SeriesRecord]) -> Iterator[str]:
    for tag in sorted(STUDY_LEVEL - {MODALITIES_IN_STUDY}):
        values = [r.attributes[tag] for r in records if tag in r.attributes]
        if attributes.get(tag) not in values and (values or tag in attributes):
            yield f"attribute {tag} in the index is not what its series say"
    modalities = {str(m) for r in records for m in r.attributes.get(MODALITY, {}).get("Value", []) if m is not None}
    if not modalities <= set(attributes.get(MODALITIES_IN_STUDY, {}).get("Value", [])):
        yield "the index leaves out a modality"


def _surplus_terms(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    for term, _ in t.scan("terms"):
        study = packed.study(t, study_of_term(term))
        if study is None or term not in set(terms_of(study.attributes, study.study_instance_uid)):
            yield f"study {study_of_term(term)}", "searches find it by what it does not say"


def _check_codes(t: Transaction) -> Iterator[Wrong]:
    for number, text in t.scan("codes"):
        if t.get("code_numbers", hash_uid(text.decode())) != number:
            yield f"index table codes: {text.decode()}", "has no number, or another one"
