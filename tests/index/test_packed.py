"""What packs hold, taken in from their tails: found, counted, taken out again, the same whenever it is rebuilt."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from archive.errors import Damaged, NotFound
from archive.index.located import Located, PackPlace, SeriesKey
from archive.index.packed import PackedIndex, PackInfo
from archive.index.packed_writer import PackedWriter
from archive.index.terms import term_prefix
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.descriptor import Deletion, Revision
from archive.pack.pack_reader import read_tail
from tests.pack.build import NODE_HEX, Made, MadePack, flipped, make_instance, make_pack, read_from

SERIES = SeriesKey("1.2.3", "1.2.3.4")
PATIENT, NAME, DATE, MODALITY, NUMBER = "00100020", "00100010", "00080020", "00080060", "00200013"


@pytest.fixture
def packed(tmp_path: Path) -> Iterator[PackedIndex]:
    opened = PackedIndex(tmp_path / "packed", 64 << 20)
    yield opened
    opened.environment.close()


def add(packed: PackedIndex, *packs: MadePack) -> list[PackInfo]:
    writer = PackedWriter(packed)
    out = []
    for pack in packs:
        with packed.environment.writing() as t:
            out.append(writer.add_pack(t, pack.name, read_tail(len(pack.data), read_from(pack.data))))
    return out


def find(packed: PackedIndex, made: Made) -> list[Located]:
    with packed.environment.reading() as t:
        return packed.find(t, made.descriptor.sop_instance_uid)


def dump(packed: PackedIndex) -> dict[str, list[tuple[bytes, bytes]]]:
    with packed.environment.reading() as t:
        return {table: list(t.scan(table)) for table in packed.environment.tables}


def attributes(**texts: str) -> dict[str, Any]:
    tags = {"patient_id": (PATIENT, "LO"), "study_date": (DATE, "DA"), "modality": (MODALITY, "CS"), "number": (NUMBER, "IS")}
    return {tags[name][0]: {"vr": tags[name][1], "Value": [text]} for name, text in texts.items()}


def deletion(sequence: int, *made: Made) -> Deletion:
    return Deletion(Revision(NODE_HEX, sequence), 1, "cli", [(m.descriptor.revision, m.descriptor.sop_instance_uid) for m in made])


# --- what is found


def test_each_instance_is_found_where_it_lies(packed: PackedIndex) -> None:
    made = [make_instance(1), make_instance(2), make_instance(3, study="1.5", series="1.5.1")]
    pack = make_pack(made, sequence=4)
    (info,) = add(packed, pack)
    assert (info.name, info.length, info.instances, info.plan_id, info.node) == (pack.name, len(pack.data), 3, "ab" * 16, NODE_HEX)
    for each in made:
        (found,) = find(packed, each)
        d = each.descriptor
        assert isinstance(found.place, PackPlace)
        assert pack.data[found.place.offset : found.place.offset + found.length] == each.data
        assert found.place.pack_id == info.pack_id
        assert (found.series_instance_uid, found.sop_class_uid, found.transfer_syntax_uid) == (
            d.series_instance_uid,
            d.sop_class_uid,
            d.transfer_syntax_uid,
        )
        assert (found.revision, found.crc, found.digest, found.data_set_offset) == (d.revision, d.crc, d.digest[:32], d.data_set_offset)
        assert (found.received_us, found.further, found.pixels) == (d.received_us, False, None)
    assert find(packed, make_instance(9)) == []


def test_uids_that_count_beyond_64_bits(packed: PackedIndex) -> None:
    made = [make_instance(n, uid=f"1.2.3.{20261128101500000000 + n}") for n in range(1, 5)]
    add(packed, make_pack(made))
    assert [[i.sop_instance_uid for i in find(packed, each)] for each in made] == [[m.descriptor.sop_instance_uid] for m in made]


def test_frames_are_kept(packed: PackedIndex) -> None:
    pixels = {"tag": "7FE00010", "fragments": list(range(1000))}
    made = make_instance(1)
    made = replace(made, descriptor=replace(made.descriptor, pixels=pixels))
    add(packed, make_pack([made]))
    assert find(packed, made)[0].pixels == pixels


def test_packs_and_their_blocks(packed: PackedIndex) -> None:
    pack = make_pack([make_instance(1, bytes(3 * BLOCK_BYTES))], sequence=7)
    (info,) = add(packed, pack)
    with packed.environment.reading() as t:
        covered = pack.data[: info.covered]
        crcs = [zlib.crc32(covered[at : at + BLOCK_BYTES]) for at in range(0, len(covered), BLOCK_BYTES)]
        assert list(packed.block_crcs(t, info.pack_id)) == crcs
        assert packed.pack(t, info.pack_id) == info
        assert list(packed.packs(t)) == [info]
        assert packed.find_pack(t, "node", 7) == info
        assert packed.find_pack(t, "node", 8) is None
        assert packed.bytes_packed(t) == len(pack.data)
        for ask in (packed.pack, packed.block_crcs):
            with pytest.raises(NotFound, match="pack 99"):
                ask(t, 99)


def test_last_numbers_of_a_node(packed: PackedIndex) -> None:
    add(packed, *(make_pack([make_instance(s)], sequence=s, node=n) for n, s in (("a", 1), ("a", 300), ("a", 2), ("a-b", 9), ("b", 5))))
    with packed.environment.reading() as t:
        assert [packed.last_sequence(t, node) for node in ("a", "a-b", "b", "c", "")] == [300, 9, 5, 0, 0]
        assert packed.last_revision(t, NODE_HEX) == 300
        assert packed.last_revision(t, "ff" * 16) == 0


def test_a_deletion_counts_among_the_revisions(packed: PackedIndex) -> None:
    add(packed, make_pack([make_instance(1)], [deletion(77)]))
    with packed.environment.reading() as t:
        assert packed.last_revision(t, NODE_HEX) == 77


def test_a_series_over_two_packs(packed: PackedIndex) -> None:
    first, second = [make_instance(n, attributes=attributes(number=str(n))) for n in (1, 2)], [make_instance(3)]
    infos = add(packed, make_pack(first, sequence=1), make_pack(second, sequence=2))
    with packed.environment.reading() as t:
        series = packed.series(t, SERIES)
        assert series is not None
        assert (series.instances, [e.pack_id for e in series.extents]) == (3, [i.pack_id for i in infos])
        found = [[(ordinal, i.sop_instance_uid) for ordinal, i in packed.instances(t, extent)] for extent in series.extents]
        assert found == [[(0, "1.2.3.4.1"), (1, "1.2.3.4.2")], [(0, "1.2.3.4.3")]]
        assert packed.rows(t, series.extents[0]) == [attributes(number="1"), attributes(number="2")]
        assert packed.studies_of_series(t, "1.2.3.4") == ["1.2.3"]
        assert packed.counts(t) == {"packs": 2, "studies": 1, "series": 1, "instances": 3}


def test_what_came_first_speaks_for_study_and_series_and_others_add(packed: PackedIndex) -> None:
    add(
        packed,
        make_pack([make_instance(1, attributes=attributes(patient_id="A", modality="CT"))], sequence=1),
        make_pack([make_instance(2, attributes=attributes(patient_id="B", study_date="20200101", modality="MR"))], sequence=2),
        make_pack([make_instance(3, series="1.2.3.9", attributes=attributes(modality="SR", number="1"))], sequence=3),
    )
    with packed.environment.reading() as t:
        study, series = packed.study(t, "1.2.3"), packed.series(t, SERIES)
        assert study is not None
        assert series is not None
        assert study.series_instance_uids == ["1.2.3.4", "1.2.3.9"]
        assert study.attributes == {
            PATIENT: {"vr": "LO", "Value": ["A"]},
            DATE: {"vr": "DA", "Value": ["20200101"]},
            "00080061": {"vr": "CS", "Value": ["CT", "SR"]},
        }
        assert series.attributes[MODALITY] == {"vr": "CS", "Value": ["CT"]}
        assert NUMBER not in series.attributes
        terms = [key for key, _ in t.scan("terms")]
    assert sorted(terms) == sorted(
        term_prefix(tag, text) + b"\x001.2.3" for tag, text in ((PATIENT, "A"), (DATE, "20200101"), ("00080061", "CT"), ("00080061", "SR"))
    )


def test_further_revisions(packed: PackedIndex) -> None:
    first, again = make_instance(1), make_instance(2, b"other bytes", uid="1.2.3.4.1")
    add(packed, make_pack([first], sequence=1), make_pack([(again, True)], sequence=2))
    assert sorted((i.revision.sequence, i.further) for i in find(packed, first)) == [(1, False), (2, True)]
    with packed.environment.reading() as t:
        series = packed.series(t, SERIES)
        assert series is not None
        assert series.instances == 1


def test_an_instance_in_two_series_is_counted_in_each(packed: PackedIndex) -> None:
    first, again = make_instance(1), make_instance(2, uid="1.2.3.4.1", series="1.2.3.5")
    add(packed, make_pack([first], sequence=1), make_pack([(again, True)], sequence=2))
    with packed.environment.reading() as t:
        counts = [packed.series(t, SeriesKey("1.2.3", uid)) for uid in ("1.2.3.4", "1.2.3.5")]
    assert [series.instances for series in counts if series] == [1, 1]


# --- again, in another order, after a failure


def test_a_pack_that_is_known_changes_nothing(packed: PackedIndex) -> None:
    pack = make_pack([make_instance(1), make_instance(2)], [deletion(9, make_instance(5))])
    (info,) = add(packed, pack)
    before = dump(packed)
    assert add(packed, pack) == [info]
    assert dump(packed) == before


def test_a_rebuilt_index_is_the_same(packed: PackedIndex, tmp_path: Path) -> None:
    one, two = make_instance(1), make_instance(2)
    packs = [make_pack([one, two], sequence=1), make_pack([make_instance(3)], [deletion(9, one)], sequence=2), make_pack([], sequence=3)]
    add(packed, *packs)
    rebuilt = PackedIndex(tmp_path / "rebuilt", 64 << 20)
    add(rebuilt, *packs)
    assert dump(rebuilt) == dump(packed)
    rebuilt.environment.close()


def test_a_revision_in_two_packs_is_known_once(packed: PackedIndex) -> None:
    """As compaction leaves it until the old pack is deleted."""
    made = make_instance(1)
    add(packed, make_pack([made], sequence=1), make_pack([made], sequence=2))
    assert len(find(packed, made)) == 1
    with packed.environment.reading() as t:
        assert packed.counts(t)["instances"] == 1


def test_what_a_transaction_that_failed_had_seen_is_forgotten(packed: PackedIndex) -> None:
    """Codes and pack numbers of the lost transaction go to others."""
    lost = make_pack([make_instance(1, study="9.1", series="9.1.1"), make_instance(2, study="9.1", series="9.1.1")], sequence=1)
    with pytest.raises(KeyError), packed.environment.writing() as t:
        info = PackedWriter(packed).add_pack(t, lost.name, read_tail(len(lost.data), read_from(lost.data)))
        packed.pack(t, info.pack_id)
        packed.find(t, "9.1.1.1")
        raise KeyError
    made = make_instance(3, study="8.1", series="8.1.1", node="cd" * 16)
    pack = make_pack([made, make_instance(4, study="8.1", series="8.1.1")], sequence=2)
    (info,) = add(packed, pack)
    (found,) = find(packed, made)
    assert (found.study_instance_uid, found.series_instance_uid, found.revision.node) == ("8.1", "8.1.1", "cd" * 16)
    with packed.environment.reading() as t:
        assert packed.pack(t, info.pack_id).name == pack.name


# --- deletions


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_what_is_deleted_is_not_found_whichever_pack_came_first(packed: PackedIndex, order: tuple[int, int]) -> None:
    made = [make_instance(1), make_instance(2)]
    packs = [make_pack(made, sequence=1), make_pack([], [deletion(9, made[0])], sequence=2)]
    add(packed, *(packs[number] for number in order))
    assert find(packed, made[0]) == []
    assert len(find(packed, made[1])) == 1
    with packed.environment.reading() as t:
        series = packed.series(t, SERIES)
        assert series is not None
        assert series.instances == 1
        assert [i.sop_instance_uid for e in series.extents for _, i in packed.instances(t, e)] == ["1.2.3.4.2"]
        assert packed.is_revision_deleted(t, made[0].descriptor.revision)
        assert not packed.is_revision_deleted(t, made[1].descriptor.revision)
        assert packed.is_deletion_known(t, Revision(NODE_HEX, 9))
        assert not packed.is_deletion_known(t, Revision(NODE_HEX, 1))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_series_and_a_study_of_which_nothing_is_left_are_gone(packed: PackedIndex, order: tuple[int, int]) -> None:
    made = [make_instance(1), make_instance(2)]
    packs = [make_pack(made, sequence=1), make_pack([], [deletion(9, *made)], sequence=2)]
    add(packed, *(packs[number] for number in order))
    with packed.environment.reading() as t:
        assert packed.series(t, SERIES) is None
        assert packed.study(t, "1.2.3") is None
        assert packed.studies_of_series(t, "1.2.3.4") == []
        assert packed.counts(t) == {"packs": 2, "studies": 0, "series": 0, "instances": 0}
        assert list(t.scan("terms")) == []


def test_a_study_keeps_its_other_series(packed: PackedIndex) -> None:
    gone = make_instance(1, attributes=attributes(modality="CT", patient_id="A"))
    stays = make_instance(2, series="1.2.3.9", attributes=attributes(modality="MR", patient_id="A"))
    add(packed, make_pack([gone, stays], sequence=1), make_pack([], [deletion(9, gone)], sequence=2))
    with packed.environment.reading() as t:
        study = packed.study(t, "1.2.3")
        assert study is not None
        assert study.series_instance_uids == ["1.2.3.9"]
        assert study.attributes["00080061"]["Value"] == ["MR"]


def test_what_is_sent_again_after_its_deletion_is_there(packed: PackedIndex) -> None:
    first, again = make_instance(1), make_instance(20, uid="1.2.3.4.1")
    add(packed, make_pack([first], sequence=1), make_pack([], [deletion(9, first)], sequence=2), make_pack([again], sequence=3))
    assert [i.revision.sequence for i in find(packed, again)] == [20]
    with packed.environment.reading() as t:
        series = packed.series(t, SERIES)
        assert series is not None
        assert series.instances == 1


def test_one_of_two_revisions_is_deleted(packed: PackedIndex) -> None:
    first, again = make_instance(1), make_instance(2, b"other", uid="1.2.3.4.1")
    add(packed, make_pack([first, (again, True)], sequence=1), make_pack([], [deletion(9, first)], sequence=2))
    assert [i.revision.sequence for i in find(packed, first)] == [2]
    with packed.environment.reading() as t:
        series = packed.series(t, SERIES)
        assert series is not None
        assert series.instances == 1


# --- damage


def test_a_flipped_bit_in_an_instance_is_damage(packed: PackedIndex) -> None:
    made = make_instance(1)
    add(packed, make_pack([made]))
    digest = bytes.fromhex(made.descriptor.digest[:32])
    file = packed.environment.folder / "data.mdb"
    packed.environment.close()
    data = file.read_bytes()
    at = data.index(digest)
    while at >= 0:
        file.write_bytes(flipped(file.read_bytes(), at - 10))
        at = data.find(digest, at + 1)
    again = PackedIndex(packed.environment.folder, 64 << 20)
    with pytest.raises(Damaged, match="run rebuild-index"):
        find(again, made)
    again.environment.close()


def test_a_dangling_entry_is_damage(packed: PackedIndex) -> None:
    made = make_instance(1)
    add(packed, make_pack([made]))
    with packed.environment.writing() as t:
        t.empty("instances")
    with pytest.raises(Damaged, match="names instance 0 of pack 1 and does not know it"):
        find(packed, made)
