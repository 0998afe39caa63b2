"""Files of an HDFS: what NameNodes and DataNodes do together, and what became of it where an answer is in doubt."""

import contextlib
import json
import threading
import time
from collections.abc import Iterable, Iterator
from urllib.parse import urlsplit

from archive.config import WebhdfsSection
from archive.disk import Bytes
from archive.errors import Damaged, NotFound, Unavailable
from archive.tier.webhdfs_answers import Block, Checksum, FileStatus
from archive.tier.webhdfs_datanodes import LET_GO_SECONDS, Body, DataNodes
from archive.tier.webhdfs_locations import Locations
from archive.tier.webhdfs_namenodes import NameNodes

PIECE_BYTES = 256 << 10
"""Small enough to stay in a processor's cache until it was checked and written."""
ANSWER_BYTES_MAX = 1 << 16
FAILURES_MAX = 5
"""In a row, of a transfer with a DataNode; each is followed by a try with another one."""


class HdfsFiles:
    """Files by absolute path.

    Parameters
    ----------
    addresses : list of str
        `HOST:PORT` of the NameNodes.
    """

    def __init__(self, addresses: list[str], settings: WebhdfsSection) -> None:
        self._name_nodes = NameNodes(addresses, settings)
        self._data_nodes = DataNodes(settings)
        self._settings = settings
        self._locations = Locations()
        self._reads = threading.BoundedSemaphore(settings.reads_max)

    # --- what is there

    def status(self, path: str, patience_seconds: float | None = None) -> FileStatus:
        patience = self._settings.read_patience_seconds if patience_seconds is None else patience_seconds
        answer = self._name_nodes.ask("GETFILESTATUS", path, patience)
        with _understood(path):
            return FileStatus.from_json(answer.json["FileStatus"])

    def status_or_none(self, path: str, patience_seconds: float) -> FileStatus | None:
        with contextlib.suppress(NotFound):
            return self.status(path, patience_seconds)
        return None

    def list_folder(self, path: str, after: str = "") -> Iterator[FileStatus]:
        """Rows in order of their names, from the first behind `after`; none where there is no such folder."""
        remaining = True
        while remaining:
            parameters = {"startAfter": after} if after else {}
            try:
                answer = self._name_nodes.ask("LISTSTATUS_BATCH", path, self._settings.read_patience_seconds, **parameters)
            except NotFound:
                return
            with _understood(path):
                listing = answer.json["DirectoryListing"]
                rows = [FileStatus.from_json(row) for row in listing["partialListing"]["FileStatuses"]["FileStatus"]]
                remaining = bool(rows) and int(listing["remainingEntries"]) > 0
            for row in rows:
                if row.name:  # a file answers itself, without a name
                    yield row
                    after = row.name

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below a folder."""
        for row in self.list_folder(folder):
            path = f"{folder.rstrip('/')}/{row.name}"
            if row.is_folder:
                yield from self.walk(path)
            else:
                yield path

    def blocks(self, path: str, length: int) -> list[Block]:
        parameters = {"offset": 0, "length": max(length, 1)}
        answer = self._name_nodes.ask("GETFILEBLOCKLOCATIONS", path, self._settings.write_patience_seconds, **parameters)
        with _understood(path):
            return [Block.from_json(row) for row in answer.json["BlockLocations"]["BlockLocation"]]

    def checksum(self, path: str) -> Checksum:
        """Of a file's replicas, from the DataNodes' own records; NameNodes choose one of them anew each time and leave none out."""
        until = time.monotonic() + self._settings.write_patience_seconds
        failures = 0
        while True:
            location = self._name_nodes.ask("GETFILECHECKSUM", path, self._settings.write_patience_seconds).location
            try:
                with self._data_nodes.get(location) as body, _understood(path):
                    return Checksum.from_json(json.loads(body.read(ANSWER_BYTES_MAX))["FileChecksum"])
            except Unavailable:
                failures += 1
                if failures >= FAILURES_MAX and time.monotonic() > until:
                    raise
            time.sleep(min(0.1 * failures, 1.0))

    def check(self, root: str) -> None:
        """Raises `Unavailable` where nothing can be written now: safe mode, or no DataNode to write to."""
        self.make_folder(root, 0.0)
        self._name_nodes.ask("CREATE", f"{root.rstrip('/')}/.inflight/check")  # names a DataNode and makes nothing

    # --- changes

    def make_folder(self, path: str, patience_seconds: float | None = None) -> None:
        patience = self._settings.write_patience_seconds if patience_seconds is None else patience_seconds
        answer = self._name_nodes.ask("MKDIRS", path, patience, permission="750")
        with _understood(path):
            made = bool(answer.json["boolean"])
        if not made:
            raise Unavailable(f"HDFS does not make the folder {path} and does not say why")

    def delete(self, path: str) -> None:
        """Gone; an absent one is no error."""
        self._name_nodes.ask("DELETE", path, self._settings.read_patience_seconds, recursive="false")

    def rename(self, old: str, new: str) -> bool:
        """False where HDFS did not, for instance since `new` is there."""
        answer = self._name_nodes.ask("RENAME", old, destination=new)
        with _understood(old):
            return bool(answer.json["boolean"])

    def set_storage_policy(self, path: str, policy: str) -> None:
        self._name_nodes.ask("SETSTORAGEPOLICY", path, self._settings.write_patience_seconds, storagepolicy=policy)

    # --- bytes

    def write(self, path: str, length: int, pieces: Iterator[Bytes], block_bytes: int = 0) -> None:
        """A new file, where there is none; each DataNode syncs a block to its disk when the block is closed.

        A DataNode that does not answer is replaced by another as long as no piece was taken; what is broken off later is not sent again,
        since the pieces are gone.
        """
        parameters: dict[str, str | int] = {"overwrite": "false", "createflag": "create,sync_block", "permission": "640"}
        if block_bytes:
            parameters["blocksize"] = block_bytes
        taken = _Taken(pieces)
        excluded: list[str] = []
        while True:
            location = self._locate("CREATE", path, self._settings.write_patience_seconds, excluded, **parameters)
            try:
                return self._data_nodes.put(location, length, taken, lambda: self._wait_until_there(path))
            except Unavailable:
                if taken.any or len(excluded) == FAILURES_MAX:
                    raise
            excluded.append(self._transfer_address(location))

    def _wait_until_there(self, path: str) -> None:
        """A DataNode that lost its client opens the file within moments, or never; only what is there can be deleted."""
        until = time.monotonic() + LET_GO_SECONDS
        with contextlib.suppress(Unavailable):
            while self.status_or_none(path, 0.0) is None and time.monotonic() < until:
                time.sleep(0.1)

    def stream(self, path: str, offset: int, length: int) -> Iterator[memoryview]:
        """Exactly these bytes in pieces, each of them valid until the next; goes on at another DataNode where one breaks off.

        Raises
        ------
        Damaged
            The file ends before, or all replicas of a block are bad.
        """
        if not self._reads.acquire(timeout=self._settings.read_patience_seconds):
            raise Unavailable(f"webhdfs.reads_max = {self._settings.reads_max} reads run already")
        try:
            yield from self._stream(path, offset, length)
        finally:
            self._reads.release()

    def _stream(self, path: str, offset: int, length: int) -> Iterator[memoryview]:
        if not length:
            self._check_range(path, offset, length)
        end, failures = offset + length, 0
        buffer = memoryview(bytearray(min(PIECE_BYTES, length)))
        excluded: list[str] = []
        until = time.monotonic() + self._settings.read_patience_seconds
        known = self._locations.get(path, offset, length)
        while offset < end:
            location, begin = known, offset
            try:
                location = known or self._locate("OPEN", path, 0.0, excluded, offset=offset, length=end - offset)
                with self._data_nodes.get(location) as body:
                    _check_length(body, end - offset)
                    self._locations.put(path, offset, location)
                    while offset < end:
                        got = body.readinto(buffer[: end - offset])
                        if not got:
                            raise Unavailable(f"DataNode {urlsplit(location).netloc} ended {end - offset} bytes early, {path}")
                        offset, failures = offset + got, 0
                        until = time.monotonic() + self._settings.read_patience_seconds
                        yield buffer[:got]
            except (NotFound, Unavailable) as error:
                self._locations.drop(path, begin)
                if known:  # It was right a moment ago; a NameNode knows what is.
                    known = ""
                    if isinstance(error, Unavailable):
                        excluded.append(self._transfer_address(location))
                    continue
                if isinstance(error, NotFound):
                    raise
                self._check_range(path, offset, end - offset)
                failures += 1
                if failures == FAILURES_MAX or time.monotonic() > until:
                    raise
                if location:
                    excluded.append(self._transfer_address(location))
                time.sleep(0.05 * 2**failures)

    def _check_range(self, path: str, offset: int, length: int) -> None:
        """Raises `Damaged` where it is the file's fault, not the network's, that a range was not got."""
        rests = self.status(path).length
        if rests < offset + length:
            raise Damaged(f"{path} ends at {rests}, wanted {length} bytes at {offset}")
        if length and any(block.is_corrupt for block in self.blocks(path, rests)):
            raise Damaged(f"{path}: every replica of one of its blocks is bad")

    def _locate(self, operation: str, path: str, patience_seconds: float, excluded: Iterable[str], **parameters: str | int) -> str:
        """The address at a DataNode that a NameNode redirects to, if it can none of those that failed before."""
        if excluded:
            with contextlib.suppress(Unavailable):
                return self._name_nodes.ask(operation, path, 0.0, excludedatanodes=",".join(sorted(set(excluded))), **parameters).location
        return self._name_nodes.ask(operation, path, patience_seconds, **parameters).location

    def _transfer_address(self, location: str) -> str:
        """How a NameNode wants a DataNode named that is to be left out."""
        parts = urlsplit(location)
        return self._name_nodes.live_data_nodes().get(parts.netloc, parts.hostname or "")


class _Taken:
    """Pieces, none of them made before a DataNode is ready for it; knows whether that was so."""

    def __init__(self, pieces: Iterator[Bytes]) -> None:
        self._pieces = pieces
        self.any = False

    def __iter__(self) -> Iterator[Bytes]:
        self.any = True
        yield from self._pieces


@contextlib.contextmanager
def _understood(path: str) -> Iterator[None]:
    try:
        yield
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise Unavailable(f"{path}: HDFS answers what is not understood: {error!r}") from error


def _check_length(body: Body, wanted: int) -> None:
    """OPEN beyond the end of a file is clamped without a word."""
    if body.length != wanted:
        raise Unavailable(f"a DataNode answers {body.length} bytes, asked for {wanted}")
