"""The seam to the local disk: short transfers are completed or are errors, folders are durable, locks and pages behave."""

import errno
import mmap
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.disk import LOCAL_DISK, Disk, full_or_same, populate
from archive.errors import Damaged, Exhausted


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    opened = LOCAL_DISK.create(tmp_path / "file")
    yield opened
    LOCAL_DISK.close(opened)


def test_parts_are_written_one_behind_the_other_and_read_exactly(fd: int) -> None:
    assert LOCAL_DISK.write(fd, [b"abc", bytearray(b"de"), memoryview(b"f")], 10) == 6
    assert LOCAL_DISK.size(fd) == 16
    assert LOCAL_DISK.read(fd, 6, 10) == b"abcdef"
    assert LOCAL_DISK.read(fd, 12, 0) == bytes(10) + b"ab"
    assert LOCAL_DISK.read(fd, 0, 99) == b""


@pytest.mark.parametrize(("length", "offset"), [(1, 16), (7, 10), (17, 0), (1, 1000)])
def test_a_file_that_ends_before_is_damaged(fd: int, length: int, offset: int) -> None:
    LOCAL_DISK.write(fd, [bytes(16)], 0)
    with pytest.raises(Damaged, match=f"file ends at .*, wanted {length} bytes at {offset}"):
        LOCAL_DISK.read(fd, length, offset)


def test_short_transfers_are_completed(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel may take or give less than it was asked for."""
    data = bytes(range(256)) * 4
    pwritev, pwrite, pread = os.pwritev, os.pwrite, os.pread
    monkeypatch.setattr(os, "pwritev", lambda fd, parts, offset: pwritev(fd, [bytes(parts[0])[:7]], offset))
    monkeypatch.setattr(os, "pwrite", lambda fd, part, offset: pwrite(fd, bytes(part)[:100], offset))
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 33), offset))
    assert LOCAL_DISK.write(fd, [data[:300], data[300:]], 5) == len(data)
    assert LOCAL_DISK.read(fd, len(data), 5) == data


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_exhausted(error: int) -> None:
    found = full_or_same(OSError(error, os.strerror(error)))
    assert isinstance(found, Exhausted)
    assert "the disk is full" in str(found)


def test_another_error_stays_what_it_is() -> None:
    error = OSError(errno.EIO, "Input/output error")
    assert full_or_same(error) is error


def test_a_device_that_is_full() -> None:
    fd = LOCAL_DISK.open_write(Path("/dev/full"))
    with pytest.raises(Exhausted, match="No space left"):
        LOCAL_DISK.write(fd, [b"x"], 0)
    LOCAL_DISK.close(fd)


def test_a_file_is_created_once(tmp_path: Path, fd: int) -> None:
    with pytest.raises(FileExistsError):
        LOCAL_DISK.create(tmp_path / "file")


def test_blocks_are_reserved(tmp_path: Path, fd: int) -> None:
    LOCAL_DISK.allocate(fd, 1 << 20)
    found = (tmp_path / "file").stat()
    assert found.st_size == 1 << 20
    assert found.st_blocks * 512 >= 1 << 20


def test_a_folder_is_durable_in_its_parent_and_so_are_those_above(tmp_path: Path) -> None:
    synced: list[str] = []

    class Noting(Disk):
        def sync_folder(self, path: Path) -> None:
            synced.append(path.name)
            super().sync_folder(path)

    Noting().make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path.name, "a", "b"]
    Noting().make_folder(tmp_path / "a" / "b" / "c")
    assert synced == [tmp_path.name, "a", "b"]


def test_names_in_order(tmp_path: Path) -> None:
    for name in ("b", "a", "c"):
        (tmp_path / name).touch()
    assert LOCAL_DISK.list_folder(tmp_path) == ["a", "b", "c"]
    assert LOCAL_DISK.list_folder(tmp_path / "nothing") == []


def test_locks(tmp_path: Path, fd: int) -> None:
    other = LOCAL_DISK.open_read(tmp_path / "file")
    assert LOCAL_DISK.lock(fd, shared=True)
    assert LOCAL_DISK.lock(other, shared=True, wait=False)
    assert not LOCAL_DISK.lock(other, shared=False, wait=False)
    LOCAL_DISK.close(other)
    other = LOCAL_DISK.open_read(tmp_path / "file")
    with LOCAL_DISK.locked(fd):
        assert not LOCAL_DISK.lock(other, shared=True, wait=False)
    assert LOCAL_DISK.lock(other, shared=False, wait=False)
    LOCAL_DISK.close(other)


def test_pages_that_are_not_there_are_damage_before_anyone_loads_them(tmp_path: Path, fd: int) -> None:
    page = mmap.PAGESIZE
    LOCAL_DISK.write(fd, [bytes(4 * page)], 0)
    mapped = LOCAL_DISK.map_read(fd, 4 * page)
    for start, length in ((0, 4 * page), (page + 5, 1), (4 * page - 1, 1), (4 * page - 1, 100), (7, 0)):
        populate(mapped, start, length)
    os.truncate(tmp_path / "file", 2 * page)
    populate(mapped, 0, 2 * page)
    for start, length in ((2 * page, 1), (2 * page - 1, 2), (4 * page - 1, 1)):
        with pytest.raises(Damaged, match=f"mapped bytes {start}.."):
            populate(mapped, start, length)
