"""What a lookup gives: an instance, and where its bytes lie now."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol, TypeVar

from archive.pack.descriptor import Revision
from archive.pack.journal import Location


class PackPlace(NamedTuple):
    """Payload of an instance in a pack: the pack's number in this index, and a byte offset in the file."""

    pack_id: int
    offset: int


class SeriesKey(NamedTuple):
    """A series in its study."""

    study_instance_uid: str
    series_instance_uid: str

    def to_bytes(self) -> bytes:
        return f"{self.study_instance_uid}\0{self.series_instance_uid}".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "SeriesKey":
        return cls.from_text(data.decode())

    @classmethod
    def from_text(cls, text: str) -> "SeriesKey":
        study, _, series = text.partition("\0")
        return cls(study, series)


@dataclass(frozen=True, slots=True)
class Located:
    """One revision of an instance.

    Attributes
    ----------
    length : int
        Of the Part 10 object, in bytes.
    data_set_offset : int
        Where its data set starts, in bytes.
    crc : int
        CRC-32 of the Part 10 object.
    digest : str
        First 32 hex digits of the digest of the data set.
    further : bool
        Another revision was known under this UID when this one came.
    pixels : dict or None
        Where the frames lie, as JSON.
    place : Location or PackPlace
        In the journal or in a pack.
    """

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    length: int
    data_set_offset: int
    crc: int
    digest: str
    revision: Revision
    received_us: int
    further: bool
    pixels: dict[str, Any] | None
    place: Location | PackPlace
    block_crcs: list[int] | None = None

    @property
    def series_key(self) -> SeriesKey:
        return SeriesKey(self.study_instance_uid, self.series_instance_uid)


class Arrived(Protocol):
    """What came at some time under a revision id."""

    @property
    def revision(self) -> Revision: ...

    @property
    def received_us(self) -> int: ...


Arrival = TypeVar("Arrival", bound=Arrived)


def in_order_of_arrival(revisions: Iterable[Arrival]) -> list[Arrival]:
    """The first accepted first.

    Of one node the sequences tell, for its clock may have been set back between two; between nodes the times do.
    """
    found = sorted(revisions, key=lambda i: i.revision.sequence)
    if len({i.revision.node for i in found}) < 2:
        return found
    latest: dict[str, int] = {}
    keys: dict[Revision, tuple[int, str, int]] = {}
    found.sort(key=lambda i: i.revision.node)
    for one in found:
        node, sequence = one.revision.node, one.revision.sequence
        latest[node] = max(latest.get(node, 0), one.received_us)
        keys[one.revision] = (latest[node], node, sequence)
    return sorted(found, key=lambda i: keys[i.revision])


DIGEST_CHARACTERS = 32


@lru_cache(maxsize=256)  # Each object that comes in asks four times.
def hash_uid(uid: str) -> bytes:
    """Eight bytes that stand for a UID as a key; a match is proved by the record, which holds the UID itself."""
    return hashlib.blake2b(uid.encode(), digest_size=8).digest()
