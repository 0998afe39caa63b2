"""scripts/unpack: a pack read by Python's standard library alone, as a hospital without this program would."""

import hashlib
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from archive.dicom.json import loads
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.descriptor import Deletion, Revision
from archive.pack.locator import CRC_OFFSET
from archive.pack.pack_reader import read_tail
from tests.cli.archives import packs, verb, write_study
from tests.kit import ROOT, data_set_bytes, part10_data_set
from tests.pack.build import NODE_HEX, Made, flipped, make_instance, make_pack, read_from

DELETION = Deletion(Revision(NODE_HEX, 90), 1_700_000_000_000_000, "cli", [(Revision(NODE_HEX, 77), "1.2.3.4.77")])
FIRST = [make_instance(number, bytes([number]) * (200_000 * number)) for number in (1, 2)]
AGAIN = make_instance(4, b"another data set under a known UID", uid=FIRST[0].descriptor.sop_instance_uid)
OTHER = make_instance(5, study="1.5", series="1.5.1")
OBJECTS = {
    "1.2.3/1.2.3.4/1.2.3.4.1.dcm": FIRST[0].data,
    f"1.2.3/1.2.3.4/1.2.3.4.1.r{NODE_HEX}-4.dcm": AGAIN.data,
    "1.2.3/1.2.3.4/1.2.3.4.2.dcm": FIRST[1].data,
    "1.5/1.5.1/1.5.1.5.dcm": OTHER.data,
}
PACK = make_pack([FIRST[0], (AGAIN, True), FIRST[1], OTHER], [DELETION])
NOT_COMPARED = re.compile(
    r".*: the digests of \d+ data sets are BLAKE3 and were not compared, for Python's module blake3 is not installed; their CRC-32 was\n"
)


