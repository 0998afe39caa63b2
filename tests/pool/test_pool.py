"""Packs as mapped memory: checked block by block, once a process; what is cut or shrinks is refused, never a SIGBUS."""

import gc
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from archive.disk import Disk
from archive.errors import Damaged, NotFound, Unavailable
from archive.index.packed import PackInfo
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.pack_reader import read_tail
from archive.pool import mapped as mapped_module
from archive.pool import pool as pool_module
from archive.pool.pool import Pack, Pool
from archive.tier.directory import DirectoryTier
from tests.kit import ROOT
from tests.pack.build import flipped, make_instance, make_pack, read_from

PACK = make_pack([make_instance(1, bytes(range(256)) * 4096), make_instance(2, b"x" * 5000)])
TAIL = read_tail(len(PACK.data), read_from(PACK.data))
INFO = PackInfo(1, PACK.name, len(PACK.data), TAIL.covered, "ab" * 16, "cd" * 16, 1, 2, 0)
COVERED = PACK.data[: TAIL.covered]


class Packs:
    """A directory tier that holds the pack, and a pool over it."""

    def __init__(self, root: Path) -> None:
        self.tier = DirectoryTier(root)
        self.path = root / str(PACK.name)
        self.path.parent.mkdir(parents=True)
        self.path.write_bytes(PACK.data)
        self.pool = Pool(self.tier, root.parent / "pool")

    def open(self, info: PackInfo = INFO) -> Pack:
        return self.pool.open(info, lambda: TAIL.block_crcs)

    def poke(self, at: int) -> None:
        """Turn a bit over in the file."""
        with self.path.open("r+b") as file:
            file.seek(at)
            file.write(flipped(PACK.data[at : at + 1], 0))


@pytest.fixture
def packs(tmp_path: Path) -> Iterator[Packs]:
    made = Packs(tmp_path / "packs")
    yield made
    made.pool.close()


RANGES = [(0, 1), (0, len(COVERED)), (BLOCK_BYTES - 1, 2), (BLOCK_BYTES, BLOCK_BYTES), (len(COVERED) - 1, 1), (len(COVERED), 0), (5, 0)]


@pytest.mark.parametrize(("offset", "length"), RANGES)
def test_views_are_the_bytes_of_the_pack(packs: Packs, offset: int, length: int) -> None:
    view = packs.open().view(offset, length)
    assert bytes(view) == COVERED[offset : offset + length]
    assert view.readonly


def test_an_empty_range_at_the_end_of_the_last_whole_block(packs: Packs) -> None:
    """There is no block behind it to check."""
    opened = packs.pool.open(replace(INFO, covered=2 * BLOCK_BYTES), lambda: TAIL.block_crcs[:2])
    assert bytes(opened.view(2 * BLOCK_BYTES, 0)) == b""


@pytest.mark.parametrize(("offset", "length"), [(0, len(COVERED) + 1), (len(COVERED), 1), (-1, 2), (1, -1), (2**40, 1)])
def test_what_no_crc_covers_is_refused(packs: Packs, offset: int, length: int) -> None:
    with pytest.raises(Damaged, match="lie outside of what its CRCs cover"):
        packs.open().view(offset, length)


def test_a_bad_block_is_refused_and_the_others_are_not(packs: Packs) -> None:
    packs.poke(2 * BLOCK_BYTES + 17)
    opened = packs.open()
    assert bytes(opened.view(0, 2 * BLOCK_BYTES)) == COVERED[: 2 * BLOCK_BYTES]
    assert bytes(opened.view(3 * BLOCK_BYTES, 100)) == COVERED[3 * BLOCK_BYTES :][:100]
    for offset, length in ((2 * BLOCK_BYTES, 1), (2 * BLOCK_BYTES - 1, 2), (0, len(COVERED))):
        for _ in range(2):
            with pytest.raises(Damaged, match=rf"block 2 \(bytes {2 * BLOCK_BYTES}\.\.{3 * BLOCK_BYTES}\) does not match its CRC"):
                opened.view(offset, length)


def test_the_last_block_is_as_long_as_what_is_left(packs: Packs) -> None:
    last = len(TAIL.block_crcs) - 1
    packs.poke(len(COVERED) - 1)
    with pytest.raises(Damaged, match=rf"block {last} \(bytes {last * BLOCK_BYTES}\.\.{len(COVERED)}\)"):
        packs.open().view(len(COVERED) - 1, 1)


