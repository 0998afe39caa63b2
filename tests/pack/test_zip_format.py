"""The ZIP structures, by Python's zipfile and unzip: plain, aligned, and ZIP64 where a number asks for it."""

import struct
import subprocess
import zipfile
import zlib
from pathlib import Path

import pytest

from archive.pack.zip_format import ALIGNMENT_EXTRA, LIMIT_32, Entry, end_records, place
from tests.kit import require

ALIGNMENT = 64


def extra_fields(extra: bytes) -> dict[int, bytes]:
    fields, at = {}, 0
    while at < len(extra):
        length = int.from_bytes(extra[at + 2 : at + 4], "little")
        fields[int.from_bytes(extra[at : at + 2], "little")] = extra[at + 4 : at + 4 + length]
        at += 4 + length
    assert at == len(extra)
    return fields


def write_sparse(path: Path, entries: list[tuple[Entry, int]], data: dict[str, bytes], comment: bytes = b"") -> None:
    """A ZIP of these entries and CRCs; data that is not given is a hole."""
    with path.open("wb") as file:
        for entry, crc in entries:
            file.seek(entry.header_offset)
            header = entry.local_header(crc)
            assert file.tell() + len(header) == entry.data_offset
            file.write(header)
            file.write(data.get(entry.name, b""))
        last = entries[-1][0]
        directory = b"".join(entry.central_header(crc) for entry, crc in entries)
        file.seek(last.data_offset + last.length)
        file.write(directory + end_records(len(entries), file.tell(), len(directory), len(comment)) + comment)


@pytest.mark.parametrize("name", ["a", "1.2/3.4/" + "5" * 64 + ".dcm", "x" * 300])
@pytest.mark.parametrize("at", [0, 1, 30, 63, 64, LIMIT_32 - 5, 2**40 + 3])
def test_data_is_aligned(at: int, name: str) -> None:
    for length in (0, 1, LIMIT_32, 2**40):
        entry = place(name, length, at)
        header = entry.local_header(0x12345678)
        assert entry.data_offset % ALIGNMENT == 0
        assert entry.data_offset - entry.header_offset == len(header)
        assert len(header) < 30 + len(name) + 20 + 6 + ALIGNMENT
        padding = extra_fields(header[30 + len(name) :])[ALIGNMENT_EXTRA]
        assert padding[:2] == ALIGNMENT.to_bytes(2, "little")
        assert set(padding[2:]) <= {0}


@pytest.mark.parametrize("length", [0, 1, LIMIT_32 - 1, LIMIT_32, LIMIT_32 + 1, 2**40])
def test_a_length_beyond_32_bits_has_a_zip64_field_in_both_headers(length: int) -> None:
    entry = place("name", length, 0)
    large = length >= LIMIT_32
    for header, sizes, names, fixed in ((entry.local_header(1), 18, 26, 30), (entry.central_header(1), 20, 28, 46)):
        plain = [int.from_bytes(header[at : at + 4], "little") for at in (sizes, sizes + 4)]
        name_length = int.from_bytes(header[names : names + 2], "little")
        fields = extra_fields(header[fixed + name_length :])
        assert plain == ([LIMIT_32] * 2 if large else [length] * 2)
        assert fields.get(1) == (length.to_bytes(8, "little") * 2 if large else None)
        assert header[4 if fixed == 30 else 6] == (45 if large else 20)  # version needed to extract


@pytest.mark.parametrize("offset", [0, LIMIT_32 - 1, LIMIT_32, 2**40])
def test_an_offset_beyond_32_bits_has_a_zip64_field_in_the_directory(offset: int) -> None:
    header = place("name", 5, offset).central_header(1)
    far = offset >= LIMIT_32
    assert int.from_bytes(header[42:46], "little") == (LIMIT_32 if far else offset)
    assert extra_fields(header[50:]).get(1) == (offset.to_bytes(8, "little") if far else None)
    assert header[6] == (45 if far else 20)


def test_zipfile_and_unzip_read_entries_beyond_4_gib(tmp_path: Path) -> None:
    """A hole of 4 GiB, an entry whose header lies just below the limit, and one behind it: 12 KiB on the disk."""
    path, small, last = tmp_path / "sparse.zip", b"small" * 100, b"last" * 50
    large = place("1.2/large.dcm", LIMIT_32 - 1500, 0)
    near = place("1.2/near.dcm", len(small), large.data_offset + large.length)
    far = place("1.2/far.dcm", len(last), max(LIMIT_32 + 1, near.data_offset + near.length))
    huge = place("1.2/huge.dcm", LIMIT_32 + 7, far.data_offset + far.length)
    end = place("1.2/end.dcm", len(small), huge.data_offset + huge.length)
    assert near.header_offset < LIMIT_32 < far.header_offset
    crcs = {near.name: zlib.crc32(small), far.name: zlib.crc32(last), end.name: zlib.crc32(small)}
    entries = [(entry, crcs.get(entry.name, 0)) for entry in (large, near, far, huge, end)]
    write_sparse(path, entries, {near.name: small, far.name: last, end.name: small}, b"a comment")
    assert path.stat().st_size > 2 * LIMIT_32
    assert path.stat().st_blocks * 512 < 2**20
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == b"a comment"
        assert {info.filename: (info.header_offset, info.file_size) for info in archive.infolist()} == {
            entry.name: (entry.header_offset, entry.length) for entry, _ in entries
        }
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert [archive.read(name) for name in (near.name, far.name, end.name)] == [small, last, small]
        with archive.open(huge.name) as file:
            assert file.read(1000) == bytes(1000)
    done = subprocess.run([require("unzip"), "-t", path, near.name, far.name, end.name], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No errors detected" in done.stdout


def test_more_entries_than_16_bits_count(tmp_path: Path) -> None:
    entries = 0x10000
    path = tmp_path / "many.zip"
    made: list[tuple[Entry, int]] = []
    at = 0
    for number in range(entries):
        made.append((place(f"{number}", 0, at), 0))
        at = made[-1][0].data_offset
    write_sparse(path, made, {})
    with zipfile.ZipFile(path) as archive:
        assert len(archive.infolist()) == entries


@pytest.mark.parametrize("entries", [0, 0xFFFE, 0xFFFF, 0x10000])
@pytest.mark.parametrize("offset", [0, LIMIT_32 - 1, LIMIT_32, 2**40])
def test_end_records_count_in_both_widths(entries: int, offset: int) -> None:
    """What does not fit the plain record says that the ZIP64 one holds it (APPNOTE 4.4.1.4)."""
    data = end_records(entries, offset, 77, 9)
    wide, locator, plain = data[:56], data[56:76], data[76:]
    assert struct.unpack_from("<4sQHHIIQQQQ", wide) == (b"PK\6\6", 44, 3 << 8 | 45, 45, 0, 0, entries, entries, 77, offset)
    assert struct.unpack("<4sIQI", locator) == (b"PK\6\7", 0, offset + 77, 1)
    few, near = min(entries, 0xFFFF), min(offset, LIMIT_32)
    assert struct.unpack("<4sHHHHIIH", plain) == (b"PK\5\6", 0, 0, few, few, 77, near, 9)
