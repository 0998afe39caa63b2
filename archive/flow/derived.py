"""A bounded cache of what can be made again, one file each; the whole folder may be deleted at any time."""

import contextlib
import os
import threading
import uuid
from pathlib import Path

from archive.config import Settings
from archive.disk import Disk
from archive.pack.checksum import crc32


def counters_folder(settings: Settings) -> Path:
    """Where the workers of a node keep their counters; it may be deleted while the node is stopped."""
    return settings.node.data / "derived" / "counters"


def scratch_folder(settings: Settings) -> Path:
    """Where files without a name are made; always empty to look at."""
    return settings.node.data / "derived" / "scratch"


class Derived:
    """Bytes by name, the longest unused given up beyond a bound.

    A file is the CRC-32 of its content (4 bytes, little endian), then the content; one that does not match is no hit.

    Parameters
    ----------
    bytes_max : int
        Bound of the folder.
    """

    def __init__(self, folder: Path, bytes_max: int, disk: Disk) -> None:
        self._folder, self._bytes_max, self._disk = folder, bytes_max, disk
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        """The content, None where it is not kept or is damaged."""
        path = self._folder / name
        try:
            data = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return None
        content = data[4:]
        # A power cut leaves an empty file under its name, and the CRC-32 of nothing is 0: nothing is never a hit.
        return content if content and int.from_bytes(data[:4], "little") == crc32(content) else None

    def put(self, name: str, content: bytes) -> None:
        """Keep it, as far as the bound and the disk allow; a full disk is no error here."""
        if len(content) > self._bytes_max // 4:
            return
        with self._lock, contextlib.suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            self._evict(len(content))
            part = self._folder / f".{uuid.uuid4().hex}"
            try:
                part.write_bytes(crc32(content).to_bytes(4, "little") + content)
                self._disk.rename(part, self._folder / name)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def _evict(self, needed: int) -> None:
        found = sorted(((e.stat().st_mtime, e.stat().st_size, e.path) for e in os.scandir(self._folder)), reverse=True)
        total = sum(size for _, size, _ in found) + needed
        while found and total > self._bytes_max:
            _, size, path = found.pop()
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
