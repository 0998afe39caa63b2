"""A tier in a local (or mounted) folder: the embedded default."""

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from archive.disk import LOCAL_DISK, Bytes, Disk
from archive.errors import BadInput, Damaged, NotFound, NotUnderstood, Unavailable
from archive.pack.alongside import Alongside
from archive.pack.naming import (
    FOLDER_NAME,
    NODE_NAME,
    PACKS_PER_FOLDER,
    QUARANTINE,
    PackName,
    in_flight_name,
    is_quarantined_of,
    quarantined_name,
)
from archive.tier.protocol import NumberTaken, PackEntry

READ_BYTES = 1 << 20


class DirectoryTier:
    """Packs as files below one folder.

    A pack is written under `.inflight/`, synced, read back from the disk and compared with its digest, then renamed; the
    folders on its way are synced.
    """

    storage_classes: tuple[str, ...] = ("hot",)

    def __init__(self, root: Path, disk: Disk = LOCAL_DISK) -> None:
        self._root, self._disk = root.absolute(), disk
        self.url = f"file://{self._root}"

    def put(
        self,
        node: str,
        sequence: int,
        length: int,
        chunks: Iterable[Bytes],
        final: Callable[[str], PackName],
        between: Callable[[], None] = lambda: None,
    ) -> PackName:
        self._refuse_taken(node, sequence)
        part = self._root / in_flight_name(node, sequence)
        self._disk.make_folder(part.parent)
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(part)
        fd = self._disk.create(part)
        try:
            written, whole = 0, hashlib.sha256()
            with Alongside(whole.update) as hashing:
                for chunk in hashing.through(chunks):
                    written += self._disk.write(fd, [chunk], written)
                self._disk.sync(fd)
                hashing.finish()
            name = final(whole.hexdigest())
            self._disk.drop_cached(fd)
            if written != length or self._disk.size(fd) != length or self._digest(fd, length, between) != name.digest:
                raise Damaged(f"pack {name} is not at rest what was written ({written} of {length} bytes)")
            path = self._path(name)
            self._disk.make_folder(path.parent)
            self._refuse_taken(node, sequence)
            self._disk.rename(part, path)
        except BaseException:
            self._disk.unlink(part)
            raise
        finally:
            self._disk.close(fd)
        self._disk.sync_folder(path.parent)
        return name

    def _digest(self, fd: int, length: int, between: Callable[[], None]) -> str:
        whole = hashlib.sha256()
        for offset in range(0, length, READ_BYTES):
            whole.update(self._disk.read(fd, min(READ_BYTES, length - offset), offset))
            between()
        return whole.hexdigest()

    def _refuse_taken(self, node: str, sequence: int) -> None:
        for entry in self.list_packs(node, sequence):
            if entry.name.sequence == sequence:
                raise NumberTaken(f"pack number {sequence} of node {node} is taken by {entry.name}: do two nodes write under one name?")
            break

    def _path(self, name: PackName) -> Path:
        return self._root / str(name)

    def read(self, name: PackName, offset: int, length: int) -> bytes:
        with self._opened(name) as fd:
            return self._disk.read(fd, length, offset)

    def stream(self, name: PackName, offset: int, length: int) -> Iterator[bytes]:
        with self._opened(name) as fd:
            for at in range(offset, offset + length, READ_BYTES):
                yield self._disk.read(fd, min(READ_BYTES, offset + length - at), at)

    def length(self, name: PackName) -> int:
        with self._opened(name) as fd:
            return self._disk.size(fd)

    @contextlib.contextmanager
    def _opened(self, name: PackName) -> Iterator[int]:
        try:
            fd = self._disk.open_read(self._path(name))
        except FileNotFoundError:
            raise NotFound(f"pack {name} is not in {self.url}") from None
        except OSError as error:
            raise Unavailable(f"pack {name}: {error.strerror}") from error
        try:
            yield fd
        finally:
            self._disk.close(fd)

    def _names(self, *below: str) -> list[str]:
        """Names in a folder, none where it is absent."""
        try:
            return self._disk.list_folder(self._root.joinpath(*below))
        except OSError as error:
            raise Unavailable(f"{self.url} cannot be listed: {error.strerror}") from error

    def list_packs(self, node: str, first: int = 0) -> Iterator[PackEntry]:
        for folder in self._names(node):
            if not FOLDER_NAME.fullmatch(folder) or int(folder) < first // PACKS_PER_FOLDER or not (self._root / node / folder).is_dir():
                continue
            for file in self._names(node, folder):
                with contextlib.suppress(NotUnderstood, FileNotFoundError):
                    name = PackName.parse(f"{node}/{folder}/{file}")
                    if name.sequence >= first:
                        yield PackEntry(name, os.stat(self._path(name)).st_size)

    def nodes(self) -> list[str]:
        return [n for n in self._names() if NODE_NAME.fullmatch(n) and (self._root / n).is_dir()]

    def settle(self, names: Iterable[PackName]) -> None:
        paths = [self._path(name) for name in names]
        try:
            for folder in dict.fromkeys(folder for path in paths for folder in (path.parent, path.parent.parent, self._root)):
                self._disk.sync_folder(folder)
        except OSError as error:
            raise Unavailable(f"packs are found whose folders cannot be synced: {error.strerror}: {error.filename}") from error

    def delete(self, name: PackName) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._disk.unlink(self._path(name))
            self._disk.sync_folder(self._path(name).parent)

    def quarantine(self, name: PackName) -> str:
        away = self._root / quarantined_name(name)
        self._disk.make_folder(away.parent)
        with contextlib.suppress(FileNotFoundError):
            self._disk.rename(self._path(name), away)
            self._disk.sync_folder(away.parent)
            self._disk.sync_folder(self._path(name).parent)
        return quarantined_name(name)

    def quarantined(self) -> list[str]:
        return self._names(QUARANTINE)

    def delete_quarantined(self, node: str) -> list[str]:
        names = [name for name in self.quarantined() if is_quarantined_of(name, node)]
        for name in names:
            self._disk.unlink(self._root / QUARANTINE / name)
        if names:
            self._disk.sync_folder(self._root / QUARANTINE)
        return names

    def set_storage_class(self, name: PackName, storage_class: str) -> None:
        if storage_class not in self.storage_classes:
            raise BadInput(f"a directory has no storage class {storage_class!r}")
        self.length(name)

    def delete_in_flight(self, node: str) -> list[str]:
        folder = (self._root / in_flight_name(node, 0)).parent
        mine = [n for n in self._names(folder.name) if n.rpartition("-")[0] == node]
        for name in mine:
            self._disk.unlink(folder / name)
        return mine

    def strangers(self) -> Iterator[str]:
        for path in sorted(self._root.rglob("*")):
            relative = str(path.relative_to(self._root))
            if path.is_file() and not relative.startswith(f"{QUARANTINE}/"):
                try:
                    PackName.parse(relative)
                except NotUnderstood:
                    yield relative

    def local_path(self, name: PackName) -> Path | None:
        return self._path(name)

    def make_root(self) -> None:
        """The folder itself, where it is missing."""
        self._disk.make_folder(self._root)

    def check(self) -> None:
        if not self._root.is_dir() or not os.access(self._root, os.R_OK | os.W_OK):
            raise Unavailable(f"{self.url} cannot be read and written")
