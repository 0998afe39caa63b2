"""What packs hold: written by the packer alone, synced, rebuilt from pack tails.

Tables: `packs` id -> what the pack is; `names` node and number -> id; `blocks` id -> CRCs of its blocks; `instances` pack and
ordinal -> one instance; `uids` hash of SOP Instance UID -> pack and ordinal; `series` study and series -> attributes and extents;
`rows` pack and first ordinal -> query attributes of an extent's instances; `studies` study -> attributes and its series; `terms`
value and study -> nothing; `deletions` revision -> deletion; `live` pack -> instances and bytes of it that are found; `superseded`
pack -> since when its content goes on in another; `codes` number -> UID or node; `changes` number -> what came; `meta`.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from archive.dicom.json import dumps, loads
from archive.errors import Damaged, NotFound
from archive.index.environment import Environment, Transaction
from archive.index.located import DIGEST_CHARACTERS, Located, PackPlace, SeriesKey, hash_uid
from archive.pack.descriptor import Plan, Revision
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
_ID = struct.Struct(">I")
_NUMBER = struct.Struct(">Q")
_ORDINAL = struct.Struct(">II")
_LIVE = struct.Struct(">QQ")
_SUPERSEDED = struct.Struct(">QI")
_INSTANCE = struct.Struct("<QQIIQQIIIIBB16s")


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


class PackedIndex:
    """Reading what packs hold. `archive.index.packed_writer` writes it."""

    def __init__(self, folder: Path, map_bytes_max: int) -> None:
        self.environment = Environment(folder, TABLES, map_bytes_max, synced=True)
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

    def last_revision(self, t: Transaction, node: str) -> int:
        """Highest sequence of a node (by its UUID) in any pack, 0 without any."""
        value = t.get("meta", b"sequence " + node.encode())
        return int(_NUMBER.unpack(value)[0]) if value else 0

    def is_deletion_known(self, t: Transaction, revision: Revision) -> bool:
        """Whether a deletion, by its own revision id, is in a pack."""
        return t.get("deletions", b"record " + str(revision).encode()) is not None

    def is_revision_deleted(self, t: Transaction, revision: Revision) -> bool:
        return t.get("deletions", str(revision).encode()) is not None

    def deleted(self, t: Transaction) -> int:
        """Objects that were ever deleted."""
        return sum(not key.startswith(b"record ") for key, _ in t.scan("deletions"))

    def block_crcs(self, t: Transaction, pack_id: int) -> tuple[int, ...]:
        """CRC-32 of each 256 KiB of a pack."""
        value = t.get("blocks", _ID.pack(pack_id))
        if value is None:
            raise NotFound(f"the index has no block CRCs of pack {pack_id}; if that goes on, stop the node and run rebuild-index")
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

    def _located(self, t: Transaction, pack_id: int, value: bytes) -> Located:
        offset, length, data_set_offset, crc, sequence, received, node, key, sop_class, syntax, further, uid_length, digest = (
            _INSTANCE.unpack_from(value)
        )
        rest = value[_INSTANCE.size :]
        series = SeriesKey.from_bytes(self.code(t, key).encode())
        pixels = rest[uid_length:]
        return Located(
            series.study_instance_uid,
            series.series_instance_uid,
            rest[:uid_length].decode(),
            self.code(t, sop_class),
            self.code(t, syntax),
            length,
            data_set_offset,
            crc,
            digest.hex(),
            Revision(self.code(t, node), sequence),
            received,
            bool(further),
            loads(pixels) if pixels else None,
            PackPlace(pack_id, offset),
        )

    def find(self, t: Transaction, sop_instance_uid: str) -> list[Located]:
        """Every revision under a SOP Instance UID."""
        return [located for _, located in self.find_places(t, sop_instance_uid)]

    def find_places(self, t: Transaction, sop_instance_uid: str) -> list[tuple[bytes, Located]]:
        """Every revision under a SOP Instance UID, each with its key in `instances`."""
        out = []
        for value in t.get_all("uids", hash_uid(sop_instance_uid)):
            pack_id, ordinal = _ORDINAL.unpack(value)
            row = t.get("instances", _ORDINAL.pack(pack_id, ordinal))
            if row is None:
                raise Damaged(
                    f"the index names instance {ordinal} of pack {pack_id} and does not know it; stop the node and run rebuild-index"
                )
            found = self._located(t, pack_id, row)
            if found.sop_instance_uid == sop_instance_uid:
                out.append((value, found))
        return out

    def instances(self, t: Transaction, extent: Extent) -> Iterator[tuple[int, Located]]:
        """Ordinal and instance of an extent, in the order of the pack; deleted ones are not there any more."""
        start = _ORDINAL.pack(extent.pack_id, extent.first)
        for key, value in t.scan("instances", start[:4], start):
            ordinal = _ORDINAL.unpack(key)[1]
            if ordinal >= extent.first + extent.instances:
                return
            yield ordinal, self._located(t, extent.pack_id, value)

    def span(self, t: Transaction, key: SeriesKey, place: PackPlace) -> tuple[int, int] | None:
        """Bytes of a pack, from and up to, through which the series lies that has an instance at a place; None where there is none."""
        record = self.series(t, key)
        for extent in record.extents if record else []:
            if extent.pack_id != place.pack_id:
                continue
            ordinals = range(extent.first, extent.first + extent.instances)
            first = self._first_known(t, extent.pack_id, ordinals)
            last = self._first_known(t, extent.pack_id, reversed(ordinals))
            if first and last and first.place[1] <= place.offset < last.place[1] + last.length:
                return first.place[1], last.place[1] + last.length
        return None

    def _first_known(self, t: Transaction, pack_id: int, ordinals: Iterable[int]) -> Located | None:
        for ordinal in ordinals:
            value = t.get("instances", _ORDINAL.pack(pack_id, ordinal))
            if value is not None:
                return self._located(t, pack_id, value)
        return None

    def rows(self, t: Transaction, extent: Extent) -> list[dict[str, Any]]:
        """Instance level query attributes of an extent, one for each ordinal."""
        return self._rows(t, extent)[1]

    def _rows(self, t: Transaction, extent: Extent) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, dict[str, Any]]]:
        value = t.get("rows", _ORDINAL.pack(extent.pack_id, extent.first))
        if value is None:
            return {}, [{}] * extent.instances, {}
        base, rows, others = loads(zlib.decompress(value))
        return base, rows, others

    def said(self, t: Transaction, extent: Extent) -> list[dict[str, Any]]:
        """What each instance of an extent says of its series, study and patient, one for each ordinal; equal ones are one object."""
        base, rows, others = self._rows(t, extent)
        out = [base] * len(rows)
        for line, different in others.items():
            out[int(line)] = laid_over(base, different)
        return out

    # --- series and studies

    def series(self, t: Transaction, key: SeriesKey) -> SeriesRecord | None:
        value = t.get("series", key.to_bytes())
        if value is None:
            return None
        row = loads(value)
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
        row = loads(value)
        return StudyRecord(study_instance_uid, row["attributes"], row["series"])

    def studies_of_series(self, t: Transaction, series_instance_uid: str) -> list[str]:
        """Studies in which a series of this UID is known; more than one only where a sender made a mistake."""
        prefix = f"{series_instance_uid}\0".encode()
        return [key[len(prefix) :].decode() for key, _ in t.scan("series_studies", prefix)]

    def counts(self, t: Transaction) -> dict[str, int]:
        """Of packs, studies, series and revisions of instances."""
        return {"packs": t.count("packs"), "studies": t.count("studies"), "series": t.count("series"), "instances": t.count("instances")}

    def bytes_packed(self, t: Transaction) -> int:
        """Length of all packs together."""
        value = t.get("meta", b"bytes")
        return int(_NUMBER.unpack(value)[0]) if value else 0


def laid_over(base: dict[str, Any], different: dict[str, Any]) -> dict[str, Any]:
    """`base` itself where nothing differs; None takes an attribute away."""
    return {tag: value for tag, value in {**base, **different}.items() if value is not None} if different else base


def name_key(node: str, sequence: int) -> bytes:
    return node.encode() + b"\0" + _NUMBER.pack(sequence)


def pack_instance(located: Located, codes: tuple[int, int, int, int]) -> bytes:
    """Value of `instances`; codes are of node, series, SOP class and transfer syntax."""
    assert isinstance(located.place, PackPlace)
    uid = located.sop_instance_uid.encode()
    node, series, sop_class, syntax = codes
    fixed = _INSTANCE.pack(
        located.place.offset,
        located.length,
        located.data_set_offset,
        located.crc,
        located.revision.sequence,
        located.received_us,
        node,
        series,
        sop_class,
        syntax,
        located.further,
        len(uid),
        bytes.fromhex(located.digest[:DIGEST_CHARACTERS]),
    )
    return fixed + uid + (dumps(located.pixels) if located.pixels else b"")
