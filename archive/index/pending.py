"""What is accepted and not yet packed: not synced, derived from the journal, made anew at every start.

Tables: `records` sequence -> place and descriptor; `uids` hash of SOP Instance UID -> sequences; `series` study and series ->
sequences; `states` study and series -> first and last arrival, bytes, count; `segments` segment and sequence -> nothing;
`deletions`, `plans`, `voids`, `set_aside` by number; `refused` segment and sequence -> nothing; `totals`.
"""

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from archive.dicom.json import dumps, loads
from archive.index.environment import Environment, Transaction
from archive.index.located import DIGEST_CHARACTERS, Located, SeriesKey, hash_uid
from archive.pack.descriptor import Deletion, InstanceDescriptor, Plan, Void
from archive.pack.journal import Location

TABLES = {
    "records": False,
    "uids": True,
    "series": True,
    "states": False,
    "segments": False,
    "deletions": False,
    "plans": False,
    "voids": False,
    "refused": False,
    "set_aside": False,
    "totals": False,
}
_NUMBER = struct.Struct(">Q")
_PLACE = struct.Struct(">QQB")
_PAIR = struct.Struct(">QQ")
_STATE = struct.Struct("<QQQQ")
TOTALS, PROBLEM, UNFOLLOWED = b"totals", b"problem", b"unfollowed"


@dataclass(frozen=True, slots=True)
class SeriesState:
    """How a series that is not packed yet stands.

    Attributes
    ----------
    first_us, last_us : int
        Arrival of its oldest and newest record, microseconds since 1970 UTC.
    length : int
        Bytes of its objects.
    """

    key: SeriesKey
    first_us: int
    last_us: int
    length: int
    instances: int


@dataclass(frozen=True, slots=True)
class Pending:
    """A record of the journal that waits to be packed."""

    location: Location
    descriptor: InstanceDescriptor
    further: bool

    def located(self) -> Located:
        d = self.descriptor
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
            self.further,
            d.pixels,
            self.location,
            d.block_crcs,
        )


