"""What is known of a record besides its payload: written once at ingest, kept in journal, pack and (in part) index."""

from dataclasses import dataclass, field
from typing import Any

from archive.dicom.json import dumps, loads
from archive.errors import Damaged
from archive.pack.checksum import DIGEST_KIND, DIGESTS


@dataclass(frozen=True, slots=True)
class Revision:
    """Identity of one accepted object: the node that took it and its sequence there."""

    node: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.node}-{self.sequence}"


@dataclass(frozen=True, slots=True)
class InstanceDescriptor:
    """One accepted object.

    Attributes
    ----------
    revision : Revision
        `node` is the node's UUID as 32 hex digits.
    data_set_offset : int
        Length of preamble and file meta information, in bytes.
    length : int
        Of the whole Part 10 object, in bytes.
    crc : int
        CRC-32 of the whole Part 10 object: the ZIP entry's own.
    digest : str
        Of the data set alone, 64 hex digits. Two objects are the same where it and the transfer syntax are equal.
    received_us : int
        Microseconds since 1970 UTC.
    source : str
        Who sent it, as `dimse:TITLE@ADDRESS` or `import:PATH`.
    attributes : dict
        Query attributes as DICOM JSON (PS3.18 F); text is UTF-8, decoded by the object's own Specific Character Set.
    pixels : dict or None
        Where the frames lie (`archive.dicom.frames.PixelData.to_json`).
    block_crcs : list of int or None
        Of each 256 KiB of the payload, for large journal payloads only.
    digest_kind : str
        One of `archive.pack.checksum.DIGESTS`.
    """

    revision: Revision
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    data_set_offset: int
    length: int
    crc: int
    digest: str
    received_us: int
    source: str
    attributes: dict[str, Any] = field(default_factory=dict)
    pixels: dict[str, Any] | None = None
    block_crcs: list[int] | None = None
    attributes_version: int = 1
    digest_kind: str = DIGEST_KIND

    def to_json(self) -> dict[str, Any]:
        out: dict[str, Any] = {
            "node": self.revision.node,
            "sequence": self.revision.sequence,
            "study_instance_uid": self.study_instance_uid,
            "series_instance_uid": self.series_instance_uid,
            "sop_instance_uid": self.sop_instance_uid,
            "sop_class_uid": self.sop_class_uid,
            "transfer_syntax_uid": self.transfer_syntax_uid,
            "data_set_offset": self.data_set_offset,
            "length": self.length,
            "crc32": f"{self.crc:08x}",
            self.digest_kind: self.digest,
            "received_us": self.received_us,
            "source": self.source,
            "attributes_version": self.attributes_version,
            "attributes": self.attributes,
        }
        if self.pixels is not None:
            out["pixels"] = self.pixels
        if self.block_crcs is not None:
            out["block_crcs"] = "".join(f"{c:08x}" for c in self.block_crcs)
        return out

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "InstanceDescriptor":
        """The descriptor; keys that this version does not know are left aside.

        Raises
        ------
        Damaged
            A key is missing or of another kind.
        """
        try:
            blocks = row.get("block_crcs")
            kind = DIGEST_KIND if DIGEST_KIND in row else next((kind for kind in DIGESTS if kind in row), DIGEST_KIND)
            return cls(
                Revision(row["node"], int(row["sequence"])),
                row["study_instance_uid"],
                row["series_instance_uid"],
                row["sop_instance_uid"],
                row["sop_class_uid"],
                row["transfer_syntax_uid"],
                int(row["data_set_offset"]),
                int(row["length"]),
                int(row["crc32"], 16),
                row[kind],
                int(row["received_us"]),
                row["source"],
                row["attributes"],
                row.get("pixels"),
                None if blocks is None else [int(blocks[i : i + 8], 16) for i in range(0, len(blocks), 8)],
                int(row["attributes_version"]),
                kind,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise Damaged(f"a descriptor lacks or mistypes {error}") from error


@dataclass(frozen=True, slots=True)
class Plan:
    """What goes into the pack with a number, in which order: fsynced before the pack's first byte.

    Attributes
    ----------
    plan_id : str
        UUID, 32 hex digits; stands in the pack.
    pack_sequence : int
        The pack's number under the node's name.
    sequences : list of int
        Journal records, in the order of the pack.
    """

    plan_id: str
    pack_sequence: int
    sequences: list[int]

    def to_bytes(self) -> bytes:
        return dumps({"plan_id": self.plan_id, "pack_sequence": self.pack_sequence, "sequences": self.sequences})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Plan":
        row = loads(data)
        return cls(row["plan_id"], row["pack_sequence"], row["sequences"])


@dataclass(frozen=True, slots=True)
class Void:
    """Records that were written and refused, so that nobody takes them in.

    Attributes
    ----------
    voided : list of (int, int)
        Segment and sequence of each.
    """

    voided: list[tuple[int, int]]

    @property
    def sequences(self) -> set[int]:
        return {sequence for _, sequence in self.voided}

    def is_needed(self, own: int, segments: set[int]) -> bool:
        """Whether any of these segments holds what it voids; its own goes with it."""
        return any(segment != own and segment in segments for segment, _ in self.voided)

    def to_bytes(self) -> bytes:
        return dumps({"voided": self.voided})

    @classmethod
    def from_bytes(cls, data: bytes) -> "Void":
        return cls([(segment, sequence) for segment, sequence in loads(data)["voided"]])


@dataclass(frozen=True, slots=True)
class Deletion:
    """Objects that are deleted, by revision id, so that their order against a re-send is never guessed.

    Attributes
    ----------
    revision : Revision
        Of the deletion itself.
    source : str
        Who asked for it.
    deleted : list of (Revision, str)
        Revision id and SOP Instance UID of each object.
    """

    revision: Revision
    deleted_us: int
    source: str
    deleted: list[tuple[Revision, str]]

    def to_json(self) -> dict[str, Any]:
        return {
            "node": self.revision.node,
            "sequence": self.revision.sequence,
            "deleted_us": self.deleted_us,
            "source": self.source,
            "deleted": [[r.node, r.sequence, uid] for r, uid in self.deleted],
        }

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Deletion":
        deleted = [(Revision(node, sequence), uid) for node, sequence, uid in row["deleted"]]
        return cls(Revision(row["node"], row["sequence"]), row["deleted_us"], row["source"], deleted)
