"""Whether the tables of what is packed say what the packs' tails say, and the same as each other.

Each finding is an item and what is wrong with it; every one of them is mended by rebuild-index.
"""

from collections.abc import Iterator

from archive.index.attribute_rows import INSTANCE_LEVEL, SERIES_LEVEL, only, unpack_json
from archive.index.environment import Transaction
from archive.index.located import SeriesKey, hash_uid
from archive.index.packed import BLOCKS_OF_A_PART, Extent, PackedIndex, PackInfo, SeriesRecord
from archive.index.series_writer import said_in, series_row, study_row
from archive.index.terms import study_of_term, terms_of
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.pack_reader import PackTail, SeriesRow
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX

Wrong = tuple[str, str]


def check_extents(packed: PackedIndex, t: Transaction, info: PackInfo, tail: PackTail) -> Iterator[Wrong]:
    """What the index says of the series of one pack, against its tail."""
    for row in tail.series:
        if any(i.place[0] == info.pack_id for _, d in row.instances for i in packed.find(t, d.sop_instance_uid)):
            yield from ((f"series {row.series_instance_uid}", wrong) for wrong in _wrong_extent(packed, t, info, row))


def _wrong_extent(packed: PackedIndex, t: Transaction, info: PackInfo, row: SeriesRow) -> Iterator[str]:
    record = packed.series(t, SeriesKey(row.study_instance_uid, row.series_instance_uid))
    if record is None:
        yield f"is in {info.name} and not in the index"
        return
    wanted = Extent(info.pack_id, row.first, len(row.instances), row.metadata_offset, row.metadata_length, row.metadata_crc)
    if wanted not in record.extents:
        yield f"the index is stale about its extent in {info.name}"
        return
    attributes = [d.attributes for _, d in row.instances]
    if packed.rows(t, wanted) != [only(a, INSTANCE_LEVEL) for a in attributes]:
        yield f"what the index has for searches of its instances is not what {info.name} says"
    if packed.said(t, wanted) != [only(a, SERIES_LEVEL) for a in attributes]:
        yield f"what the index has its instances say is not what {info.name} says"


def check_tables(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    """Tables against each other. What one has for a row of another is looked up, and both are counted: so nothing is left over."""
    yield from _check_packs(packed, t)
    yield from _check_all_series(packed, t)
    yield from _check_studies(packed, t)
    for number, text in t.scan("codes"):
        if t.get("code_numbers", hash_uid(text.decode())) != number:
            yield f"index table codes: {text.decode()}", "has no number, or another one"


def _check_packs(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    packs = length = instances = parts = 0
    for info in packed.packs(t):
        packs, length = packs + 1, length + info.length
        parts += -(-info.covered // (BLOCK_BYTES * BLOCKS_OF_A_PART))
        found = packed.find_pack(t, info.name.node, info.name.sequence)
        if found is None or found.pack_id != info.pack_id:
            yield f"pack {info.name}", "the index does not find it by its number"
        here = [i.length for _, i in packed.instances(t, Extent(info.pack_id, 0, INSTANCES_PER_PACK_MAX, 0, 0, 0))]
        instances += len(here)
        if packed.live(t, info.pack_id) != (len(here), sum(here)):
            yield f"pack {info.name}", "the index counts other instances in it than it has"
    if length != packed.bytes_packed(t):
        yield "index table meta", f"counts {packed.bytes_packed(t)} bytes in packs, they have {length}"
    for table, wanted in (("names", packs), ("blocks", parts), ("uids", instances)):
        if t.count(table) != wanted:
            yield f"index table {table}", f"has {t.count(table)} entries, should have {wanted}"


def _check_all_series(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    series = 0
    for key, value in t.scan("series"):
        series += 1
        record = packed.series(t, SeriesKey.from_bytes(key))
        assert record is not None
        item = f"series {record.key.series_instance_uid}"
        if record.key.study_instance_uid not in packed.studies_of_series(t, record.key.series_instance_uid):
            yield item, "the index does not find its study"
        study = packed.study(t, record.key.study_instance_uid)
        if study is None or record.key.series_instance_uid not in study.series_instance_uids:
            yield item, "is not in its study in the index"
        said = [one for extent in record.extents for one in said_in(packed, t, extent)]
        wanted = series_row(record.extents, said) if said else {}
        for name, found in unpack_json(value).items():
            if found != wanted.get(name):
                yield item, f"its {name.replace('_', ' ')} in the index are not what the index has its instances say"
    if t.count("series_studies") != series:
        yield "index table series_studies", f"has {t.count('series_studies')} entries, should have {series}"


def _check_studies(packed: PackedIndex, t: Transaction) -> Iterator[Wrong]:
    terms = 0
    for key, value in t.scan("studies"):
        uid, row = key.decode(), unpack_json(value)
        records: list[SeriesRecord | None] = [packed.series(t, SeriesKey(uid, series)) for series in row["series"]]
        known = [record for record in records if record is not None]
        if len(known) != len(records):
            yield f"study {uid}", "the index names a series of it that it does not know"
        elif row != study_row(known):
            yield f"study {uid}", "what the index says of it is not what its series say"
        wanted = set(terms_of(row["attributes"], uid))
        terms += len(wanted)
        if any(t.get("terms", term) is None for term in wanted):
            yield f"study {uid}", "searches by its attributes do not find it"
    if terms != t.count("terms"):
        for term, _ in t.scan("terms"):
            study = packed.study(t, study_of_term(term))
            if study is None or term not in set(terms_of(study.attributes, study.study_instance_uid)):
                yield f"study {study_of_term(term)}", "searches find it by what it does not say"
