"""The table of named damages: how each is done, what `verify` has to find, what is refused."""

import re
import struct

from archive.index.terms import term_key
from archive.pack.checksum import digest_of
from tests.damage.ways import (
    BIG,
    SERIES,
    SMALL,
    STREAMED,
    WAITING,
    Damage,
    change_packed,
    change_rows,
    cut_pack,
    fewer_blocks,
    flip,
    flip_index,
    flip_pack,
    foreign_file,
    forgotten,
    garbage_with_the_name_of_a_pack,
    grow_pack,
    invented,
    middle_of,
    misnamed,
    pack_of_another_node,
    pack_of_one_number,
    replace_in,
    rotten_hash,
    stale_digest,
    stale_offset,
    torn_record,
    wipe,
    wipe_pack,
)
from tests.flow.objects import NAME, Object

DIGEST = r"damage pack \S*/000000000001-\S+: its SHA-256 is"
FIRST = r"damage pack \S*/000000000001-\S+: "


def shares(*objects: Object) -> list[str]:
    return [rf"damage instance {re.escape(one.sop_instance_uid)}: shares a damaged block of pack" for one in objects]


def missing(*objects: Object) -> list[str]:
    return [rf"damage instance {re.escape(one.sop_instance_uid)}: journal record \d+ is missing" for one in objects]


