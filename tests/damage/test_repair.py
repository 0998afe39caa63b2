"""Damage, `verify` finds it (tests/damage/test_damages.py), `repair`, `verify` is clean.

What cannot be mended is named, and not given up unasked.
"""

import hashlib
import re
import shutil
from pathlib import Path

import pytest

from archive.disk import Disk
from archive.errors import Damaged, NotFound, Unavailable
from archive.flow.recovery import recover
from archive.flow.repair import How, RepairReport, repair
from archive.pack.checksum import BLOCK_BYTES
from archive.pack.naming import PackName
from tests.damage.damages import DAMAGES
from tests.damage.test_damages import findings, place
from tests.damage.ways import ALL, BIG, OTHER, SMALL, STREAMED, WAITING, Place, flip, locator, wipe
from tests.flow.objects import Object, files_below, living, settings_of

__all__ = ["place"]

LOST: dict[str, list[Object]] = {
    "pack: missing": [BIG],
    "journal: a missing segment": WAITING,
    "pack: a sector of a payload": [BIG],
    "journal: a sector of a payload": [WAITING[1]],
    "journal: a sector of a large object": [STREAMED],
}
"""Damages of which no whole copy is left."""


def content_of(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files_below(folder) if not name.endswith("lock.mdb")}


def run(place: Place, **how: bool | str) -> RepairReport:
    return repair(settings_of(place.data), How(**how))  # type: ignore[arg-type]


def assert_all_is_well(place: Place, lost: list[Object]) -> None:
    settings = settings_of(place.data)
    for _ in range(2):
        assert [text for text in findings(place.data) if text.startswith("damage")] == []
        with living(settings) as life:
            for one in ALL:
                if one in lost:
                    with pytest.raises(NotFound):
                        life.received(one)
                else:
                    assert life.received(one) == one.data_set
            assert life.packer.pack_now().set_aside == {}
        report = recover(settings)
        assert report.damaged == []


@pytest.mark.parametrize("name", DAMAGES)
def test_repaired(place: Place, name: str) -> None:
    damage, lost = DAMAGES[name], LOST.get(name, [])
    damage.do(place)
    before = content_of(place.data)
    planned = run(place)
    assert content_of(place.data) == before, "a plan alone changes nothing"
    is_damage = any(pattern.startswith("damage") for pattern in damage.findings)
    done = run(place, apply=True)
    assert done.steps == planned.steps
    assert bool(done.steps or done.lost) == is_damage
    assert bool(done.lost) == bool(lost)
    if lost:
        assert done.left
        with living(settings_of(place.data)) as life:
            life.assert_served([one for one in ALL if one not in damage.refused])
            for one in lost:
                with pytest.raises((Damaged, NotFound)):
                    life.received(one)
        done = run(place, apply=True, accept_loss=True)
    assert done.left == []
    assert_all_is_well(place, lost)


def copies_of_packs(place: Place) -> Path:
    """A backup of the tier."""
    return Path(shutil.copytree(place.data / "packs", place.data.with_name("backup")))


@pytest.mark.parametrize("name", [name for name in DAMAGES if name.startswith("pack: ")])
def test_a_replica_has_every_byte(place: Place, name: str) -> None:
    backup = copies_of_packs(place)
    before = place.pack.read_bytes()
    path = place.pack
    DAMAGES[name].do(place)
    done = run(place, apply=True, replica=f"file://{backup}")
    assert (done.lost, done.left) == ([], [])
    assert path.read_bytes() == before
    assert_all_is_well(place, [])


def test_a_pack_that_the_index_does_not_know_is_salvaged_by_its_entries(place: Place) -> None:
    """Index, journal and tail are gone: what still looks like an entry, and is whole, is taken."""
    with place.pack.open("r+b") as file:
        file.truncate(locator(place.pack).index_offset + 40)
    flip(place.pack, place.pack.read_bytes().index(SMALL[1].data_set) + 100)
    for folder in ("index", "journal"):
        shutil.rmtree(place.data / folder)
    recover(settings_of(place.data))
    done = run(place, apply=True)
    assert len(done.lost) == 1 and done.lost[0].startswith(f"1.2.1/1.2.1.1/{SMALL[1].sop_instance_uid}.dcm of pack")
    assert run(place, apply=True, accept_loss=True).left == []
    with living(settings_of(place.data)) as life:
        life.packer.pack_now()
        life.assert_served([BIG, SMALL[0], SMALL[2], OTHER])
        with pytest.raises(NotFound):
            life.received(SMALL[1])
    assert [text for text in findings(place.data) if text.startswith("damage")] == []


def test_the_index_of_what_waits_is_no_lmdb_file_after_a_power_cut(place: Place) -> None:
    (place.data / "index/pending/data.mdb").write_bytes(b"#" * 8192)
    done = run(place)
    assert (done.steps, done.lost, done.left) == ([], [], [])
    assert_all_is_well(place, [])


