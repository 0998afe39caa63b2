"""Requests for storage commitment that are not answered yet: a durable file each, held by one process at a time.

A file is written and synced before its request is acknowledged, and removed once its requestor has taken the report; so a request
survives whatever happens in between. Whoever settles it holds a lock on the file; when that process dies, another one takes it. Who asks
again has a new file in the place of the old one, and with it a new holder: the former sees that it holds the file of that name no longer.
"""

import contextlib
import hashlib
import logging
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from archive.config import Settings
from archive.dicom.commitment import Reference
from archive.dicom.json import dumps, loads
from archive.disk import LOCAL_DISK, Disk
from archive.errors import BadInput, Duplicate, Exhausted
from archive.pack.segment import now_us

logger = logging.getLogger(__name__)

REQUESTS_MAX = 1000
"""Most requests that wait at once; each holds a file open."""
REQUESTS_OF_TITLE_MAX = 200
"""Of one calling AE title: who never hears its reports takes no room from the others."""

_SUFFIX, _PART = ".json", ".part"


def requests_folder(settings: Settings) -> Path:
    """Where they lie; not to be deleted while somebody waits for an answer."""
    return settings.node.data / "commitment"


@dataclass(frozen=True, slots=True)
class Request:
    """One request.

    Attributes
    ----------
    calling_ae_title : str
        Whom to tell.
    transaction_uid : str
        The requestor's name for it.
    received_us : int
        Microseconds since 1970 UTC.
    """

    calling_ae_title: str
    transaction_uid: str
    received_us: int
    references: list[Reference]

    @property
    def name(self) -> str:
        """Of its file: one for each transaction of a requestor. Files of earlier versions have no prefix."""
        key = f"{self.calling_ae_title}\0{self.transaction_uid}".encode()
        return f"{self.prefix}{hashlib.sha256(key).hexdigest()[:32]}{_SUFFIX}"

    @property
    def prefix(self) -> str:
        """Of the files of all requests of its requestor."""
        return hashlib.sha256(self.calling_ae_title.encode()).hexdigest()[:8] + "-"

    def to_bytes(self) -> bytes:
        row = {
            "calling_ae_title": self.calling_ae_title,
            "transaction_uid": self.transaction_uid,
            "received_us": self.received_us,
            "references": [list(one) for one in self.references],
        }
        return dumps(row) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> "Request":
        row = loads(data)
        references = [Reference(*one) for one in row["references"]]
        return cls(row["calling_ae_title"], row["transaction_uid"], row["received_us"], references)


@dataclass(frozen=True, slots=True)
class Held:
    """A request that this process holds."""

    request: Request
    path: Path
    descriptor: int


class CommitmentRequests:
    """The requests of a node, as one process sees them; any number of threads.

    Parameters
    ----------
    folder : Path
        `DIR/commitment`.
    """

    def __init__(self, folder: Path, disk: Disk = LOCAL_DISK) -> None:
        self._folder, self._disk = folder, disk
        self._unreadable: set[str] = set()

    def keep(self, calling_ae_title: str, transaction_uid: str, references: Sequence[Reference]) -> Held:
        """Make a request durable, and hold it, in the place of one that is the same and waits.

        Raises
        ------
        Duplicate
            The requestor has another request under this Transaction UID that waits.
        Exhausted
            Too many wait, of all or of this requestor, or the disk is full.
        """
        request = Request(calling_ae_title, transaction_uid, now_us(), list(references))
        self._disk.make_folder(self._folder)
        with self._alone():
            known = self._read(self._folder / request.name)
            if known is None:
                self._check_room(request)
            elif known.references != request.references:
                raise Duplicate(f"TransactionUID {transaction_uid} is in use for other instances")
            return self._write(request)

    def _check_room(self, request: Request) -> None:
        names = self.names()
        if len(names) >= REQUESTS_MAX:
            raise Exhausted(f"{REQUESTS_MAX} storage commitment requests wait already")
        if sum(name.startswith(request.prefix) for name in names) >= REQUESTS_OF_TITLE_MAX:
            raise Exhausted(f"{REQUESTS_OF_TITLE_MAX} storage commitment requests of {request.calling_ae_title} wait already")

    def _write(self, request: Request) -> Held:
        path = self._folder / request.name
        part = self._folder / f".{uuid.uuid4().hex}{_PART}"
        descriptor = self._disk.create(part)
        try:
            self._disk.write(descriptor, [request.to_bytes()], 0)
            self._disk.sync(descriptor)
            self._disk.lock(descriptor, shared=False)
            self._disk.rename(part, path)
            self._disk.sync_folder(self._folder)
        except BaseException:
            self._disk.close(descriptor)
            part.unlink(missing_ok=True)
            raise
        return Held(request, path, descriptor)

    def take(self) -> Iterator[Held]:
        """Hold every request that no process holds."""
        for name in self.names():
            path = self._folder / name
            try:
                descriptor = self._disk.open_write(path)
            except FileNotFoundError:
                continue
            held = None
            try:
                if self._disk.lock(descriptor, shared=False, wait=False) and _is_there(path, descriptor):
                    request = self._read(path)
                    held = Held(request, path, descriptor) if request is not None else None
            finally:
                if held is None:
                    self._disk.close(descriptor)
            if held is not None:
                yield held

    def forget(self, held: Held) -> None:
        """It is answered, or given up: gone, durably. What took its place stays."""
        with self._alone():
            if self.is_current(held):
                self._disk.unlink(held.path)
                self._disk.sync_folder(self._folder)
        self._disk.close(held.descriptor)

    def is_current(self, held: Held) -> bool:
        """Whether it is still to be answered: nobody asked again, and nobody removed it."""
        return _is_there(held.path, held.descriptor)

    def release(self, held: Held) -> None:
        """Let another process have it, or let go of what was asked again."""
        self._disk.close(held.descriptor)

    def names(self) -> list[str]:
        """Of the files of all requests."""
        return [name for name in self._disk.list_folder(self._folder) if name.endswith(_SUFFIX)]

    def references(self, name: str) -> list[Reference]:
        """What a request asks for, by its name; nothing where it is gone."""
        request = self._read(self._folder / name)
        return request.references if request is not None else []

    def _read(self, path: Path) -> Request | None:
        try:
            return Request.from_bytes(path.read_bytes())
        except FileNotFoundError:
            return None
        except (BadInput, KeyError, TypeError, ValueError) as error:
            if path.name not in self._unreadable:
                self._unreadable.add(path.name)
                logger.error("storage commitment request %s cannot be read; ask again, and remove it: %s", path, error)
            return None

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread or process gives a name to a request's file, or takes one away."""
        descriptor = self._disk.open_read(self._folder)
        try:
            self._disk.lock(descriptor, shared=False)
            yield
        finally:
            self._disk.close(descriptor)


def _is_there(path: Path, descriptor: int) -> bool:
    """Whether the file that is locked is still the one of that name."""
    try:
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except FileNotFoundError:
        return False
