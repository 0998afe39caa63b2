"""The journal on two disks: equal whatever happens, refusing where the second fails, each mending the other."""

import errno
import shutil
from pathlib import Path

import pytest

from archive.config import Settings
from archive.disk import Disk
from archive.errors import Damaged, Exhausted, NotFound, WrongUse
from archive.flow.check import verify
from archive.flow.erasing import erase
from archive.flow.recovery import rebuild_index, recover
from archive.flow.repair import How, repair
from tests.flow.compacting import compact, delete
from tests.flow.mirrors import FailingDisk, assert_equal, contents, mirrored, segment_of
from tests.flow.objects import LARGE_BYTES, Object, living, make_object
from tests.flow.test_erasing import LARGE_SECRET, OTHERS, SECRET, fill, holding

SMALL = [make_object(1, 1, number) for number in (1, 2, 3)]
LARGE = make_object(1, 2, 1, pixel_bytes=LARGE_BYTES + 5000)
ALL = [*SMALL, LARGE]


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


@pytest.fixture
def settings(data: Path, mirror: Path) -> Settings:
    return mirrored(data, mirror)


def flip(path: Path, needle: bytes, at: int | None = None) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(needle) + (len(needle) // 2 if at is None else at)] ^= 0x41  # Two bits: no checksum alone mends it.
    path.write_bytes(content)


# --- equal


def test_every_change_goes_to_both(settings: Settings) -> None:
    recover(settings)
    with living(settings) as life:
        assert_equal(settings)
        life.send(*ALL)
        assert_equal(settings)
        for one in ALL:
            assert one.data_set in segment_of(Path(settings.journal.mirror), one).read_bytes()
        life.packer.pack_now()
        life.home.journal.make_spare()
        delete(life, SMALL[0].sop_instance_uid)
        assert_equal(settings)
        life.send(SMALL[0], make_object(3, 1, 1))
        life.packer.pack_now()
        compact(life)
        assert_equal(settings)
    assert_equal(settings)
    recover(settings)
    assert_equal(settings)
    assert list((Path(settings.journal.mirror) / "journal/sealed").iterdir()) == []
    assert verify(settings) == []


def test_segments_are_recycled_in_both(settings: Settings, mirror: Path) -> None:
    recover(settings)
    inodes: list[dict[Path, set[int]]] = []
    for number in range(3):
        with living(settings) as life:
            life.send(make_object(number + 1, 1, 1))
        with living(settings) as life:
            life.packer.pack_now()
        inodes.append({f: {p.stat().st_ino for p in (f / "journal").rglob("*.seg")} for f in (settings.node.data, mirror)})
        assert_equal(settings)
    for folder in (settings.node.data, mirror):
        assert inodes[1][folder] & inodes[2][folder], "no file lived again"


def test_a_journal_that_was_there_before_gets_a_mirror(data: Path, mirror: Path) -> None:
    alone, both = mirrored(data, None), mirrored(data, mirror)
    recover(alone)
    with living(alone) as life:
        life.send(*ALL)
    with pytest.raises(WrongUse, match="is not there"), living(both):
        pass
    recover(both)
    assert_equal(both)
    assert (mirror / "node.json").read_bytes() == (data / "node.json").read_bytes()
    with living(both) as life:
        life.assert_served(ALL)


# --- the second disk fails


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("call", ["create", "write", "counters", "sync", "rename", "free"])
def test_what_the_second_disk_does_not_take_is_refused(settings: Settings, mirror: Path, call: str, large: bool) -> None:
    disk = FailingDisk(mirror, call)
    recover(settings, disk=disk)
    one = LARGE if large else make_object(5, 1, 1)
    with living(settings, disk) as life:
        life.send(SMALL[0])
    with living(settings, disk) as life:
        disk.failing = True
        with pytest.raises(Exhausted, match="the mirror of the journal"):
            life.send(one)
        with pytest.raises(Exhausted, match="until the node is started again"):
            life.send(SMALL[1])  # The disk may be well again: the two may not be equal.
        disk.failing = False
        with pytest.raises(Exhausted, match="until the node is started again"):
            life.send(SMALL[1])
        life.assert_served([SMALL[0]])  # Reading goes on.
    assert recover(settings, disk=disk).damaged == []
    assert_equal(settings)
    with living(settings, disk) as life:
        life.assert_served([SMALL[0]])
        assert life.send(one)[0].outcome in ("new", "same")  # R1: a record may be there that nobody was told of.
        life.packer.pack_now()
        life.assert_served([SMALL[0], one])
    assert verify(settings) == []


def test_a_full_second_disk_is_a_full_disk(settings: Settings, mirror: Path) -> None:
    disk = FailingDisk(mirror, "write", errno.ENOSPC)
    recover(settings, disk=disk)
    with living(settings, disk) as life:
        life.send(SMALL[0])
        disk.failing = True
        with pytest.raises(Exhausted, match="the mirror of the journal: the disk is full"):
            life.send(SMALL[1])
        disk.failing = False
        life.send(SMALL[1], SMALL[2])  # It took nothing, and the two are equal.
        life.assert_served(SMALL)
    recover(settings, disk=disk)
    assert_equal(settings)


def test_the_bound_is_that_of_the_disk_that_has_less(settings: Settings, mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bounded = settings.model_copy(update={"journal": settings.journal.model_copy(update={"free_bytes_min": 1000})})
    monkeypatch.setattr(Disk, "free_bytes", lambda self, path: 999 if str(path).startswith(str(mirror)) else 1 << 40)
    recover(bounded)
    with living(bounded) as life, pytest.raises(Exhausted, match="999 bytes free"):
        life.send(SMALL[0])


@pytest.mark.parametrize("where", ["not there", "inside"])
def test_a_folder_that_cannot_be_it(data: Path, where: str, tmp_path: Path) -> None:
    folder = tmp_path / "nowhere" if where == "not there" else data / "mirror"
    if where == "inside":
        folder.mkdir(parents=True)
    with pytest.raises(WrongUse, match=r"journal\.mirror"):
        recover(mirrored(data, folder))


# --- of another time


def test_a_mirror_that_was_off_for_a_while_is_not_written_over(data: Path, mirror: Path) -> None:
    alone, both = mirrored(data, None), mirrored(data, mirror)
    recover(both)
    with living(both) as life:
        life.send(*SMALL)
    with pytest.raises(WrongUse, match="Name it; or remove"):
        recover(alone)
    with pytest.raises(WrongUse, match="Name it; or remove"), living(alone):
        pass  # A verb beside the running node, without the node's settings.
    (data / "journal/mirror").unlink()
    recover(alone)
    with living(alone) as life:
        life.send(LARGE)
    before = contents(mirror)
    with pytest.raises(WrongUse, match="of another time"):
        recover(both)
    assert contents(mirror) == before
    shutil.rmtree(mirror)
    mirror.mkdir()
    recover(both)
    assert_equal(both)
    with living(both) as life:
        life.assert_served(ALL)


def test_a_new_second_disk_gets_everything(settings: Settings, mirror: Path) -> None:
    recover(settings)
    with living(settings) as life:
        life.send(*ALL)
    shutil.rmtree(mirror)
    mirror.mkdir()
    recover(settings)
    assert_equal(settings)


def test_the_first_disk_is_lost(tmp_path: Path, data: Path, mirror: Path) -> None:
    """Packs rest elsewhere. The start does not take an empty journal for the truth."""
    settings = mirrored(data, mirror)
    settings = settings.model_copy(update={"node": settings.node.model_copy(update={"tier": f"file://{tmp_path}/tier"})})
    recover(settings)
    with living(settings) as life:
        life.send(SMALL[0])
        life.packer.pack_now()
        life.send(*SMALL[1:], LARGE)
        node = life.home.identity.node
    shutil.rmtree(data)
    with pytest.raises(WrongUse, match=f"copy everything in {mirror} to {data}"):
        recover(settings)
    shutil.copytree(mirror, data, dirs_exist_ok=True)
    assert recover(settings).damaged == []
    with living(settings) as life:
        assert life.home.identity.node == node
        life.assert_served(ALL)
        life.packer.pack_now()
        life.assert_served(ALL)
    assert_equal(settings)
    assert verify(settings) == []


# --- each mends the other


@pytest.fixture
def filled(settings: Settings) -> Settings:
    recover(settings)
    with living(settings) as life:
        life.send(*ALL)
    return settings


def assert_all_is_well(settings: Settings) -> None:
    assert verify(settings) == []
    assert recover(settings).damaged == []
    assert_equal(settings)
    with living(settings) as life:
        life.assert_served(ALL)
        assert life.packer.pack_now().set_aside == {}
        life.assert_served(ALL)


@pytest.mark.parametrize("damaged", [SMALL[1], SMALL[2], LARGE])
@pytest.mark.parametrize("how", ["start", "repair"])
def test_a_damaged_record_is_had_from_the_mirror(filled: Settings, damaged: Object, how: str) -> None:
    segment = segment_of(filled.node.data, damaged)
    flip(segment, damaged.data_set)
    content = segment.read_bytes()
    assert "damage" in {finding.severity for finding in verify(filled)}
    with living(filled) as life, pytest.raises(Damaged):
        life.received(damaged)
    if how == "start":
        report = recover(filled)
        assert ["1 records that were damaged" in text for text in report.mended] == [True] and report.damaged == []
    else:
        done = repair(filled, How(apply=True))
        assert ["is taken from the mirror" in text for text in done.steps] == [True]
        assert (done.lost, done.left) == ([], [])
    assert content in [path.read_bytes() for path in (filled.node.data / "quarantine").iterdir()]
    assert_all_is_well(filled)


@pytest.mark.parametrize("how", ["start", "repair"])
def test_a_missing_segment_is_had_from_the_mirror(filled: Settings, how: str) -> None:
    recover(filled)  # It is on the list.
    segment_of(filled.node.data, SMALL[0]).unlink()
    assert [finding.detail for finding in verify(filled)][0] == "is missing"
    if how == "start":
        assert ["was missing and is taken" in text for text in recover(filled).mended] == [True]
    else:
        done = repair(filled, How(apply=True))
        assert (done.lost, done.left) == ([], [])
    assert_all_is_well(filled)


def test_a_list_of_segments_is_had_from_the_mirror(filled: Settings) -> None:
    recover(filled)
    (filled.node.data / "journal/held").write_bytes(b"{}")
    segment_of(filled.node.data, SMALL[0]).unlink()
    assert len(recover(filled).mended) == 1
    assert_all_is_well(filled)


@pytest.mark.parametrize("what", ["a record", "a segment"])
@pytest.mark.parametrize("how", ["start", "repair"])
def test_a_damaged_mirror_is_written_anew(filled: Settings, what: str, how: str) -> None:
    twin = segment_of(Path(filled.journal.mirror), SMALL[1])
    if what == "a record":
        flip(twin, SMALL[1].data_set)
    else:
        twin.unlink()
    number = int(twin.name[:12])
    ((severity, item, detail),) = [(f.severity, f.item, f.detail) for f in verify(filled)]
    assert (severity, item) == ("damage", f"mirror of journal segment {number}")
    assert detail == ("1 of its records are damaged" if what == "a record" else "it is missing")
    if how == "start":
        recover(filled)
    else:
        assert (repair(filled, How(apply=True)).left) == []
    assert_all_is_well(filled)


def test_what_is_whole_in_either_is_put_together(filled: Settings) -> None:
    mirror = Path(filled.journal.mirror)
    flip(segment_of(filled.node.data, SMALL[1]), SMALL[1].data_set)
    flip(segment_of(mirror, SMALL[2]), SMALL[2].data_set)
    recover(filled)
    with living(filled) as life:
        life.assert_served([SMALL[0], SMALL[2], LARGE])
        with pytest.raises((Damaged, NotFound)):
            life.received(SMALL[1])
    done = repair(filled, How(apply=True))
    assert (done.lost, done.left) == ([], [])
    assert any("from the mirror" in text for text in done.steps)
    assert_all_is_well(filled)


def test_what_neither_has_whole_is_named(filled: Settings) -> None:
    for folder in (filled.node.data, Path(filled.journal.mirror)):
        flip(segment_of(folder, SMALL[1]), SMALL[1].data_set)
    done = repair(filled, How(apply=True))
    assert [SMALL[1].sop_instance_uid in text for text in done.lost] == [True]


# --- the rest


def test_nothing_deleted_is_left_in_the_mirror(data: Path, mirror: Path) -> None:
    settings = mirrored(data, mirror)
    recover(settings)
    fill(settings)
    assert "journal" in holding(mirror)
    recover(settings)
    assert erase(settings).left == []
    assert holding(data, mirror) == set()
    with living(settings) as life:
        life.assert_served(OTHERS)
        assert [a.outcome for a in life.send(SECRET, LARGE_SECRET)] == ["new", "new"]
    rebuild_index(settings)
    assert_equal(settings)