def unpack(*arguments: str | Path, exit_code: int = 0, alone: bool = True) -> "subprocess.CompletedProcess[str]":
    """By the standard library alone, or with what is installed; without what it says of digests then."""
    command = [sys.executable, "-I", *(["-S"] if alone else []), ROOT / "scripts" / "unpack", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.returncode == exit_code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    if alone:
        done.stderr = NOT_COMPARED.sub("", done.stderr)
    return done


@pytest.fixture
def lay(tmp_path: Path) -> Callable[..., Path]:
    """Lay down a pack, under its own name or the one of these bytes."""

    def lay_down(data: bytes = PACK.data, *, renamed: bool = False) -> Path:
        digest = hashlib.sha256(data).hexdigest() if renamed else PACK.name.digest
        path = tmp_path / f"000000000001-{digest}.zip"
        path.write_bytes(data)
        return path

    return lay_down


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_lists(lay: Callable[..., Path]) -> None:
    done = unpack(lay())
    assert done.stderr == ""
    *instances, deletion = done.stdout.splitlines()
    assert instances == [f"{name}\t{len(data)}" for name, data in OBJECTS.items()]
    assert deletion == f"deletion of 1.2.3.4.77, revision {NODE_HEX}-77, in whatever pack it lies"


def test_it_extracts(lay: Callable[..., Path], tmp_path: Path) -> None:
    done = unpack(lay(), tmp_path / "deep" / "out")
    assert done.stderr == ""
    assert files(tmp_path / "deep" / "out") == OBJECTS


def test_it_prints_metadata(lay: Callable[..., Path]) -> None:
    done = unpack("--metadata", lay())
    found = [loads(line)["00080018"]["Value"][0] for line in done.stdout.splitlines()]
    assert found == ["1.2.3.4.1", "1.2.3.4.1", "1.2.3.4.2", "1.5.1.5"]


def test_a_pack_that_holds_nothing(lay: Callable[..., Path], tmp_path: Path) -> None:
    done = unpack(lay(make_pack([]).data, renamed=True), tmp_path / "out")
    assert (done.stdout, done.stderr) == ("", "")


def test_another_name_is_said_and_no_failure(lay: Callable[..., Path], tmp_path: Path) -> None:
    path = lay().rename(tmp_path / "copy.zip")
    assert unpack(path).stderr == f"copy.zip: the name holds no digest; SHA-256 is {PACK.name.digest}\n"


def test_nothing_is_written_over(lay: Callable[..., Path], tmp_path: Path) -> None:
    mine = tmp_path / "out" / next(iter(OBJECTS))
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    done = unpack(lay(), tmp_path / "out", exit_code=1)
    assert f"not written: {mine} exists" in done.stderr
    assert files(tmp_path / "out") == OBJECTS | {next(iter(OBJECTS)): b"mine"}


def test_what_a_node_packed_comes_out_byte_for_byte(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study", 2)
    verb(tmp_path / "data", "import", study.folder)
    verb(tmp_path / "data", "pack", "--now")
    (path,) = packs(tmp_path / "data")
    assert unpack(path, tmp_path / "out").stderr == ""
    found = sorted(part10_data_set(data) for data in files(tmp_path / "out").values())
    assert found == sorted(data_set_bytes(data_set) for data_set in study.data_sets)
    lines = [loads(line) for line in unpack("--metadata", path).stdout.splitlines()]
    assert [line["00080018"]["Value"] for line in lines] == [[d.SOPInstanceUID] for d in study.data_sets]


# --- damage


def test_a_damaged_object_is_named_and_not_written_and_the_rest_is(lay: Callable[..., Path], tmp_path: Path) -> None:
    path = lay(flipped(PACK.data, PACK.data.index(FIRST[1].data) + len(FIRST[1].data) - 5))
    done = unpack(path, tmp_path / "out", exit_code=1)
    bad = "1.2.3/1.2.3.4/1.2.3.4.2.dcm"
    assert f"{path}: {bad}: does not match its CRC-32; not written\n" in done.stderr
    assert f"{path}: SHA-256 is {hashlib.sha256(path.read_bytes()).hexdigest()}, the name says another\n" in done.stderr
    assert f"{path}: block 2 (bytes {2 * BLOCK_BYTES} to " in done.stderr
    assert len(done.stderr.splitlines()) == 3
    assert files(tmp_path / "out") == {name: data for name, data in OBJECTS.items() if name != bad}


def test_a_sha_256_of_the_data_set_is_compared(lay: Callable[..., Path]) -> None:
    other = replace(OTHER, descriptor=replace(OTHER.descriptor, digest="0" * 64, digest_kind="sha256"))
    done = unpack(lay(make_pack([FIRST[0], other]).data, renamed=True), exit_code=1)
    assert "1.5/1.5.1/1.5.1.5.dcm: does not match the SHA-256 of its data set" in done.stderr
    assert len(done.stdout.splitlines()) == 1


def test_a_blake3_of_the_data_set_is_compared_where_the_module_is_installed(lay: Callable[..., Path]) -> None:
    other = replace(OTHER, descriptor=replace(OTHER.descriptor, digest="0" * 64))
    path = lay(make_pack([FIRST[0], other]).data, renamed=True)
    done = unpack(path, exit_code=1, alone=False)
    assert done.stderr == f"{path}: 1.5/1.5.1/1.5.1.5.dcm: does not match the BLAKE3 of its data set\n"
    assert unpack(lay(), alone=False).stderr == ""


def test_it_says_what_it_cannot_compare_and_calls_it_whole(lay: Callable[..., Path]) -> None:
    done = subprocess.run([sys.executable, "-I", "-S", ROOT / "scripts/unpack", lay()], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0
    assert NOT_COMPARED.fullmatch(done.stderr) and f"the digests of {len(OBJECTS)} data sets" in done.stderr


def test_bytes_between_the_objects_are_checked_too(lay: Callable[..., Path]) -> None:
    done = unpack(lay(flipped(PACK.data, 10), renamed=True), exit_code=1)
    assert "block 0 (bytes 0 to 262143) does not match its CRC" in done.stderr
    assert len(done.stdout.splitlines()) == len(OBJECTS) + 1


def test_the_digest_of_the_name_is_compared(lay: Callable[..., Path]) -> None:
    """Another good pack under this name."""
    done = unpack(lay(make_pack([OTHER]).data), exit_code=1)
    assert "the name says another" in done.stderr


def test_damaged_metadata_is_named(lay: Callable[..., Path]) -> None:
    tail = read_tail(len(PACK.data), read_from(PACK.data))
    done = unpack("--metadata", lay(flipped(PACK.data, tail.series[0].metadata_offset + 30)), exit_code=1)
    assert "metadata of series 1.2.3.4 does not match its CRC-32" in done.stderr
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("length", [0, 255, 256, 1000, len(PACK.data) - 256, len(PACK.data) - 1])
def test_a_pack_that_was_cut_off_is_refused(lay: Callable[..., Path], tmp_path: Path, length: int) -> None:
    done = unpack(lay(PACK.data[:length]), tmp_path / "out", exit_code=1)
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_pack_with_something_before_it_is_refused(lay: Callable[..., Path]) -> None:
    done = unpack(lay(bytes(64) + PACK.data), exit_code=1)
    assert f"the file is {len(PACK.data) + 64} bytes long, its locator says {len(PACK.data)}" in done.stderr


@pytest.mark.parametrize(
    ("at", "said"), [(-10, "locator does not match its CRC"), (-300, "the tail .* does not match"), (-256, "no tail locator")]
)
def test_a_damaged_tail_is_refused(lay: Callable[..., Path], at: int, said: str) -> None:
    done = unpack(lay(flipped(PACK.data, len(PACK.data) + at)), exit_code=1)
    assert re.search(said, done.stderr)
    assert len(done.stderr.splitlines()) == 1


def test_a_newer_version_is_refused_by_name(lay: Callable[..., Path]) -> None:
    text = PACK.data[-256:][:CRC_OFFSET].replace(b"pack 0001", b"pack 0002")
    done = unpack(lay(PACK.data[:-256] + text + f"{crc32(text):08x}\n".encode()), exit_code=1)
    assert "format version 2, flags 00000000: this program knows version 1" in done.stderr


# --- names that lead elsewhere


def with_uid(uid: str) -> Made:
    return replace(OTHER, descriptor=replace(OTHER.descriptor, sop_instance_uid=uid))


@pytest.mark.parametrize("uid", ["../../../evil", "..", "/etc/evil", "1.2/../../evil", "1.2\n", "", "1..2"])
def test_no_name_leads_out_of_the_folder(lay: Callable[..., Path], tmp_path: Path, uid: str) -> None:
    done = unpack(lay(make_pack([FIRST[0], with_uid(uid)]).data, renamed=True), tmp_path / "a" / "b", exit_code=1)
    assert "no name that a pack's entries have" in done.stderr
    assert list(files(tmp_path / "a")) == [f"b/{next(iter(OBJECTS))}"]


def test_a_link_that_lies_in_the_folder_is_not_followed(lay: Callable[..., Path], tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "1.2.3").symlink_to(elsewhere)
    done = unpack(lay(), out, exit_code=1)
    assert done.stderr.count("a link in") == 3
    assert list(elsewhere.iterdir()) == []


# --- wrong use


@pytest.mark.parametrize("arguments", [[], ["/no/such/file.zip"], ["/"], ["--metadata", __file__, "out"], ["a", "b", "c"], ["--what", "a"]])
def test_wrong_use(arguments: list[str]) -> None:
    done = unpack(*arguments, exit_code=2)
    assert done.stderr.startswith("usage: unpack ")
    assert done.stdout == ""


def test_help_names_uses_and_exit_codes() -> None:
    text = unpack("--help").stdout
    assert all(word in text for word in ("PACK", "DEST", "--metadata", "Exit codes: 0"))


def test_a_file_that_is_no_pack(tmp_path: Path) -> None:
    path = tmp_path / "other.zip"
    path.write_bytes(b"PK\3\4" + bytes(1000))
    assert "no pack" in unpack(path, exit_code=1).stderr
