"""The table of named damages: how each is done, what `verify` has to find, what is refused."""

import re
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from archive.flow.home import Home
from archive.index.environment import Transaction
from archive.index.located import hash_uid
from archive.index.packed import _INSTANCE, _ORDINAL
from archive.index.terms import term_key
from archive.pack.frame import HEADER_BYTES, RECORD_MAGIC
from archive.pack.locator import LOCATOR_BYTES, Locator
from archive.pack.naming import PackName
from tests.flow.objects import NAME, Object, living, make_object, pack_files, settings_of

BIG = make_object(1, 1, 0, pixel_bytes=700_000)
SMALL = [make_object(1, 1, number) for number in (1, 2, 3)]
OTHER = make_object(2, 1, 1)
"""In a pack of its own."""
WAITING = [make_object(3, 1, number) for number in (1, 2, 3)]
STREAMED = make_object(4, 1, 1, pixel_bytes=600_000)
"""In a journal segment of its own."""
ALL = [BIG, *SMALL, OTHER, *WAITING, STREAMED]


class Place(NamedTuple):
    """The archive on its disk."""

    data: Path

    @property
    def pack(self) -> Path:
        """BIG, then SMALL, in three blocks of 256 KiB; the last holds the end of BIG and all else."""
        return pack_files(self.data)[0]

    @property
    def segment(self) -> Path:
        """OTHER's and the packs' plans lie before WAITING."""
        return next(path for path in (self.data / "journal/sealed").iterdir() if WAITING[0].data_set in path.read_bytes())

    @property
    def large_segment(self) -> Path:
        return next(path for path in (self.data / "journal/sealed").iterdir() if STREAMED.data_set in path.read_bytes())

    def at(self, one: Object) -> int:
        """Where an object's data set lies in its journal segment."""
        return self.segment.read_bytes().index(one.data_set)

    def header_at(self, one: Object) -> int:
        return self.segment.read_bytes().rindex(RECORD_MAGIC, 0, self.at(one))


@dataclass(frozen=True)
class Damage:
    """One way to be damaged.

    Attributes
    ----------
    do : callable
        Does it.
    findings : list of str
        Patterns over `severity item: detail`, one for each finding.
    refused : list of Object
        What is not served any more; all else is.
    hidden : bool
        Metadata may be missing though no object is.
    """

    do: Callable[[Place], None]
    findings: list[str]
    refused: list[Object]
    hidden: bool = False


def flip(file: Path, at: int, bit: int = 0x10) -> None:
    with file.open("r+b") as opened:
        opened.seek(at)
        byte = opened.read(1)[0]
        opened.seek(at)
        opened.write(bytes([byte ^ bit]))


