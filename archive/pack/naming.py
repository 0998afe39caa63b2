"""Names of packs and of the entries in them: made and parsed here alone."""

import re
from dataclasses import dataclass

from archive.errors import NotUnderstood

PACKS_PER_FOLDER = 1000
"""HDFS allows 1,048,576 entries in a folder; a thousand packs of 256 MiB are 256 GiB."""

_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]{0,63})/([0-9]{9})/([0-9]{12})-([0-9a-f]{64})\.zip")
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
FOLDER_NAME = re.compile(r"[0-9]{9}")

CONTENT_INDEX_ENTRY = "pack/content-index.jsonl.gz"
BLOCK_CRCS_ENTRY = "pack/block-crcs.bin"


@dataclass(frozen=True, slots=True, order=True)
class PackName:
    """`<node>/<sequence div 1000, 9 digits>/<sequence, 12 digits>-<SHA-256 of the file>.zip`."""

    node: str
    sequence: int
    digest: str

    def __str__(self) -> str:
        return f"{folder_of(self.node, self.sequence)}/{self.sequence:012d}-{self.digest}.zip"

    @classmethod
    def parse(cls, text: str) -> "PackName":
        """
        Raises
        ------
        NotUnderstood
            It is no pack's name.
        """
        found = _NAME.fullmatch(text)
        if not found or int(found[2]) != int(found[3]) // PACKS_PER_FOLDER:
            raise NotUnderstood(f"{text} is not a pack's name")
        return cls(found[1], int(found[3]), found[4])


def folder_of(node: str, sequence: int) -> str:
    return f"{node}/{sequence // PACKS_PER_FOLDER:09d}"


def in_flight_name(node: str, sequence: int) -> str:
    """Where a pack lies until it is whole; no reader looks there."""
    return f".inflight/{node}-{sequence:012d}.zip"


QUARANTINE = ".quarantine"


def quarantined_name(name: PackName) -> str:
    """Where a pack lies that was taken out of service; no reader looks there."""
    return f"{QUARANTINE}/{name.node}-{name.sequence:012d}-{name.digest}.zip"


def is_quarantined_of(file: str, node: str) -> bool:
    """Whether a file in quarantine was a pack of a node."""
    return file.rsplit("-", 2)[0] == node


def instance_entry(study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str, revision: str = "") -> str:
    """Entry of an instance; a further revision under the same UID carries its revision id `<node uuid>-<sequence>`."""
    suffix = f".r{revision}" if revision else ""
    return f"{study_instance_uid}/{series_instance_uid}/{sop_instance_uid}{suffix}.dcm"


def metadata_entry(study_instance_uid: str, series_instance_uid: str) -> str:
    return f"{study_instance_uid}/{series_instance_uid}/metadata.json.gz"
