"""The only seam to the local disk: whoever reads or writes files at rest goes through a `Disk`.

A test can put a simulated one in its place, to drop what was not synced or to fail the n-th call.
"""

import contextlib
import errno
import fcntl
import mmap
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from archive.errors import Damaged, Exhausted

MADV_POPULATE_READ = 22
"""Linux 5.14: fault pages in and answer EFAULT where a load would raise SIGBUS (the file shrank or the disk failed)."""

Bytes = bytes | bytearray | memoryview

_FLOCK = struct.Struct("hhqqi4x")
"""`struct flock` of fcntl(2): type, whence, start, length, pid."""


class Disk:
    """Plain files by descriptor and offset; every short transfer is completed or is an error."""

    # --- descriptors

    def open_read(self, path: Path) -> int:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_write(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def create(self, path: Path) -> int:
        """A new file; one that exists already is an error (FileExistsError)."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)

    def open_append(self, path: Path) -> int:
        """For `append`, and to read; the file is made where it is missing."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)

    def close(self, fd: int) -> None:
        os.close(fd)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    # --- bytes

    def read(self, fd: int, length: int, offset: int) -> bytes:
        """Exactly `length` bytes.

        Raises
        ------
        Damaged
            The file ends before.
        """
        data = os.pread(fd, length, offset)
        while len(data) < length:
            more = os.pread(fd, length - len(data), offset + len(data))
            if not more:
                raise Damaged(f"file ends at {offset + len(data)}, wanted {length} bytes at {offset}")
            data += more
        return data

    def read_some(self, fd: int, length: int, offset: int) -> bytes:
        """Up to `length` bytes: fewer where the file ends before."""
        return os.pread(fd, length, offset)

    def write(self, fd: int, parts: Sequence[Bytes], offset: int) -> int:
        """Write the parts one behind the other; returns how many bytes.

        Raises
        ------
        Exhausted
            The disk is full.
        """
        total = sum(map(len, parts))
        done = 0
        try:
            done = os.pwritev(fd, parts, offset)
            if done < total:
                rest = memoryview(b"".join(parts))[done:]
                while rest:
                    written = os.pwrite(fd, rest, offset + total - len(rest))
                    rest = rest[written:]
        except OSError as error:
            raise full_or_same(error) from error
        return total

    def append(self, fd: int, data: bytes) -> None:
        """Write it to the end of the file in one piece, whoever else appends to it.

        Raises
        ------
        Exhausted
            The disk is full; a part of it may be written.
        """
        try:
            written = os.write(fd, data)
        except OSError as error:
            raise full_or_same(error) from error
        if written < len(data):
            raise Exhausted("the disk is full", 30)

    def allocate(self, fd: int, length: int) -> None:
        """Reserve blocks, so that later writes neither grow the file nor find the disk full."""
        try:
            os.posix_fallocate(fd, 0, length)
        except OSError as error:
            raise full_or_same(error) from error

    def truncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def map_read(self, fd: int, length: int) -> mmap.mmap:
        return mmap.mmap(fd, length, prot=mmap.PROT_READ, flags=mmap.MAP_SHARED)

    # --- durability

    def sync(self, fd: int) -> None:
        """The file's bytes and length are on the disk when this returns."""
        os.fdatasync(fd)

    def sync_file(self, path: Path) -> None:
        """As `sync`, of a file that somebody else may have written; what is read of it then is what the disk has.

        Where a sync of its writer failed, the cache may hold what never comes to the disk.
        """
        fd = self.open_read(path)
        try:
            self.sync(fd)
            self.drop_cached(fd)
        finally:
            self.close(fd)

    def sync_folder(self, path: Path) -> None:
        """The folder's names are on the disk when this returns."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def drop_cached(self, fd: int) -> None:
        """Ask that what follows is read from the disk itself."""
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def replace(self, path: Path, data: bytes) -> None:
        """A file of these bytes, whole and durable under its name when this returns; until then what was there. Only of one at a time."""
        part = path.with_name(f"{path.name}.part")
        with contextlib.suppress(FileNotFoundError):
            self.unlink(part)
        fd = self.create(part)
        try:
            self.write(fd, [data], 0)
            self.sync(fd)
        finally:
            self.close(fd)
        self.rename(part, path)
        self.sync_folder(path.parent)

    # --- names

    def rename(self, old: Path, new: Path) -> None:
        os.rename(old, new)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def make_folder(self, path: Path) -> None:
        """The folder and its parents, each durable in its parent."""
        if path.is_dir():
            return
        self.make_folder(path.parent)
        with contextlib.suppress(FileExistsError):
            path.mkdir()
        self.sync_folder(path.parent)

    def list_folder(self, path: Path) -> list[str]:
        """Names in order; an absent folder is empty."""
        try:
            return sorted(os.listdir(path))
        except FileNotFoundError:
            return []

    def free_bytes(self, path: Path) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    # --- locks

    def lock(self, fd: int, *, shared: bool, wait: bool = True) -> bool:
        """flock(2) on the open file; False where it is held and `wait` is not asked."""
        try:
            fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    @contextlib.contextmanager
    def locked(self, fd: int) -> Iterator[None]:
        """Exclusive for the length of a `with`."""
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(fd, fcntl.LOCK_UN)

    def lock_byte(self, fd: int, offset: int, *, wait: bool = True) -> bool:
        """A lock of its own for each offset, whether the file has such a byte or not (an open file description lock of fcntl(2)).

        It keeps out whoever opened the file by itself, in this process or another, and goes when the descriptor is closed or its
        process dies. False where it is held and `wait` is not asked.
        """
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, offset, 1, 0))
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return False
            raise
        return True

    def unlock_byte(self, fd: int, offset: int) -> None:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, offset, 1, 0))


LOCAL_DISK = Disk()


def boot_id() -> str:
    """Names this run of the machine, for what is worth nothing once its power was cut; empty where the system has no such name."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return ""


def full_or_same(error: OSError) -> Exception:
    """ENOSPC and its kin as `Exhausted`, any other error as it is."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Exhausted(f"the disk is full: {error.strerror}", 30)
    return error


def populate(mapped: mmap.mmap, start: int, length: int) -> None:
    """Bring the pages of a range in before anyone loads from them.

    Raises
    ------
    Damaged
        The file became shorter or its disk does not give the bytes (a load would kill the process with SIGBUS).
    """
    page = mmap.PAGESIZE
    first = start // page * page
    try:
        mapped.madvise(MADV_POPULATE_READ, first, min(start + length, len(mapped)) - first)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return  # A kernel older than 5.14 does not know the advice; the load itself must do.
        raise Damaged(f"mapped bytes {start}..{start + length} cannot be read: {error.strerror}") from error
