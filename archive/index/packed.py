"""What packs hold: written by the packer alone, synced, rebuilt from pack tails.

Tables: `packs` id -> what the pack is; `names` node and number -> id; `blocks` id and part -> CRCs of its blocks; `instances` pack and
first ordinal -> a chunk of instances; `uids` hash of SOP Instance UID -> pack and ordinal; `series` study and series -> attributes and
extents; `rows` pack and first ordinal -> query attributes of an extent's instances; `studies` study -> attributes and its series; `terms`
value and study -> nothing; `deletions` revision -> deletion; `live` pack -> instances and bytes of it that are found; `superseded`
pack -> since when its content goes on in another; `codes` number -> UID or node; `changes` number -> what came; `meta`.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from archive.dicom.json import loads
from archive.errors import Damaged, NotFound
from archive.index.attribute_rows import INSTANCE_LEVEL, SERIES_LEVEL, unpack_json, unpack_rows
from archive.index.chunk import Chunk, InstanceRow
from archive.index.environment import Environment, Transaction
from archive.index.frame_table import join_frames, whole_frames
from archive.index.located import Located, PackPlace, SeriesKey, hash_uid
from archive.pack.descriptor import Deletion, Plan, Revision
from archive.pack.naming import PackName

TABLES = {
    "packs": False,
    "names": False,
    "blocks": False,
    "instances": False,
    "uids": True,
    "series": False,
    "rows": False,
    "studies": False,
    "terms": False,
    "series_studies": False,
    "deletions": False,
    "live": False,
    "superseded": False,
    "codes": False,
    "code_numbers": False,
    "changes": False,
    "meta": False,
}
BARE = frozenset({"uids"})
_ID = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
ORDINAL = struct.Struct(">II")
BLOCKS_OF_A_PART = 480
"""Two parts share a page of LMDB."""
_PLACE = struct.Struct(">IH")
_BUCKET_BYTES, _HASH_BYTES, _ENDING = 2, 3, 3
_LIVE = struct.Struct(">QQ")
_SUPERSEDED = struct.Struct(">QI")


@dataclass(frozen=True, slots=True)
class PackInfo:
    """A pack as the index knows it.

    Attributes
    ----------
    covered : int
        Bytes that its block CRCs cover.
    instances, held : int
        Revisions that it holds, deleted ones too, and their bytes.
    """

    pack_id: int
    name: PackName
    length: int
    covered: int
    plan_id: str
    node: str
    metadata_version: int
    instances: int
    created_us: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Extent:
    """A series' contiguous place in one pack; ordinals count the pack's instances from 0."""

    pack_id: int
    first: int
    instances: int
    metadata_offset: int
    metadata_length: int
    metadata_crc: int


@dataclass(frozen=True, slots=True)
class SeriesRecord:
    """A series as packs hold it: its attributes (patient, study and series level), its extents, how many distinct instances.

    Attributes
    ----------
    first_us : int
        Arrival of its oldest instance, microseconds since 1970 UTC.
    """

    key: SeriesKey
    attributes: dict[str, Any]
    extents: list[Extent]
    instances: int
    sop_classes: list[str]
    first_us: int = 0


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """A study as packs hold it: attributes of patient and study level, and its series."""

    study_instance_uid: str
    attributes: dict[str, Any]
    series_instance_uids: list[str]


_series_key = lru_cache(maxsize=1024)(SeriesKey.from_text)
_chunk = lru_cache(maxsize=64)(Chunk)
"""By its bytes: who looks an instance up looks its neighbours up too."""


class Place(NamedTuple):
    """Which instance of which pack."""

    pack_id: int
    ordinal: int


class PackedIndex:
    """Reading what packs hold. `archive.index.packed_writer` writes it."""

    def __init__(self, folder: Path, map_bytes_max: int) -> None:
        self.environment = Environment(folder, TABLES, map_bytes_max, synced=True, bare=BARE)
        self._packs: dict[int, PackInfo] = {}
        self._codes: dict[int, str] = {}

    # --- packs

    def pack(self, t: Transaction, pack_id: int) -> PackInfo:
        """
        Raises
        ------
        NotFound
            There is none: its content moved to another, or the index is damaged. Look the instance up again.
        """
        found = self._packs.get(pack_id)
        if found is None:
            value = t.get("packs", _ID.pack(pack_id))
            if value is None:
                raise NotFound(f"the index does not know pack {pack_id}; if that goes on, stop the node and run rebuild-index")
            found = self._info(pack_id, value)
            if not t.writing:
                self._packs[pack_id] = found
        return found

    @staticmethod
    def _info(pack_id: int, value: bytes) -> PackInfo:
        row = loads(value)
        return PackInfo(pack_id, PackName.parse(row.pop("name")), **row)

    def packs(self, t: Transaction) -> Iterator[PackInfo]:
        for key, value in t.scan("packs"):
            yield self._info(_ID.unpack(key)[0], value)

    def find_pack(self, t: Transaction, node: str, sequence: int) -> PackInfo | None:
        """By node name and number."""
        value = t.get("names", name_key(node, sequence))
        return None if value is None else self.pack(t, _ID.unpack(value)[0])

    def is_fulfilled(self, t: Transaction, node: str, plan: Plan) -> bool:
        """Whether a plan of a node needs nothing more: its pack is known, or was compacted since, for no number is passed over."""
        info = self.find_pack(t, node, plan.pack_sequence)
        return plan.pack_sequence < self.last_sequence(t, node) if info is None else info.plan_id == plan.plan_id

    def last_sequence(self, t: Transaction, node: str) -> int:
        """Highest pack number of a node, 0 without any."""
        prefix = node.encode() + b"\0"
        keys = t.keys_before("names", prefix, prefix + b"\xff" * 9, 1)
        return int(_NUMBER.unpack(keys[0][-8:])[0]) if keys else 0

    def sequences(self, t: Transaction, node: str) -> set[int]:
        """Numbers of a node's packs."""
        return {_NUMBER.unpack(key[-8:])[0] for key, _ in t.scan("names", name_key(node, 0)[:-8])}

    def last_revision(self, t: Transaction, node: str) -> int:
        """Highest sequence of a node (by its UUID) in any pack, 0 without any."""
        value = t.get("meta", b"sequence " + node.encode())
        return int(_NUMBER.unpack(value)[0]) if value else 0

    def is_deletion_known(self, t: Transaction, revision: Revision) -> bool:
        """Whether a deletion, by its own revision id, is in a pack."""
        return t.get("deletions", b"record " + str(revision).encode()) is not None

    def is_revision_deleted(self, t: Transaction, revision: Revision) -> bool:
        return t.get("deletions", str(revision).encode()) is not None

    def is_done(self, t: Transaction, deletion: Deletion) -> bool:
        """Whether all that a deletion names is deleted."""
        return all(self.is_revision_deleted(t, revision) for revision, _ in deletion.deleted)

    def deleted(self, t: Transaction) -> int:
        """Objects that were ever deleted."""
        return sum(not key.startswith(b"record ") for key, _ in t.scan("deletions"))

    def block_crcs(self, t: Transaction, pack_id: int) -> tuple[int, ...]:
        """CRC-32 of each 256 KiB of a pack."""
        parts = [value for _, value in t.scan("blocks", _ID.pack(pack_id))]
        if not parts:
            raise NotFound(f"the index has no block CRCs of pack {pack_id}; if that goes on, stop the node and run rebuild-index")
        value = b"".join(parts)
        return struct.unpack(f"<{len(value) // 4}I", value)

    def live(self, t: Transaction, pack_id: int) -> tuple[int, int]:
        """Instances of a pack that are found in it, and their bytes; what it holds besides is deleted or lies elsewhere now."""
        value = t.get("live", _ID.pack(pack_id))
        instances, length = _LIVE.unpack(value) if value else (0, 0)
        return instances, length

    def superseded(self, t: Transaction) -> list[tuple[PackInfo, int]]:
        """Packs whose content goes on in others, and since when this index knows (microseconds since 1970 UTC)."""
        return [(self.pack(t, _ID.unpack(key)[0]), _SUPERSEDED.unpack(value)[0]) for key, value in t.scan("superseded")]

    def is_superseded(self, t: Transaction, pack_id: int) -> bool:
        return t.get("superseded", _ID.pack(pack_id)) is not None

    def successor(self, t: Transaction, pack_id: int) -> PackInfo:
        """The last of the packs in which the content of a superseded one went on."""
        while value := t.get("superseded", _ID.pack(pack_id)):
            pack_id = _SUPERSEDED.unpack(value)[1]
        return self.pack(t, pack_id)

    # --- instances

    def code(self, t: Transaction, number: int) -> str:
        found = self._codes.get(number)
        if found is None:
            value = t.get("codes", _ID.pack(number))
            if value is None:
                raise Damaged(f"the index uses code {number} and does not know it; stop the node and run rebuild-index")
            found = value.decode()
            if not t.writing:
                self._codes[number] = found
        return found

    def _located(self, t: Transaction, pack_id: int, series: SeriesKey, row: InstanceRow) -> Located:
        kind = row.kind
        pixels = None
        if kind.is_whole:
            pixels = whole_frames(row.frames)
        elif kind.layout:
            pixels = join_frames(self.code(t, kind.layout), row.numbers)
        return Located(
            series.study_instance_uid,
            series.series_instance_uid,
            row.sop_instance_uid,
            self.code(t, kind.sop_class),
            self.code(t, kind.syntax),
            row.length,
            row.data_set_offset,
            row.crc,
            row.digest.hex(),
            Revision(self.code(t, kind.node), row.sequence),
            row.received_us,
            kind.further,
            pixels,
            PackPlace(pack_id, row.offset),
        )

    def _series_of(self, t: Transaction, chunk: Chunk) -> SeriesKey:
        return _series_key(self.code(t, chunk.series))

    def chunk(self, t: Transaction, place: Place) -> tuple[bytes, Chunk] | None:
        """The chunk that has an instance, if any has, with its key."""
        found = t.get_last("instances", ORDINAL.pack(*place))
        return None if found is None or found[0][:4] != _ID.pack(place.pack_id) else (found[0], _chunk(found[1]))

    def find(self, t: Transaction, sop_instance_uid: str) -> list[Located]:
        """Every revision under a SOP Instance UID."""
        return [located for _, located in self.find_places(t, sop_instance_uid)]

    def find_places(self, t: Transaction, sop_instance_uid: str) -> list[tuple[Place, Located]]:
        """Every revision under a SOP Instance UID, each with its place."""
        out = []
        for place in self.places(t, sop_instance_uid):
            found = self.chunk(t, place)
            row = found[1].find(place.ordinal) if found else None
            if found is None or row is None:
                raise Damaged(
                    f"the index names instance {place.ordinal} of pack {place.pack_id} and does not know it;"
                    " stop the node and run rebuild-index"
                )
            if row.sop_instance_uid == sop_instance_uid:
                out.append((place, self._located(t, place.pack_id, self._series_of(t, found[1]), row)))
            elif uid_entry(row.sop_instance_uid, place) != uid_entry(sop_instance_uid, place):
                raise Damaged(
                    f"the index has instance {place.ordinal} of pack {place.pack_id} under another UID; stop the node and run rebuild-index"
                )
        return out

    @staticmethod
    def places(t: Transaction, sop_instance_uid: str) -> list[Place]:
        """Where instances may lie that have a SOP Instance UID; a few have another one."""
        bucket, start = uid_entry(sop_instance_uid, Place(0, 0))
        return [Place(*_PLACE.unpack_from(v, _HASH_BYTES)) for v in t.get_from("uids", bucket, start, start[:_HASH_BYTES])]

    def instances(self, t: Transaction, extent: Extent) -> Iterator[tuple[int, Located]]:
        """Ordinal and instance of an extent, in the order of the pack; deleted ones are not there any more."""
        for chunk in self._chunks(t, extent):
            series = self._series_of(t, chunk)
            for row in chunk:
                if row.ordinal >= extent.first + extent.instances:
                    return
                yield row.ordinal, self._located(t, extent.pack_id, series, row)

    @staticmethod
    def _chunks(t: Transaction, extent: Extent) -> Iterator[Chunk]:
        start = ORDINAL.pack(extent.pack_id, extent.first)
        for key, value in t.scan("instances", start[:4], start):
            if ORDINAL.unpack(key)[1] >= extent.first + extent.instances:
                return
            yield _chunk(value)

    def span(self, t: Transaction, key: SeriesKey, place: PackPlace) -> tuple[int, int] | None:
        """Bytes of a pack, from and up to, through which the series lies that has an instance at a place; None where there is none."""
        record = self.series(t, key)
        for extent in record.extents if record else []:
            if extent.pack_id != place.pack_id:
                continue
            first = next(self._chunks(t, extent), None)
            last = self.chunk(t, Place(extent.pack_id, extent.first + extent.instances - 1))
            if first and last and (begin := first.row(0).offset) <= place.offset < (end := last[1].row(-1).end):
                return begin, end
        return None

    def rows(self, t: Transaction, extent: Extent) -> list[dict[str, Any]]:
        """Instance level query attributes of an extent, one for each ordinal; those that are alike are one object."""
        return self._rows(t, extent, INSTANCE_LEVEL)

    def said(self, t: Transaction, extent: Extent) -> list[dict[str, Any]]:
        """What each instance of an extent says of its series, study and patient, one for each ordinal; equal ones are one object."""
        return self._rows(t, extent, SERIES_LEVEL)

    @staticmethod
    def _rows(t: Transaction, extent: Extent, tags: frozenset[str]) -> list[dict[str, Any]]:
        value = t.get("rows", ORDINAL.pack(extent.pack_id, extent.first))
        return [{}] * extent.instances if value is None else unpack_rows(value, tags)

    # --- series and studies

    def series(self, t: Transaction, key: SeriesKey) -> SeriesRecord | None:
        value = t.get("series", key.to_bytes())
        if value is None:
            return None
        row = unpack_json(value)
        return SeriesRecord(
            key, row["attributes"], [Extent(*e) for e in row["extents"]], row["instances"], row["sop_classes"], row["first"]
        )

    def series_keys(self, t: Transaction, start: bytes, most: int) -> list[SeriesKey]:
        """Keys of series from a place on, in order."""
        return [SeriesKey.from_bytes(key) for key, _ in islice(t.scan("series", b"", start), most)]

    def study(self, t: Transaction, study_instance_uid: str) -> StudyRecord | None:
        value = t.get("studies", study_instance_uid.encode())
        if value is None:
            return None
        row = unpack_json(value)
        return StudyRecord(study_instance_uid, row["attributes"], row["series"])

    def studies_of_series(self, t: Transaction, series_instance_uid: str) -> list[str]:
        """Studies in which a series of this UID is known; more than one only where a sender made a mistake."""
        prefix = f"{series_instance_uid}\0".encode()
        return [key[len(prefix) :].decode() for key, _ in t.scan("series_studies", prefix)]

    def counts(self, t: Transaction) -> dict[str, int]:
        """Of packs, studies, series and revisions of instances."""
        return {"packs": t.count("packs"), "studies": t.count("studies"), "series": t.count("series"), "instances": t.count("uids")}

    def bytes_packed(self, t: Transaction) -> int:
        """Length of all packs together."""
        value = t.get("meta", b"bytes")
        return int(_NUMBER.unpack(value)[0]) if value else 0


def name_key(node: str, sequence: int) -> bytes:
    return node.encode() + b"\0" + _NUMBER.pack(sequence)


def uid_entry(sop_instance_uid: str, place: Place) -> tuple[bytes, bytes]:
    """Key and value of table `uids`. The instance itself proves the value: it has a UID of this hash, or the value is wrong.

    UIDs that differ in their end alone have one key, so that those of a series lie together and a pack changes few pages.
    """
    bucket, found = hash_uid(sop_instance_uid[:-_ENDING]), hash_uid(sop_instance_uid)
    return bucket[:_BUCKET_BYTES], found[:_HASH_BYTES] + _PLACE.pack(*place)
