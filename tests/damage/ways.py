"""An archive to be damaged, and the ways in which it is."""

import re
import shutil
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from archive.dicom.json import dumps, loads
from archive.flow.home import Home
from archive.index.attribute_rows import pack_json, unpack_json
from archive.index.chunk import Chunk, InstanceRow, pack_chunk
from archive.index.environment import Transaction
from archive.index.packed import ORDINAL, PackedIndex, uid_entry
from archive.index.packed import Place as InstancePlace
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


def change_rows_of(t: Transaction, one: Object, change: Callable[[list[InstanceRow], int], None]) -> None:
    """Change the instances of a chunk; told is also which of them is the one."""
    (place,) = PackedIndex.places(t, one.sop_instance_uid)
    found = t.get_last("instances", ORDINAL.pack(*place))
    assert found is not None
    chunk = Chunk(found[1])
    rows = list(chunk)
    change(rows, next(n for n, row in enumerate(rows) if row.sop_instance_uid == one.sop_instance_uid))
    t.put("instances", found[0], pack_chunk(chunk.series, rows))


def stale_offset(t: Transaction) -> None:
    """The place of one is given for another."""

    def change(rows: list[InstanceRow], line: int) -> None:
        other = next(row for row in rows if row.sop_instance_uid == SMALL[1].sop_instance_uid)
        rows[line] = rows[line]._replace(offset=other.offset)

    change_rows_of(t, SMALL[0], change)


def stale_digest(t: Transaction) -> None:
    """It still says the right place: what it says of the content is wrong."""

    def change(rows: list[InstanceRow], line: int) -> None:
        rows[line] = rows[line]._replace(digest=bytes(16))

    change_rows_of(t, SMALL[0], change)


def forgotten(t: Transaction) -> None:
    def change(rows: list[InstanceRow], line: int) -> None:
        t.remove("uids", *uid_entry(SMALL[0].sop_instance_uid, InstancePlace(1, rows.pop(line).ordinal)))

    change_rows_of(t, SMALL[0], change)


def misnamed(t: Transaction) -> None:
    """What stands under the UID of one leads to another."""
    places = []

    def change(rows: list[InstanceRow], line: int) -> None:
        places.append(InstancePlace(1, rows[line].ordinal))

    for one in SMALL[:2]:
        change_rows_of(t, one, change)
    t.remove("uids", *uid_entry(SMALL[0].sop_instance_uid, places[0]))
    t.add("uids", *uid_entry(SMALL[0].sop_instance_uid, places[1]))


def rotten_hash(t: Transaction) -> None:
    """A bit of the hash in an entry of `uids`, which has no CRC: it is lost, as with a key."""

    def change(rows: list[InstanceRow], line: int) -> None:
        bucket, entry = uid_entry(SMALL[0].sop_instance_uid, InstancePlace(1, rows[line].ordinal))
        t.remove("uids", bucket, entry)
        t.add("uids", bucket, bytes([entry[0] ^ 1]) + entry[1:])

    change_rows_of(t, SMALL[0], change)


def invented(t: Transaction) -> None:
    """A row of an instance that the pack does not hold."""

    def change(rows: list[InstanceRow], line: int) -> None:
        rows.append(rows[line]._replace(ordinal=rows[-1].ordinal + 1, sequence=rows[line].sequence + 1000))

    change_rows_of(t, SMALL[2], change)


def fewer_blocks(t: Transaction) -> None:
    value = t.get("blocks", struct.pack(">IH", 1, 0))
    assert value is not None
    t.put("blocks", struct.pack(">IH", 1, 0), value[:-4])


SERIES = b"1.2.1\x001.2.1.1"


def replace_in(t: Transaction, table: str, key: bytes, old: bytes, new: bytes) -> None:
    value = t.get(table, key)
    assert value is not None
    text = dumps(unpack_json(value))
    assert old in text
    t.put(table, key, pack_json(loads(text.replace(old, new))))


def change_rows(t: Transaction, old: bytes, new: bytes) -> None:
    """A valid row, and not of these instances."""
    replace_in(t, "rows", ORDINAL.pack(1, 0), old, new)


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
