"""Who this node is: a name and a UUID, made at first start, kept in the data folder, written into every pack."""

import uuid
from dataclasses import dataclass
from pathlib import Path

from archive.config import NodeSection
from archive.dicom.json import dumps, loads
from archive.disk import LOCAL_DISK, Disk
from archive.errors import WrongUse

FILE = "node.json"


@dataclass(frozen=True, slots=True)
class Identity:
    """
    Attributes
    ----------
    name : str
        The node's name: the folder of its packs.
    node : str
        Its UUID as 32 hex digits.
    """

    name: str
    node: str

    @property
    def node_bytes(self) -> bytes:
        return bytes.fromhex(self.node)


def identify(data: Path, wanted: str, disk: Disk = LOCAL_DISK) -> Identity:
    """The identity that lives in the data folder; made there where there is none.

    Raises
    ------
    WrongUse
        The folder belongs to a node of another name than the one that was asked for.
    """
    path = data / FILE
    try:
        row = loads(path.read_bytes())
    except FileNotFoundError:
        return _make(data, wanted, disk)
    if wanted not in (row["name"], NodeSection().name):
        raise WrongUse(f"{data} belongs to node {row['name']}, not to {wanted}")
    return Identity(row["name"], row["node"])


def delete_left_over(data: Path, disk: Disk = LOCAL_DISK) -> list[str]:
    """Remove what a start that was cut off left half written; only while no other process starts. Returns the names."""
    names = [name for name in disk.list_folder(data) if name.startswith(f"{FILE}.") and name.endswith(".part")]
    for name in names:
        disk.unlink(data / name)
    return names


def _make(data: Path, name: str, disk: Disk) -> Identity:
    identity = Identity(name, uuid.uuid4().hex)
    disk.make_folder(data)
    part = data / f"{FILE}.{identity.node}.part"
    fd = disk.create(part)
    disk.write(fd, [dumps({"name": identity.name, "node": identity.node}) + b"\n"], 0)
    disk.sync(fd)
    disk.close(fd)
    disk.rename(part, data / FILE)
    disk.sync_folder(data)
    return identity
