"""Packs as they are written: ordinary ZIP files, laid out before the first byte, equal where their content is."""

import gzip
import subprocess
import zipfile
import zlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

from archive.dicom.json import loads
from archive.errors import Damaged
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.descriptor import Deletion, Revision
from archive.pack.naming import BLOCK_CRCS_ENTRY, CONTENT_INDEX_ENTRY
from archive.pack.pack_reader import read_tail
from tests.kit import require
from tests.pack.build import NODE_HEX, Made, MadePack, make_instance, make_pack, pack_writer, read_from, reader_of

DELETION = Deletion(Revision(NODE_HEX, 90), 1_700_000_000_000_000, "cli", [(Revision(NODE_HEX, 1), "1.2.3.4.1")])
FIRST = [make_instance(number, bytes([number]) * (1000 * number)) for number in (1, 2)]
LARGE = make_instance(3, bytes(range(256)) * 3000, study="1.5", series="1.5.1")
AGAIN = make_instance(4, b"another data set under a known UID", uid=FIRST[0].descriptor.sop_instance_uid)
INSTANCES: list[Made | tuple[Made, bool]] = [FIRST[0], (AGAIN, True), FIRST[1], LARGE]
OBJECTS = {
    "1.2.3/1.2.3.4/1.2.3.4.1.dcm": FIRST[0].data,
    f"1.2.3/1.2.3.4/1.2.3.4.1.r{NODE_HEX}-4.dcm": AGAIN.data,
    "1.2.3/1.2.3.4/1.2.3.4.2.dcm": FIRST[1].data,
    "1.5/1.5.1/1.5.1.3.dcm": LARGE.data,
}


@pytest.fixture(scope="module")
def pack() -> MadePack:
    return make_pack(INSTANCES, [DELETION])


def test_it_is_a_zip_file_that_holds_the_objects_by_their_uids(pack: MadePack) -> None:
    with zipfile.ZipFile(BytesIO(pack.data)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [
            *OBJECTS,
            "1.2.3/1.2.3.4/metadata.json.gz",
            "1.5/1.5.1/metadata.json.gz",
            CONTENT_INDEX_ENTRY,
            BLOCK_CRCS_ENTRY,
        ]
        assert {name: archive.read(name) for name in OBJECTS} == OBJECTS
        assert archive.comment == pack.data[-256:]
        assert archive.comment.startswith(b"dicom-archive-pack 0001 ")


def test_unzip_finds_no_errors(pack: MadePack, tmp_path: Path) -> None:
    path = tmp_path / "pack.zip"
    path.write_bytes(pack.data)
    done = subprocess.run([require("unzip"), "-tqq", path], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    subprocess.run([require("unzip"), "-qq", path, "-d", tmp_path / "out"], check=True)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in OBJECTS} == OBJECTS


def test_every_entry_is_stored_aligned_and_without_a_time(pack: MadePack) -> None:
    with zipfile.ZipFile(BytesIO(pack.data)) as archive:
        for info in archive.infolist():
            name_length, extra_length = (
                int.from_bytes(pack.data[info.header_offset + at : info.header_offset + at + 2], "little") for at in (26, 28)
            )
            assert (info.header_offset + 30 + name_length + extra_length) % 64 == 0
            assert (info.compress_type, info.flag_bits, info.date_time) == (zipfile.ZIP_STORED, 0, (1980, 1, 1, 0, 0, 0))
            assert info.external_attr >> 16 == 0o100444


def test_its_length_is_known_before_and_its_tail_after() -> None:
    flagged = [(made, False) for made in (*FIRST, LARGE)]
    writer = pack_writer(flagged)
    length = writer.length
    data = b"".join(bytes(piece) for piece in writer.stream(reader_of(flagged, 777)))
    assert len(data) == length
    assert writer.tail() == read_tail(length, read_from(data))


def test_equal_content_gives_equal_bytes(pack: MadePack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1e9)  # at another time
    assert make_pack(INSTANCES, [DELETION]).data == pack.data
    flagged = [(made, False) for made in FIRST]
    pieces = [b"".join(bytes(p) for p in pack_writer(flagged).stream(reader_of(flagged, size))) for size in (1, 4096)]
    assert pieces[0] == pieces[1]


def test_the_content_index_says_what_the_pack_holds(pack: MadePack) -> None:
    with zipfile.ZipFile(BytesIO(pack.data)) as archive:
        lines = [loads(line) for line in gzip.decompress(archive.read(CONTENT_INDEX_ENTRY)).splitlines()]
    assert [line["kind"] for line in lines] == ["pack", "deletion", "series", "instance", "instance", "instance", "series", "instance"]
    assert (lines[0]["format_version"], lines[0]["must_understand"], lines[0]["pack_sequence"]) == (1, [], 1)
    assert lines[1] == {"kind": "deletion", **DELETION.to_json()}
    instances = [line for line in lines if line["kind"] == "instance"]
    assert [pack.data[i["offset"] : i["offset"] + i["length"]] for i in instances] == list(OBJECTS.values())
    assert [i.get("entry") for i in instances] == [None, list(OBJECTS)[1], None, None]
    for series, name in ((lines[2], "1.2.3/1.2.3.4"), (lines[6], "1.5/1.5.1")):
        metadata = pack.data[series["metadata_offset"] : series["metadata_offset"] + series["metadata_length"]]
        assert f"{zlib.crc32(metadata):08x}" == series["metadata_crc32"]
        with zipfile.ZipFile(BytesIO(pack.data)) as archive:
            assert archive.read(f"{name}/metadata.json.gz") == metadata


def test_block_crcs_of_the_journal_stay_there() -> None:
    """The pack has blocks of its own."""
    made = replace(LARGE, descriptor=replace(LARGE.descriptor, block_crcs=[1, 2, 3]))
    data = make_pack([made]).data
    assert read_tail(len(data), read_from(data)).series[0].instances[0][1].block_crcs is None


def test_each_block_of_what_is_covered_has_its_crc(pack: MadePack) -> None:
    tail = read_tail(len(pack.data), read_from(pack.data))
    covered = pack.data[: tail.covered]
    assert len(covered) > 2 * BLOCK_BYTES
    assert tail.block_crcs == [zlib.crc32(covered[at : at + BLOCK_BYTES]) for at in range(0, len(covered), BLOCK_BYTES)]


def test_a_pack_may_hold_nothing() -> None:
    data = make_pack([]).data
    tail = read_tail(len(data), read_from(data))
    assert (tail.series, tail.deletions) == ([], [])
    with zipfile.ZipFile(BytesIO(data)) as archive:
        assert archive.namelist() == [CONTENT_INDEX_ENTRY, BLOCK_CRCS_ENTRY]


@pytest.mark.parametrize("wrong", [FIRST[0].data[:-1], FIRST[0].data + b"x", FIRST[0].data[:-1] + b"x", b""])
def test_an_object_that_changed_is_not_packed(wrong: bytes) -> None:
    writer = pack_writer([(FIRST[0], False)])
    with pytest.raises(Damaged, match=r"instance 1\.2\.3\.4\.1 does not match its descriptor"):
        for _ in writer.stream(reader_of([(replace(FIRST[0], data=wrong), False)])):
            pass