def test_a_block_is_checked_once(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []

    def counting(data: memoryview) -> int:
        checked.append(len(data))
        return crc32(data)

    monkeypatch.setattr(mapped_module, "crc32", counting)
    opened = packs.open()
    for _ in range(3):
        opened.view(10, 10)
        opened.view(BLOCK_BYTES - 5, 10)
        packs.open().view(0, 2 * BLOCK_BYTES)
    assert checked == [BLOCK_BYTES, BLOCK_BYTES]


def test_a_pack_is_mapped_once(packs: Packs) -> None:
    asked = 0

    def crcs() -> Sequence[int]:
        nonlocal asked
        asked += 1
        return TAIL.block_crcs

    first = packs.pool.open(INFO, crcs)
    assert packs.pool.open(INFO, crcs) is first
    assert asked == 1
    packs.pool.forget(INFO.pack_id)
    packs.pool.forget(INFO.pack_id)
    assert packs.pool.open(INFO, crcs) is not first


def test_no_more_packs_than_the_bound_are_mapped_and_views_outlive_it(packs: Packs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "MAPPED_PACKS_MAX", 2)
    opened = [packs.open(numbered(n)) for n in (1, 2)]
    view = opened[0].view(0, 100)
    assert packs.open(numbered(1)) is opened[0]  # so 2 is the one that was used least recently
    packs.open(numbered(3))
    assert packs.open(numbered(1)) is opened[0]
    assert packs.open(numbered(2)) is not opened[1]
    packs.open(numbered(4))
    del opened
    assert bytes(view) == COVERED[:100]


def numbered(pack_id: int) -> PackInfo:
    """The pack as another one, to the pool."""
    return replace(INFO, pack_id=pack_id)


def test_a_deleted_file_harms_no_reader(packs: Packs) -> None:
    opened = packs.open()
    packs.path.unlink()
    assert bytes(opened.view(0, len(COVERED))) == COVERED


# --- files that are not what they should be


def test_a_missing_pack_is_to_be_looked_up_again(packs: Packs) -> None:
    packs.path.unlink()
    with pytest.raises(NotFound, match=f"pack {PACK.name} is not in file://"):
        packs.open()


@pytest.mark.parametrize("length", [0, 1, BLOCK_BYTES, len(PACK.data) - 1, len(PACK.data) + 1])
def test_a_pack_of_another_length_is_refused(packs: Packs, length: int) -> None:
    packs.path.write_bytes((PACK.data + b"x")[:length])
    with pytest.raises(Damaged, match=f"is {length} bytes long, should be {len(PACK.data)}"):
        packs.open()


def test_a_pack_that_cannot_be_opened_is_unavailable(packs: Packs) -> None:
    packs.path.unlink()
    packs.path.symlink_to(packs.path.name)
    with pytest.raises(Unavailable, match="Too many levels"):
        packs.open()


def test_a_failing_disk_gives_the_descriptor_back(packs: Packs) -> None:
    class Failing(Disk):
        closed = 0

        def size(self, fd: int) -> int:
            raise OSError(5, "Input/output error")

        def close(self, fd: int) -> None:
            self.closed += 1
            super().close(fd)

    disk = Failing()
    with pytest.raises(Unavailable, match="Input/output error"):
        Pool(packs.tier, packs.path.parent / "pool", disk=disk).open(INFO, lambda: TAIL.block_crcs)
    assert disk.closed == 1


SHRINK = """
import os, sys
from pathlib import Path
from archive.disk import LOCAL_DISK
from archive.errors import Damaged
from archive.index.packed import PackInfo
from archive.pack.naming import PackName
from archive.pack.pack_reader import read_tail
from archive.pool.mapped import MappedPack
path, length, touched = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "touched"
data = path.read_bytes()
tail = read_tail(len(data), lambda offset, length: data[offset : offset + length])
opened = MappedPack(path, PackInfo(1, PackName("n", 1, "0" * 64), len(data), tail.covered, "", "", 1, 2, 0), tail.block_crcs, LOCAL_DISK)
if touched:
    opened.view(0, tail.covered)
os.truncate(path, length)
good = bad = 0
for offset in range(0, tail.covered, 4096):
    wanted = min(4096, tail.covered - offset)
    try:
        assert bytes(opened.view(offset, wanted)) == data[offset : offset + wanted]
        good += 1
    except Damaged:
        bad += 1
print(good, bad)
"""


@pytest.mark.parametrize("touched", ["touched", "fresh"])
@pytest.mark.parametrize("length", [0, 4096, 64 * 4096, 100 * 4096 + 5])
def test_a_pack_that_shrinks_while_it_is_mapped_is_refused_and_kills_nobody(packs: Packs, length: int, touched: str) -> None:
    """All of it: behind the new end the page that it lies in reads as zeros, in blocks too that were checked before."""
    done = subprocess.run(
        [sys.executable, "-c", SHRINK, packs.path, str(length), touched], capture_output=True, text=True, cwd=ROOT, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0", str(-(-len(COVERED) // 4096))]


def mappings_of(path: Path) -> int:
    """How often this process has a file mapped, deleted or not."""
    return sum(str(path) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.parametrize("gone", [Path.unlink, lambda path: path.rename(path.with_name("quarantined"))], ids=["deleted", "moved"])
def test_a_pack_that_is_gone_is_let_go_of(packs: Packs, gone: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being asked for anything: the disk gets its space back. Who still reads of it goes on."""
    monkeypatch.setattr(pool_module, "SWEEP_SECONDS", 0.02)
    view = packs.open().view(0, 100)
    time.sleep(0.1)
    assert mappings_of(packs.path) == 1
    gone(packs.path)
    time.sleep(0.2)
    assert bytes(view) == COVERED[:100]
    del view
    gc.collect()
    assert mappings_of(packs.path) == mappings_of(packs.path.with_name("quarantined")) == 0
    with pytest.raises(NotFound):
        packs.open()