def wipe(file: Path, at: int, length: int = 512) -> None:
    """A sector that reads as another one's bytes."""
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write((b"another sector " * (length // 15 + 1))[:length])


def locator(pack: Path) -> Locator:
    return Locator.unpack(pack.read_bytes()[-LOCATOR_BYTES:])


def flip_pack(where: Callable[[bytes, Locator], int]) -> Callable[[Place], None]:
    def do(place: Place) -> None:
        place.pack.chmod(0o640)
        flip(place.pack, where(place.pack.read_bytes(), locator(place.pack)))

    return do


def wipe_pack(where: Callable[[bytes, Locator], int], length: int = 512) -> Callable[[Place], None]:
    def do(place: Place) -> None:
        place.pack.chmod(0o640)
        wipe(place.pack, where(place.pack.read_bytes(), locator(place.pack)), length)

    return do


def middle_of(one: Object) -> Callable[[bytes, Locator], int]:
    return lambda pack, _: pack.index(one.data_set) + len(one.data_set) // 2


def cut_pack(place: Place) -> None:
    with place.pack.open("r+b") as file:
        file.truncate(place.pack.stat().st_size - 1000)


def grow_pack(place: Place) -> None:
    with place.pack.open("ab") as file:
        file.write(b"x")


def foreign_file(place: Place) -> None:
    (place.data / "packs" / NAME / "Thumbs.db").write_bytes(b"not ours")


def pack_of_one_number(place: Place) -> None:
    """Another pack under the number of the first, as two nodes of one name write it."""
    other = pack_files(place.data)[1]
    digest = PackName.parse(str(other.relative_to(place.data / "packs"))).digest
    shutil.copy(other, place.data / "packs" / str(PackName(NAME, 1, digest)))


def pack_of_another_node(place: Place) -> None:
    """Whole, and not in our index yet."""
    elsewhere = place.data.with_name("elsewhere")
    with living(settings_of(elsewhere, node={"data": elsewhere, "name": "other-node", "tier": f"file://{place.data}/packs"})) as life:
        life.send(make_object(8, 1, 1))
        life.packer.pack_now()


def garbage_with_the_name_of_a_pack(place: Place) -> None:
    (place.data / "packs" / str(PackName(NAME, 77, "0" * 64))).write_bytes(b"garbage" * 100)


def flip_index(part: str, needle: bytes) -> Callable[[Place], None]:
    """A bit of every place of a database file that holds these bytes: old pages hold them too."""

    def do(place: Place) -> None:
        file = place.data / "index" / part / "data.mdb"
        content = file.read_bytes()
        places = [found.start() for found in re.finditer(re.escape(needle), content)]
        assert places
        for at in places:
            flip(file, at + len(needle) - 1, 0x01)

    return do


def change_packed(change: Callable[[Transaction], None]) -> Callable[[Place], None]:
    """A change of the index that its CRCs know nothing of: stale, not rotten."""

    def do(place: Place) -> None:
        with Home(settings_of(place.data)) as home, home.index.packed.environment.writing() as t:
            change(t)

    return do


def row_of(t: Transaction, one: Object) -> tuple[bytes, bytes]:
    (key,) = t.get_all("uids", hash_uid(one.sop_instance_uid))
    value = t.get("instances", key)
    assert value is not None
    return key, value


def stale_offset(t: Transaction) -> None:
    """The place of one is given for another."""
    key, value = row_of(t, SMALL[0])
    _, other = row_of(t, SMALL[1])
    t.put("instances", key, other[:8] + value[8:])


def stale_digest(t: Transaction) -> None:
    """It still says the right place: what it says of the content is wrong."""
    key, value = row_of(t, SMALL[0])
    t.put("instances", key, value[: _INSTANCE.size - 16] + bytes(16) + value[_INSTANCE.size :])


def forgotten(t: Transaction) -> None:
    key, _ = row_of(t, SMALL[0])
    t.remove("uids", hash_uid(SMALL[0].sop_instance_uid), key)
    t.delete("instances", key)


def invented(t: Transaction) -> None:
    """A row of an instance that the pack does not hold."""
    key, value = row_of(t, SMALL[2])
    fields = list(_INSTANCE.unpack_from(value))
    fields[4] += 1000  # the sequence of its revision id
    pack_id, ordinal = _ORDINAL.unpack(key)
    t.put("instances", _ORDINAL.pack(pack_id, ordinal + 1), _INSTANCE.pack(*fields) + value[_INSTANCE.size :])


def fewer_blocks(t: Transaction) -> None:
    value = t.get("blocks", struct.pack(">I", 1))
    assert value is not None
    t.put("blocks", struct.pack(">I", 1), value[:-4])


SERIES = b"1.2.1\x001.2.1.1"


def replace_in(t: Transaction, table: str, key: bytes, old: bytes, new: bytes) -> None:
    value = t.get(table, key)
    assert value is not None and old in value
    t.put(table, key, value.replace(old, new))


def change_rows(t: Transaction, old: bytes, new: bytes) -> None:
    """A valid row, and not of these instances."""
    key = _ORDINAL.pack(1, 0)
    value = t.get("rows", key)
    assert value is not None
    content = zlib.decompress(value)
    assert old in content
    t.put("rows", key, zlib.compress(content.replace(old, new), 6))


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
        flip_index("packed", SMALL[1].sop_instance_uid.encode() + b'{"tag'),
        [r"damage index table instances: .*does not match its CRC", r"damage index of pack \S*/000000000001-\S+: .*does not match its CRC"],
        SMALL[1:2],
    ),
    "index: value of a pack": Damage(
        flip_index("packed", f'"name":"{NAME}/000000000/000000000001'.encode()),
        [r"damage index table packs: .*does not match its CRC"] * 2 + [r"damage index of the tier: .*does not match its CRC"],
        [BIG, *SMALL],
    ),
    "index: pending value": Damage(
        flip_index("pending", b'"sop_instance_uid":"' + WAITING[1].sop_instance_uid.encode()),
        [r"damage index table records: .*does not match its CRC", r"damage index of the journal: .*does not match its CRC"],
        WAITING[1:2],
    ),
    "index: a stale place": Damage(
        change_packed(stale_offset), [rf"damage instance {SMALL[0].sop_instance_uid}: the index is stale"], SMALL[:1]
    ),
    "index: a stale digest": Damage(change_packed(stale_digest), [rf"damage instance {SMALL[0].sop_instance_uid}: the index is stale"], []),
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
        change_packed(lambda t: change_rows(t, b'"Value":[2]', b'"Value":[7]')),
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
    "index: too few block CRCs": Damage(change_packed(fewer_blocks), [FIRST + r"blocks \[2\]", *shares(BIG, *SMALL)], [BIG, *SMALL]),
}


def torn_record(place: Place) -> None:
    """The header's first half is written, nothing else of it: a node died."""
    content = place.segment.read_bytes()
    last = content.rindex(RECORD_MAGIC)
    header = content[last : last + HEADER_BYTES]
    payload, descriptor = struct.unpack_from("<QQ", header, 32)
    end = (last + HEADER_BYTES + payload + descriptor + 63) // 64 * 64
    with place.segment.open("r+b") as file:
        file.seek(end)
        file.write(header[:100])