def test_the_index_of_what_waits_is_of_an_earlier_run_of_the_machine(place: Place) -> None:
    """Whatever pages of it the power left: LMDB may end a process that reads them."""
    pending = place.data / "index/pending"
    before = (pending / "boot").read_text()
    (pending / "boot").write_text("another")
    (pending / "data.mdb").write_bytes((pending / "data.mdb").read_bytes()[:8192] + b"#" * 65536)
    done = run(place)
    assert (done.steps, done.lost, done.left) == ([], [], [])
    assert (pending / "boot").read_text() == before
    assert_all_is_well(place, [])


def test_nothing_is_deleted(place: Place) -> None:
    """What is taken out of service lies in quarantine."""
    damaged = {}
    for name in ("pack: a sector of metadata", "journal: payload", "index: a stale place"):
        DAMAGES[name].do(place)
    for path in (place.pack, place.segment):
        damaged[path.name] = path.read_bytes()
    done = run(place, apply=True)
    assert (done.lost, done.left) == ([], [])
    kept = [path.read_bytes() for path in [*(place.data / "quarantine").glob("*.seg"), *(place.data / "packs/.quarantine").iterdir()]]
    assert all(content in kept for content in damaged.values())
    assert len(list((place.data / "quarantine").glob("index-*/packed/data.mdb"))) == 1
    assert_all_is_well(place, [])


def test_a_tier_that_is_not_mounted_is_not_repaired(place: Place) -> None:
    (place.data / "packs" / "test-node").rename(place.data / "elsewhere")
    with pytest.raises(Unavailable, match="is it mounted"):
        run(place, apply=True, accept_loss=True)
    (place.data / "elsewhere").rename(place.data / "packs" / "test-node")
    assert findings(place.data) == []


def test_a_pack_of_another_node_is_left_to_it(place: Place) -> None:
    DAMAGES["tier: a pack that is not in the index"].do(place)
    recover(settings_of(place.data))
    (other,) = (place.data / "packs/other-node").rglob("*.zip")
    content = other.read_bytes()
    other.chmod(0o640)
    flip(other, len(content) // 2)
    done = run(place, apply=True, accept_loss=True)
    assert done.lost == [f"pack {other.relative_to(place.data / 'packs')} belongs to node other-node: repair it there"]
    assert done.left and other.exists()


@pytest.mark.parametrize(
    "cut", ["sync .*/open/", "rename .*/quarantine", "rename .*.quarantine", "create .*inflight", "rename .*inflight", "rename .*/index"]
)
def test_a_repair_that_is_cut_off_is_done_again(place: Place, cut: str) -> None:
    for name in ("pack: a sector of metadata", "journal: payload", "index: a stale place"):
        DAMAGES[name].do(place)
    disk = StoppingDisk(cut)
    with pytest.raises(Stopped):
        repair(settings_of(place.data), How(apply=True), disk=disk)
    done = run(place, apply=True)
    assert (done.lost, done.left) == ([], [])
    assert_all_is_well(place, [])


class Stopped(BaseException):
    """The repair stops here."""


class StoppingDisk(Disk):
    """The first call that has the pattern in it is not carried out, and none after it."""

    def __init__(self, pattern: str) -> None:
        self._pattern, self._stopped = re.compile(pattern), False

    def _look(self, what: str) -> None:
        self._stopped |= bool(self._pattern.search(what))
        if self._stopped:
            raise Stopped

    def create(self, path: Path) -> int:
        self._look(f"create {path}")
        return super().create(path)

    def rename(self, old: Path, new: Path) -> None:
        self._look(f"rename {old} to {new}")
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._look(f"unlink {path}")
        super().unlink(path)

    def sync(self, fd: int) -> None:
        self._look(f"sync {Path(f'/proc/self/fd/{fd}').readlink()}")
        super().sync(fd)


@pytest.mark.parametrize("block", [0, 1])
def test_a_pool_has_blocks(place: Place, block: int) -> None:
    """As it has of packs that lie on another machine."""
    name = PackName.parse(str(place.pack.relative_to(place.data / "packs")))
    folder = place.data / "pool/kept" / name.digest[:2] / name.digest
    folder.mkdir(parents=True)
    before = place.pack.read_bytes()
    (folder / f"{block:07d}-1").write_bytes(before[block * BLOCK_BYTES :][:BLOCK_BYTES])
    place.pack.chmod(0o640)
    wipe(place.pack, block * BLOCK_BYTES + 5000)
    done = run(place, apply=True)
    assert "1 blocks from the pool" in done.steps[0]
    assert (done.lost, done.left) == ([], [])
    assert place.pack.read_bytes() == before