IN_LAST_BLOCK = [DIGEST, FIRST + r"blocks \[2\]", *shares(BIG, *SMALL)]
DAMAGES = {
    "pack: payload": Damage(flip_pack(middle_of(BIG)), [DIGEST, FIRST + r"blocks \[1\]", *shares(BIG)], [BIG]),
    "pack: payload in a shared block": Damage(flip_pack(middle_of(SMALL[1])), IN_LAST_BLOCK, [BIG, *SMALL]),
    "pack: a sector of a payload": Damage(wipe_pack(middle_of(BIG)), [DIGEST, FIRST + r"blocks \[1\]", *shares(BIG)], [BIG]),
    "pack: a sector of metadata": Damage(
        wipe_pack(lambda pack, _: pack.index(b"metadata.json.gz") + 64, 100), IN_LAST_BLOCK, [BIG, *SMALL]
    ),
    "pack: a sector of the content index": Damage(
        wipe_pack(lambda _, found: found.index_offset + 100),
        [*IN_LAST_BLOCK, FIRST + "the pack's content index does not match its CRC"],
        [BIG, *SMALL],
    ),
    "pack: a sector of the tail": Damage(wipe_pack(lambda pack, found: len(pack) - 900), [DIGEST, FIRST + "the pack's tail"], []),
    "pack: local header": Damage(flip_pack(lambda pack, _: pack.index(b"1.2.1.1.2.dcm")), IN_LAST_BLOCK, [BIG, *SMALL]),
    "pack: metadata": Damage(flip_pack(lambda pack, _: pack.index(b"metadata.json.gz") + 150), IN_LAST_BLOCK, [BIG, *SMALL]),
    "pack: content index": Damage(
        flip_pack(lambda _, found: found.index_offset + found.index_length // 2),
        [*IN_LAST_BLOCK, FIRST + "the pack's content index does not match its CRC"],
        [BIG, *SMALL],
    ),
    "pack: block table": Damage(flip_pack(lambda _, found: found.blocks_offset + 5), [DIGEST, FIRST + "the pack's tail"], []),
    "pack: central directory": Damage(flip_pack(lambda pack, _: pack.index(b"PK\x01\x02") + 50), [DIGEST, FIRST + "the pack's tail"], []),
    "pack: locator": Damage(flip_pack(lambda pack, _: len(pack) - 150), [DIGEST, FIRST + "the pack's tail locator"], []),
    "pack: cut short": Damage(cut_pack, [FIRST + r"is \d+ bytes long, should be \d+"], [BIG, *SMALL]),
    "pack: grown": Damage(grow_pack, [FIRST + r"is \d+ bytes long, should be \d+"], [BIG, *SMALL]),
    "pack: missing": Damage(lambda place: place.pack.unlink(), [FIRST + "missing from its tier"], [BIG, *SMALL]),
    "tier: a foreign file": Damage(foreign_file, [rf"unreferenced file {NAME}/Thumbs.db: is no pack"], []),
    "tier: two packs of one number": Damage(pack_of_one_number, [r"damage pack \S+: has the number of \S+: two nodes wrote"], []),
    "tier: a pack that is not in the index": Damage(
        pack_of_another_node, [r"unreferenced pack other-node/\S+: is whole and not in the"], []
    ),
    "tier: no pack under the name of one": Damage(
        garbage_with_the_name_of_a_pack, [r"damage pack \S+77-0+.zip: is not in the index and cannot be read"], []
    ),
    "journal: payload": Damage(
        lambda place: flip(place.segment, place.at(WAITING[1]) + 300),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[1].sop_instance_uid}: payload"],
        [WAITING[1]],
    ),
    "journal: a sector of a payload": Damage(
        lambda place: wipe(place.segment, place.at(WAITING[1]) + 200, 100),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[1].sop_instance_uid}: payload"],
        [WAITING[1]],
    ),
    "journal: most of a header": Damage(
        lambda place: wipe(place.segment, place.header_at(WAITING[1]) + 10, 100),
        [r"damage journal segment \d+ at \d+: \d+ bytes belong to no whole record", *missing(WAITING[1])],
        [WAITING[1]],
    ),
    "journal: most of a descriptor": Damage(
        lambda place: wipe(place.segment, place.at(WAITING[1]) + len(WAITING[1].data_set) + 30, 200),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[1].sop_instance_uid}: descriptor"],
        [],
    ),
    "journal: a sector of a large object": Damage(
        lambda place: wipe(place.large_segment, 300_000),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {STREAMED.sop_instance_uid}: payload"],
        [STREAMED],
    ),
    "journal: payload of the last record": Damage(
        lambda place: flip(place.segment, place.at(WAITING[2]) + 300),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[2].sop_instance_uid}: payload"],
        [WAITING[2]],
    ),
    "journal: header": Damage(
        lambda place: flip(place.segment, place.header_at(WAITING[1]) + 40),
        [r"damage journal segment \d+ at \d+: \d+ bytes belong to no whole record", *missing(WAITING[1])],
        [WAITING[1]],
    ),
    "journal: header of the last record": Damage(
        lambda place: flip(place.segment, place.header_at(WAITING[2]) + 40),
        [r"damage journal segment \d+ at \d+: \d+ bytes belong to no whole record", *missing(WAITING[2])],
        [WAITING[2]],
    ),
    "journal: descriptor": Damage(
        lambda place: flip(place.segment, place.at(WAITING[1]) + len(WAITING[1].data_set) + 30),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[1].sop_instance_uid}: descriptor"],
        [],
    ),
    "journal: payload of a large object": Damage(
        lambda place: flip(place.large_segment, 300_000),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {STREAMED.sop_instance_uid}: payload"],
        [STREAMED],
    ),
    "journal: descriptor of the last record": Damage(
        lambda place: flip(place.segment, place.at(WAITING[2]) + len(WAITING[2].data_set) + 30),
        [rf"damage journal segment \d+ at \d+: record \d+ of instance {WAITING[2].sop_instance_uid}: descriptor"],
        [],
    ),
    "journal: header of a large object": Damage(
        lambda place: flip(place.large_segment, 4096 + 40),
        [r"damage journal segment \d+ at \d+: \d+ bytes belong to no whole record", *missing(STREAMED)],
        [STREAMED],
    ),
    "journal: header of a segment": Damage(
        lambda place: flip(place.segment, 20), [r"damage journal segment \d+: .*its header is damaged", *missing(*WAITING)], WAITING
    ),
    "journal: a missing segment": Damage(lambda place: place.segment.unlink(), missing(*WAITING), WAITING),
    "journal: a torn record behind the last": Damage(
        lambda place: torn_record(place), [r"unreferenced journal segment \d+ at \d+: \d+ bytes belong to no whole record"], []
    ),
    "index: packed value": Damage(
        flip_index("packed", bytes.fromhex(digest_of(SMALL[1].data_set)[:32])),
        [
            rf"damage index {part}: .*a value of table 'instances' does not match its CRC"
            for part in ("table instances", r"of pack \S*/000000000001-\S+", "of studies")
        ],
        [BIG, *SMALL],
    ),
    "index: value of a pack": Damage(
        flip_index("packed", f'"name":"{NAME}/000000000/000000000001'.encode()),
        [r"damage index table packs: .*does not match its CRC"] * 2 + [r"damage index of the tier: .*does not match its CRC"],
        [BIG, *SMALL],
    ),
    "index: pending value": Damage(
        flip_index("pending", b'"sop_instance_uid":"' + WAITING[1].sop_instance_uid.encode()),
        [
            rf"damage index {part}: .*a value of table 'records' does not match its CRC"
            for part in ("table records", "of the journal", "of studies")
        ],
        WAITING[1:2],
    ),
    "index: a stale place": Damage(
        change_packed(stale_offset), [rf"damage instance {SMALL[0].sop_instance_uid}: the index is stale"], SMALL[:1]
    ),
    "index: a stale digest": Damage(change_packed(stale_digest), [rf"damage instance {SMALL[0].sop_instance_uid}: the index is stale"], []),
    "index: an instance under the UID of another": Damage(
        change_packed(misnamed),
        [r"damage index of pack \S*/000000000001-\S+: the index has instance \d of pack 1 under another UID"],
        SMALL[:1],
    ),
    "index: a rotten hash": Damage(
        change_packed(rotten_hash), [rf"damage instance {SMALL[0].sop_instance_uid}: is in \S+ and not in the index"], SMALL[:1]
    ),
    "index: a forgotten instance": Damage(
        change_packed(forgotten),
        [
            rf"damage instance {SMALL[0].sop_instance_uid}: is in \S+ and not in the index",
            r"damage series 1.2.1.1: its instances in the index are not",
            r"damage pack \S*/000000000001-\S+: the index counts other instances in it than it has",
        ],
        SMALL[:1],
    ),
    "index: an invented instance": Damage(
        change_packed(invented),
        [
            rf"damage instance {SMALL[2].sop_instance_uid}: is in the index and not in \S+",
            r"damage index table uids: has 5 entries, should have 6",
            r"damage pack \S*/000000000001-\S+: the index counts other instances in it than it has",
        ],
        [],
    ),
    "index: a series forgotten": Damage(
        change_packed(lambda t: t.delete("series", SERIES)),
        [
            r"damage index table series_studies: has 2 entries, should have 1",
            r"damage study 1.2.1: the index names a series of it that it does not know",
            r"damage series 1.2.1.1: is in \S+ and not in the index",
        ],
        [],
        hidden=True,
    ),
    "index: a study forgotten": Damage(
        change_packed(lambda t: t.delete("studies", b"1.2.1")),
        [
            r"damage series 1.2.1.1: is not in its study in the index",
            *[r"damage study 1.2.1: searches find it by what it does not say"] * 4,
        ],
        [],
    ),
    "index: a term forgotten": Damage(
        change_packed(lambda t: t.delete("terms", term_key("00100020", "P1", "1.2.1"))),
        [r"damage study 1.2.1: searches by its attributes do not find it"],
        [],
    ),
    "index: a term invented": Damage(
        change_packed(lambda t: t.put("terms", term_key("00100020", "P9", "1.2.1"), b"")),
        [r"damage study 1.2.1: searches find it by what it does not say"],
        [],
    ),
    "index: another patient's name": Damage(
        change_packed(lambda t: replace_in(t, "studies", b"1.2.1", b"PATIENT^1", b"PATIENT^2")),
        [r"damage study 1.2.1: what the index says of it", r"damage study 1.2.1: searches by its attributes do not find it"],
        [],
    ),
    "index: another modality of a series": Damage(
        change_packed(lambda t: replace_in(t, "series", SERIES, b'"CT"', b'"MR"')),
        [r"damage series 1.2.1.1: its attributes in the index are not", r"damage study 1.2.1: what the index says of it"],
        [],
    ),
    "index: a wrong count": Damage(
        change_packed(lambda t: replace_in(t, "series", SERIES, b'"instances":4', b'"instances":5')),
        [r"damage series 1.2.1.1: its instances in the index are not"],
        [],
    ),
    "index: a wrong count of a pack": Damage(
        change_packed(lambda t: t.put("live", struct.pack(">I", 1), struct.pack(">QQ", 3, 1))),
        [r"damage pack \S*/000000000001-\S+: the index counts other instances in it than it has"],
        [],
    ),
    "index: rows of other instances": Damage(
        change_packed(lambda t: change_rows(t, b'"values":[0,1,2,', b'"values":[0,1,7,')),
        [r"damage series 1.2.1.1: what the index has for searches of its instances is not what"],
        [],
    ),
    "index: what instances do not say": Damage(
        change_packed(lambda t: change_rows(t, b"PATIENT^1", b"PATIENT^2")),
        [r"damage series 1.2.1.1: its attributes in the index are not", r"damage series 1.2.1.1: what the index has its instances say"],
        [],
    ),
    "index: a stale extent": Damage(
        change_packed(lambda t: replace_in(t, "series", SERIES, b'"extents":[[1,0,4,', b'"extents":[[1,0,3,')),
        [r"damage series 1.2.1.1: its instances in the index are not", r"damage series 1.2.1.1: the index is stale about its extent"],
        [],
    ),
    "index: block CRCs of no pack": Damage(
        change_packed(lambda t: t.put("blocks", struct.pack(">IH", 9, 0), bytes(4))),
        [r"damage index table blocks: has 3 entries, should have 2"],
        [],
    ),
    "index: too few block CRCs": Damage(change_packed(fewer_blocks), [FIRST + r"blocks \[2\]", *shares(BIG, *SMALL)], [BIG, *SMALL]),
}