class PendingIndex:
    """The part of the index that ingest writes to and the packer takes from."""

    def __init__(self, folder: Path, map_bytes_max: int) -> None:
        self.environment = Environment(folder, TABLES, map_bytes_max, synced=False)

    # --- writing

    def add(self, t: Transaction, location: Location, descriptor: InstanceDescriptor, encoded: bytes, further: bool) -> None:
        """An accepted object can be found from here on; `encoded` is its descriptor as the journal has it."""
        number = _NUMBER.pack(descriptor.revision.sequence)
        key = SeriesKey(descriptor.study_instance_uid, descriptor.series_instance_uid).to_bytes()
        t.put("records", number, _PLACE.pack(*location, further) + encoded)
        t.add("uids", hash_uid(descriptor.sop_instance_uid), number)
        t.add("series", key, number)
        t.put("segments", _PAIR.pack(location.segment, descriptor.revision.sequence), b"")
        state = t.get("states", key)
        now = descriptor.received_us
        first, last, length, count = _STATE.unpack(state) if state else (now, now, 0, 0)
        t.put("states", key, _STATE.pack(min(first, now), max(last, now), length + descriptor.length, count + 1))
        self._count(t, 1, descriptor.length)

    def add_deletion(self, t: Transaction, location: Location, deletion: Deletion) -> None:
        number = _NUMBER.pack(deletion.revision.sequence)
        t.put("deletions", number, _PLACE.pack(*location, 0) + dumps(deletion.to_json()))
        t.put("segments", _PAIR.pack(location.segment, deletion.revision.sequence), b"")

    def add_plan(self, t: Transaction, location: Location, sequence: int, plan: Plan) -> None:
        t.put("plans", _NUMBER.pack(sequence), _PLACE.pack(*location, 0) + plan.to_bytes())
        t.put("segments", _PAIR.pack(location.segment, sequence), b"")

    def refuse(self, t: Transaction, records: Iterable[tuple[int, int]]) -> None:
        """Records (segment and sequence) that are written and not to be taken in; no void record names them yet."""
        for pair in records:
            t.put("refused", _PAIR.pack(*pair), b"")

    def add_void(self, t: Transaction, location: Location, sequence: int, void: Void) -> None:
        """A durable void record; what it names is refused for good."""
        t.put("voids", _NUMBER.pack(sequence), _PLACE.pack(*location, 0) + void.to_bytes())
        t.put("segments", _PAIR.pack(location.segment, sequence), b"")
        for pair in void.voided:
            t.delete("refused", _PAIR.pack(*pair))

    def remove(self, t: Transaction, sequences: list[int]) -> None:
        """These are packed and committed, or void: they are found elsewhere now."""
        for sequence in sequences:
            number = _NUMBER.pack(sequence)
            value = t.get("records", number)
            if value is None:
                continue
            pending = self._pending(value)
            d = pending.descriptor
            key = SeriesKey(d.study_instance_uid, d.series_instance_uid).to_bytes()
            t.delete("records", number)
            t.remove("uids", hash_uid(d.sop_instance_uid), number)
            t.remove("series", key, number)
            t.delete("segments", _PAIR.pack(pending.location.segment, sequence))
            t.delete("set_aside", number)
            state = t.get("states", key)
            first, last, length, count = _STATE.unpack(state) if state else (0, 0, 0, 1)
            if count <= 1:
                t.delete("states", key)
            else:
                t.put("states", key, _STATE.pack(first, last, length - d.length, count - 1))
            self._count(t, -1, -d.length)

    def remove_small(self, t: Transaction, table: str, sequences: list[int]) -> None:
        """Deletions, plans or void records that are done with."""
        for sequence in sequences:
            value = t.get(table, _NUMBER.pack(sequence))
            if value is not None:
                t.delete(table, _NUMBER.pack(sequence))
                t.delete("segments", _PAIR.pack(_PLACE.unpack_from(value)[0], sequence))

    def move(self, t: Transaction, sequence: int, location: Location) -> None:
        """A record lies elsewhere now; one that is gone meanwhile stays gone."""
        number = _NUMBER.pack(sequence)
        value = t.get("records", number)
        if value is None:
            return
        segment, _, further = _PLACE.unpack_from(value)
        t.put("records", number, _PLACE.pack(*location, further) + value[_PLACE.size :])
        t.delete("segments", _PAIR.pack(segment, sequence))
        t.put("segments", _PAIR.pack(location.segment, sequence), b"")

    def set_aside(self, t: Transaction, sequence: int, reason: str) -> None:
        """What cannot be packed stays where it is, by name."""
        t.put("set_aside", _NUMBER.pack(sequence), reason.encode())

    def keep(self, t: Transaction, segment: int) -> None:
        """A segment that holds damage is not released, whatever else was in it."""
        t.put("segments", _PAIR.pack(segment, 0), b"")

    def set_problem(self, t: Transaction, text: str) -> None:
        """Why packing does not go on, for people; empty while it does."""
        t.put("totals", PROBLEM, text.encode())

    def problem(self, t: Transaction) -> str:
        """Why packing does not go on; empty while it does."""
        return (t.get("totals", PROBLEM) or b"").decode()

    def set_unfollowed(self, t: Transaction, unfollowed: bool) -> None:
        """Whether the tier may hold packs that the index does not know: the packer has to look before it writes one."""
        t.put("totals", UNFOLLOWED, bytes([unfollowed]))

    def unfollowed(self, t: Transaction) -> bool:
        return t.get("totals", UNFOLLOWED) == b"\1"

    def _count(self, t: Transaction, instances: int, length: int) -> None:
        before = t.get("totals", TOTALS)
        a, b = _PAIR.unpack(before) if before else (0, 0)
        t.put("totals", TOTALS, _PAIR.pack(a + instances, b + length))

    # --- reading

    @staticmethod
    def _pending(value: bytes) -> Pending:
        segment, offset, further = _PLACE.unpack_from(value)
        return Pending(Location(segment, offset), InstanceDescriptor.from_json(loads(value[_PLACE.size :])), bool(further))

    def get(self, t: Transaction, sequence: int) -> Pending | None:
        value = t.get("records", _NUMBER.pack(sequence))
        return None if value is None else self._pending(value)

    def _get_all(self, t: Transaction, table: str, key: bytes) -> Iterator[Pending]:
        for number in t.get_all(table, key):
            found = self.get(t, _NUMBER.unpack(number)[0])
            if found is not None:
                yield found

    def find(self, t: Transaction, sop_instance_uid: str) -> list[Pending]:
        """Every revision under a SOP Instance UID."""
        return [p for p in self._get_all(t, "uids", hash_uid(sop_instance_uid)) if p.descriptor.sop_instance_uid == sop_instance_uid]

    def instances(self, t: Transaction, key: SeriesKey) -> list[Pending]:
        """Records of a series, by sequence."""
        return sorted(self._get_all(t, "series", key.to_bytes()), key=lambda p: p.descriptor.revision.sequence)

    def first_instance(self, t: Transaction, key: SeriesKey) -> Pending | None:
        """The record that speaks for its series; cheaper than all."""
        numbers = t.get_all("series", key.to_bytes())
        return self.get(t, min(_NUMBER.unpack(n)[0] for n in numbers)) if numbers else None

    def states(self, t: Transaction, study_instance_uid: str = "") -> list[SeriesState]:
        """Every series that has records here (of one study, where it is named)."""
        prefix = f"{study_instance_uid}\0".encode() if study_instance_uid else b""
        return [SeriesState(SeriesKey.from_bytes(k), *_STATE.unpack(v)) for k, v in t.scan("states", prefix)]

    def deletions(self, t: Transaction) -> Iterator[Deletion]:
        """Deletions that no pack holds yet, by sequence."""
        return (Deletion.from_json(loads(v[_PLACE.size :])) for _, v in t.scan("deletions"))

    def plans(self, t: Transaction) -> list[tuple[int, Plan]]:
        """Plans that are not done with, each with its own sequence."""
        return [(_NUMBER.unpack(k)[0], Plan.from_bytes(v[_PLACE.size :])) for k, v in t.scan("plans")]

    def refused(self, t: Transaction) -> list[tuple[int, int]]:
        """Segment and sequence of records that were refused and are not void yet."""
        return [_PAIR.unpack(key) for key, _ in t.scan("refused")]

    def voids(self, t: Transaction) -> Iterator[tuple[int, Location, Void]]:
        """Void records that are needed yet, each with its own sequence and place."""
        for key, value in t.scan("voids"):
            segment, offset, _ = _PLACE.unpack_from(value)
            yield _NUMBER.unpack(key)[0], Location(segment, offset), Void.from_bytes(value[_PLACE.size :])

    def aside(self, t: Transaction) -> dict[int, str]:
        """Sequences that are set aside, and why."""
        return {_NUMBER.unpack(k)[0]: v.decode() for k, v in t.scan("set_aside")}

    def needed(self, t: Transaction, segment: int) -> bool:
        """Whether any record of a segment waits here."""
        return next(t.scan("segments", _NUMBER.pack(segment)), None) is not None

    def sequences(self, t: Transaction, segment: int) -> list[int]:
        """Records of a segment that wait here; 0 where it is kept for its damage."""
        return [_PAIR.unpack(key)[1] for key, _ in t.scan("segments", _NUMBER.pack(segment))]

    def totals(self, t: Transaction) -> tuple[int, int]:
        """Instances and bytes that wait."""
        value = t.get("totals", TOTALS)
        instances, length = _PAIR.unpack(value) if value else (0, 0)
        return instances, length
