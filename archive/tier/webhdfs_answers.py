"""What WebHDFS answers, as values: file statuses, block locations, checksums, and its exceptions as our errors."""

from typing import Any, NamedTuple

from archive.errors import ArchiveError, NotFound, Unavailable

TRY_ANOTHER = frozenset({"RetriableException", "SafeModeException", "StandbyException"})
"""A NameNode that starts, that is read-only, that is not the active one: another one, or the same a moment later, may do it."""

_QUOTA = frozenset(
    {"DSQuotaExceededException", "NSQuotaExceededException", "QuotaByStorageTypeExceededException", "QuotaExceededException"}
)
_DENIED = frozenset({"AccessControlException", "AuthorizationException", "SecurityException"})


class FileStatus(NamedTuple):
    """A row of GETFILESTATUS or LISTSTATUS.

    Attributes
    ----------
    name : str
        Last part of the path; empty where the file itself was asked for.
    length : int
        In bytes.
    file_id : int
        Of the inode; it stays when the file is renamed and is never given again.
    block_bytes : int
        Size of the file's blocks.
    modified_us : int
        By the NameNode's clock; when it was created, while it is written.
    data_units, cell_bytes : int
        Of its erasure coding; 0 where the file is replicated.
    """

    name: str
    is_folder: bool
    length: int
    file_id: int
    block_bytes: int
    modified_us: int
    data_units: int
    cell_bytes: int

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "FileStatus":
        policy = row.get("ecPolicyObj") or {}
        return cls(
            str(row["pathSuffix"]),
            row["type"] == "DIRECTORY",
            int(row["length"]),
            int(row["fileId"]),
            int(row["blockSize"]),
            int(row["modificationTime"]) * 1000,
            int(policy.get("numDataUnits", 0)),
            int(policy.get("cellSize", 0)),
        )


class Block(NamedTuple):
    """A row of GETFILEBLOCKLOCATIONS.

    Attributes
    ----------
    replicas : int
        DataNodes that are live and have it.
    is_corrupt : bool
        Every replica that the NameNode knows is bad.
    """

    length: int
    replicas: int
    is_corrupt: bool

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Block":
        return cls(int(row["length"]), len(set(row["names"])), bool(row["corrupt"]))


class Checksum(NamedTuple):
    """GETFILECHECKSUM of a replicated file.

    Attributes
    ----------
    algorithm : str
        As `MD5-of-262144MD5-of-512CRC32C`.
    chunk_bytes : int
        Bytes that one CRC covers.
    md5 : bytes
        Over the MD5s of the blocks.
    """

    algorithm: str
    chunk_bytes: int
    md5: bytes

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> "Checksum":
        value = bytes.fromhex(str(row["bytes"]))
        return cls(str(row["algorithm"]), int.from_bytes(value[:4], "big"), value[12:28])


def exception_of(body: Any) -> tuple[str, str]:
    """Name and first line of the `RemoteException` in an answer's JSON; two empty strings where there is none."""
    remote = body.get("RemoteException") if isinstance(body, dict) else None
    if not isinstance(remote, dict):
        return "", ""
    lines = str(remote.get("message") or "").splitlines()
    return str(remote.get("exception", "")), lines[0] if lines else ""


def error_of(what: str, http_status: int, exception: str, message: str) -> ArchiveError:
    """Our error for an answer that is no success.

    Only a `FileNotFoundException` says that a file is not there: a bare 404 may come from any web server at that address.
    """
    if exception == "FileNotFoundException":
        return NotFound(f"{what}: {message}")
    if exception in _QUOTA:
        return Unavailable(f"{what}: a quota of HDFS is reached: {message}", 60)
    if exception in _DENIED or http_status == 401:
        return Unavailable(f"{what}: HDFS does not allow it: {message or 'authentication failed'}", 60)
    if not exception:
        return Unavailable(f"{what}: HTTP status {http_status} without a WebHDFS exception")
    return Unavailable(f"{what}: {exception}: {message}")
