"""A tier in HDFS, spoken to over WebHDFS: no Java, no native library, through whatever lets HTTP pass.

What WebHDFS does not do by itself is done here: exact lengths, a file that becomes visible whole, an answer that was lost, bytes that
are proven at rest, replicas that are counted.
"""

import contextlib
import hashlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from archive.config import WebhdfsSection
from archive.disk import Bytes
from archive.errors import ArchiveError, BadInput, Damaged, NotFound, NotUnderstood, Unavailable
from archive.pack.alongside import Alongside
from archive.pack.naming import (
    FOLDER_NAME,
    NODE_NAME,
    PACKS_PER_FOLDER,
    QUARANTINE,
    PackName,
    folder_of,
    in_flight_name,
    is_quarantined_of,
    quarantined_name,
)
from archive.tier.protocol import NumberTaken, PackEntry
from archive.tier.webhdfs_answers import Block, Checksum, FileStatus
from archive.tier.webhdfs_checksum import FileChecksum, is_comparable
from archive.tier.webhdfs_files import HdfsFiles

logger = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
IN_FLIGHT = ".inflight"
ASKED_AT_ONCE = 2
"""Questions to NameNodes, of one pack that is written."""


class WebHdfsTier:
    """Packs as files below one folder of an HDFS.

    Parameters
    ----------
    addresses : list of str
        `HOST:PORT` of the NameNodes' HTTP servers.
    root : str
        Absolute path of the folder.
    """

    storage_classes: tuple[str, ...] = ("hot", "warm", "cold")

    def __init__(self, addresses: list[str], root: str, settings: WebhdfsSection) -> None:
        self._settings = settings
        self._files = HdfsFiles(addresses, settings)
        self._root = root.rstrip("/")
        self.url = f"webhdfs://{','.join(addresses)}{self._root}"
        self._made: set[str] = set()

    def _path(self, name: PackName | str) -> str:
        return f"{self._root}/{name}"

    # --- taking

    def put(
        self,
        node: str,
        sequence: int,
        length: int,
        chunks: Iterable[Bytes],
        final: Callable[[str], PackName],
        between: Callable[[], None] = lambda: None,
    ) -> PackName:
        # A name of its own for each try: what a DataNode still does for an earlier one reaches another file.
        part = self._path(f"{in_flight_name(node, sequence)}.{secrets.token_hex(4)}")
        passed = _Passed(length)
        try:
            self._make_folder(IN_FLIGHT)
            with ThreadPoolExecutor(ASKED_AT_ONCE, "put") as asking, Alongside(passed.look) as looking:
                free = asking.submit(self._refuse_taken, node, sequence)

                def sent() -> Iterator[Bytes]:
                    free.result()  # Asked while a DataNode opens the file.
                    # Only now: where the number is taken, what is in flight under it may belong to another one.
                    rest = [
                        asking.submit(self._drop_earlier, node, sequence, part),
                        asking.submit(self._make_folder, folder_of(node, sequence)),
                    ]
                    for piece in looking.through(passed.through(chunks)):
                        for one in rest:
                            if one.done():
                                one.result()  # What fails is not worth the rest of a pack.
                        yield piece
                    for one in rest:  # While the DataNodes still sync the last of it.
                        one.result()

                self._files.write(part, length, sent(), self._settings.block_bytes)
                looking.finish()
                name = final(passed.digest)
                status = self._check_at_rest(asking, part, name, passed, between)
            self._refuse_taken(node, sequence)  # Again, and last: there was time enough for another one to publish.
            self._publish(part, name, status)
        except BaseException:
            self._drop(part)
            raise
        return name

    def _make_folder(self, folder: str) -> None:
        if folder not in self._made:
            self._files.make_folder(self._path(folder))
            self._made.add(folder)

    def _refuse_taken(self, node: str, sequence: int) -> None:
        for entry in self._entries(node, folder_of(node, sequence), sequence):
            if entry.name.sequence == sequence:
                raise NumberTaken(f"pack number {sequence} of node {node} is taken by {entry.name}: do two nodes write under one name?")
            break

    def _check_at_rest(
        self, asking: ThreadPoolExecutor, part: str, name: PackName, passed: "_Passed", between: Callable[[], None]
    ) -> FileStatus:
        """What rests is what was streamed, and as often as it should be."""
        blocks = asking.submit(self._files.blocks, part, passed.length)
        status = self._files.status(part, self._settings.write_patience_seconds)
        if status.length != passed.length or passed.digest != name.digest:
            raise Damaged(f"pack {name} is not at rest what was written ({passed.length} of {passed.length_wanted} bytes)")
        answered = self._files.checksum(part) if not status.data_units else None
        if answered is None or not is_comparable(answered):
            self._read_back(part, name, answered, between)
        elif answered.md5 != passed.checksum.md5(status.block_bytes):
            raise Damaged(f"pack {name} is not at rest what was written: the DataNodes' checksums differ from ours")
        self._wait_for_replicas(part, name, status, blocks.result())
        return status

    def _read_back(self, part: str, name: PackName, answered: Checksum | None, between: Callable[[], None]) -> None:
        """Where DataNodes keep another kind of checksum (other chunks, erasure coding) the bytes themselves are looked at."""
        logger.info("pack %s is read back: HDFS answers %s for it", name, answered.algorithm if answered else "no checksum that compares")
        whole = hashlib.sha256()
        length = self._files.status(part).length
        for piece in self._files.stream(part, 0, length):
            whole.update(piece)
            between()
        if whole.hexdigest() != name.digest:
            raise Damaged(f"pack {name} is not at rest what was written: read back, its digest is {whole.hexdigest()}")

    def _wait_for_replicas(self, part: str, name: PackName, status: FileStatus, blocks: list[Block]) -> None:
        """HDFS closes a file when one DataNode has each of its blocks."""
        until = time.monotonic() + self._settings.commit_seconds
        pause = 0.01
        while True:
            short = [block for block in blocks if block.replicas < self._replicas_wanted(block.length, status)]
            if not short and sum(block.length for block in blocks) == status.length:
                return
            if time.monotonic() + pause > until:
                raise Unavailable(
                    f"pack {name}: {len(short)} of {len(blocks)} blocks have fewer live replicas than "
                    f"webhdfs.replicas_min = {self._settings.replicas_min} after {self._settings.commit_seconds:g} s"
                )
            time.sleep(pause)
            pause = min(2 * pause, 1.0)
            blocks = self._files.blocks(part, status.length)

    def _replicas_wanted(self, block_length: int, status: FileStatus) -> int:
        """Of an erasure-coded block as many DataNodes as survive the loss that as many replicas survive."""
        if not status.data_units:
            return self._settings.replicas_min
        return min(status.data_units, -(-block_length // status.cell_bytes)) + self._settings.replicas_min - 1

    def _publish(self, part: str, name: PackName, status: FileStatus) -> None:
        """RENAME. Its answer may be lost though it was done: the file's id says under which name it lies."""
        until = time.monotonic() + self._settings.write_patience_seconds
        while True:
            lost: Unavailable | None = None
            try:
                if self._files.rename(part, self._path(name)):
                    return
            except Unavailable as error:
                lost = error
            there = self._files.status_or_none(self._path(name), self._settings.write_patience_seconds)
            if there is not None and there.file_id == status.file_id:
                return
            if there is not None:
                raise NumberTaken(f"pack {name} was put by another meanwhile: do two nodes write under one name?")
            here = self._files.status_or_none(part, self._settings.write_patience_seconds)
            if here is None or here.file_id != status.file_id:
                raise Unavailable(f"pack {name}: {part} vanished before it was renamed: do two nodes write under one name?")
            self._files.make_folder(self._path(name).rpartition("/")[0])  # somebody may have removed it since it was made
            if time.monotonic() > until:
                raise lost or Unavailable(f"pack {name}: HDFS does not rename {part} and does not say why")
            time.sleep(0.1)

    def _drop_earlier(self, node: str, sequence: int, part: str) -> None:
        """What tries before this one left behind when HDFS did not let them remove it."""
        prefix = in_flight_name(node, sequence).removeprefix(f"{IN_FLIGHT}/")
        for row in self._files.list_folder(self._path(IN_FLIGHT), after=f"{node}-{sequence:012d}"):
            if not row.name.startswith(prefix):
                break
            if (earlier := self._path(f"{IN_FLIGHT}/{row.name}")) != part:
                self._files.delete(earlier)

    def _drop(self, part: str) -> None:
        try:
            self._files.delete(part)
        except ArchiveError as error:
            logger.warning("%s is left for the next try or start to remove: %s", part, error)

    # --- reading

    def read(self, name: PackName, offset: int, length: int) -> bytes:
        return b"".join(map(bytes, self.stream(name, offset, length)))

    def stream(self, name: PackName, offset: int, length: int) -> Iterator[Bytes]:
        path = self._path(name)
        try:
            yield from self._files.stream(path, offset, length)
        except NotFound:
            raise NotFound(f"pack {name} is not in {self.url}") from None

    def length(self, name: PackName) -> int:
        try:
            return self._files.status(self._path(name)).length
        except NotFound:
            raise NotFound(f"pack {name} is not in {self.url}") from None

    # --- listing

    def list_packs(self, node: str, first: int = 0) -> Iterator[PackEntry]:
        for folder in self._files.list_folder(self._path(node)):
            if folder.is_folder and FOLDER_NAME.fullmatch(folder.name) and int(folder.name) >= first // PACKS_PER_FOLDER:
                yield from self._entries(node, f"{node}/{folder.name}", first)

    def _entries(self, node: str, folder: str, first: int) -> Iterator[PackEntry]:
        """Packs of one folder, from a number on."""
        for status in self._files.list_folder(self._path(folder), after=f"{first:012d}"):
            with contextlib.suppress(NotUnderstood):
                name = PackName.parse(f"{folder}/{status.name}")
                if not status.is_folder and name.sequence >= first:
                    yield PackEntry(name, status.length)

    def nodes(self) -> list[str]:
        return [row.name for row in self._files.list_folder(self._root or "/") if row.is_folder and NODE_NAME.fullmatch(row.name)]

    def strangers(self) -> Iterator[str]:
        for path in self._files.walk(self._root or "/"):
            relative = path.removeprefix(f"{self._root}/")
            if relative.startswith(f"{QUARANTINE}/"):
                continue
            try:
                PackName.parse(relative)
            except NotUnderstood:
                yield relative

    def settle(self, names: Iterable[PackName]) -> None:
        """A NameNode answers a RENAME when its edit log is synced, and shows none before."""

    # --- removing, moving

    def delete(self, name: PackName) -> None:
        self._files.delete(self._path(name))

    def delete_in_flight(self, node: str) -> list[str]:
        rows = [row for row in self._files.list_folder(self._path(IN_FLIGHT)) if not row.is_folder]
        old_us = (time.time() - self._settings.in_flight_seconds_max) * 1e6
        removed = []
        for row in rows:
            mine = row.name.rpartition("-")[0] == node
            if mine or row.modified_us < old_us:
                self._files.delete(self._path(f"{IN_FLIGHT}/{row.name}"))
                removed.append(row.name)
        return removed

    def quarantine(self, name: PackName) -> str:
        away = self._path(quarantined_name(name))
        if self._files.status_or_none(self._path(name), self._settings.write_patience_seconds) is not None:
            self._files.make_folder(away.rpartition("/")[0])
            self._files.delete(away)
            if not self._files.rename(self._path(name), away):
                raise Unavailable(f"pack {name}: HDFS does not rename it to {away} and does not say why")
        return quarantined_name(name)

    def quarantined(self) -> list[str]:
        return [row.name for row in self._files.list_folder(self._path(QUARANTINE))]

    def delete_quarantined(self, node: str) -> list[str]:
        names = [name for name in self.quarantined() if is_quarantined_of(name, node)]
        for name in names:
            self._files.delete(self._path(f"{QUARANTINE}/{name}"))
        return names

    def set_storage_class(self, name: PackName, storage_class: str) -> None:
        if storage_class not in self.storage_classes:
            raise BadInput(f"HDFS has no storage class {storage_class!r}")
        self._files.set_storage_policy(self._path(name), storage_class.upper())

    # --- the rest

    def local_path(self, name: PackName) -> Path | None:
        return None

    def check(self) -> None:
        self._files.check(self._root or "/")


class _Passed:
    """What went by: how much, its digest, the checksum that DataNodes will answer."""

    def __init__(self, length_wanted: int) -> None:
        self.length_wanted, self.length = length_wanted, 0
        self.checksum = FileChecksum()
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    def look(self, piece: memoryview) -> None:
        self._digest.update(piece)
        self.checksum.update(piece)

    def through(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """The chunks in pieces of 1 MiB at most, never more than was said; `Damaged` after the last one where they were more or fewer."""
        for chunk in chunks:
            view = memoryview(chunk)
            for at in range(0, len(view), PIECE_BYTES):
                piece = view[at : at + PIECE_BYTES]
                self.length += len(piece)
                if self.length <= self.length_wanted:
                    yield piece
        if self.length != self.length_wanted:
            raise Damaged(f"a pack is not what was said: {self.length} of {self.length_wanted} bytes")
