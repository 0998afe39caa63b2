"""Rows M of the crash table in docs/recovery.md: what is on both disks, and what the next start does about it."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.errors import Exhausted, WrongUse
from archive.flow.deletion import Deleter
from archive.flow.recovery import recover
from tests.crash import test_every_cut, test_every_cut_of_deletion
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.doomed import Doomed, restarted
from tests.crash.every_cut import cut_at_every_call
from tests.crash.rows import LARGE, SERIES, SMALL, assert_packed, assert_sent_again
from tests.flow.mirrors import FailingDisk, assert_equal, contents, segment_of
from tests.flow.objects import LARGE_BYTES, living, settings_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    folder.mkdir()
    return folder


def mirrored(mirror: Path | None, **sections: dict[str, Any]) -> dict[str, Any]:
    journal = {"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "free_bytes_min": 0, "mirror": str(mirror or "")}
    return {"deletion": {"allowed": True}, **sections, "journal": journal}


def test_M1_the_mirror_is_begun_and_not_finished(folder: Path) -> None:
    data, mirror = folder / "data", folder / "mirror"
    mirror.mkdir()
    both = settings_of(data, **mirrored(mirror))
    calls, was_cut = 0, True
    while was_cut:
        disk = CuttingDisk()
        before = Doomed(data, disk, **mirrored(None))
        before.life.send(*SERIES, LARGE)
        before.end()
        disk.revive(calls)
        was_cut = False
        try:
            recover(both, disk=disk)
        except Cut:
            was_cut = True
            disk.close_all()
            disk.lose("unsynced" if calls % 2 else "nothing")
            disk.revive()
            assert recover(both).damaged == []
        assert_equal(both)
        with living(both) as life:
            life.assert_served([*SERIES, LARGE])
        calls += 1
        for folder in (data, mirror):
            shutil.rmtree(folder)
        mirror.mkdir()
    assert calls > 20


@pytest.mark.parametrize("loss", ["nothing", "unsynced", "unsynced bytes"])
@pytest.mark.parametrize(
    "call", ["write .*{}/journal/(open|incoming)/", "sync .*{}/journal/(open|incoming)/", "rename .*{}/journal/(open|incoming)/"]
)
@pytest.mark.parametrize("one", [SMALL, LARGE], ids=["small", "large"])
def test_M2_a_change_went_to_the_first_alone(data: Path, mirror: Path, one: Any, call: str, loss: Loss) -> None:
    doomed = Doomed(data, **mirrored(mirror))
    doomed.life.send(*SERIES)

    def go_on() -> None:
        doomed.life.send(one)
        doomed.end()

    doomed.die_before(call.format("mirror"), go_on, loss)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served(SERIES)
        assert_equal(doomed.settings)
        assert life.send(one)[0].outcome in ("new", "same")
        life.packer.pack_now()
        assert_packed(life, sorted([*SERIES, one], key=lambda o: (o.series_instance_uid, o.sop_instance_uid)), number=1, packs=1)


@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
def test_M2_a_segment_was_released_on_the_first_alone(data: Path, mirror: Path, loss: Loss) -> None:
    """And what is void in it does not come back by the mirror."""
    doomed = Doomed(data, **mirrored(mirror))
    doomed.life.send(*SERIES)
    doomed.end()
    doomed = Doomed(data, doomed.disk, **mirrored(mirror))
    doomed.die_before("rename .*mirror/journal/sealed/.*spare", doomed.life.packer.pack_now, loss)
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, report.mended) == ([], [])
        assert_packed(life, [SERIES[1], SERIES[0], SERIES[2]], number=1, packs=1)
        assert life.home.waiting() == (0, 0)
        assert_equal(doomed.settings)


def test_M2_a_process_died_between_the_two_and_another_goes_on(data: Path, mirror: Path) -> None:
    """No start comes between: a worker is killed, the packer releases what it left, a new worker takes its place."""
    doomed = Doomed(data, **mirrored(mirror))
    doomed.life.send(*SERIES, LARGE)
    doomed.die_before("rename .*mirror/journal/open/.*sealed", doomed.end)
    with living(doomed.settings) as life:
        life.packer.pack_now()
        assert life.home.waiting() == (0, 0)
        life.send(SMALL)
        life.packer.pack_now()
        life.assert_served([*SERIES, LARGE, SMALL])
    recover(doomed.settings)
    assert_equal(doomed.settings)
    assert list((mirror / "journal/sealed").iterdir()) == []


def test_M3_the_first_disk_lost_what_it_had_synced(data: Path, mirror: Path) -> None:
    """The last record, so that without the mirror it would be taken for one that was being written."""
    doomed = Doomed(data, **mirrored(mirror))
    doomed.life.send(*SERIES, SMALL)
    doomed.die()
    path = segment_of(data, SMALL)
    content = path.read_bytes()
    at = content.rindex(f'"{SMALL.sop_instance_uid}"'.encode())
    path.write_bytes(content[:at] + bytes(20) + content[at + 20 :])
    with restarted(doomed.settings) as (report, life):
        assert len(report.mended) == 1 and (report.damaged, report.torn) == ([], [])
        life.assert_served([*SERIES, SMALL])
    assert_equal(doomed.settings)


def test_M4_the_mirror_failed_and_the_node_stops(data: Path, mirror: Path) -> None:
    disk = FailingDisk(mirror, "sync")
    settings = settings_of(data, **mirrored(mirror))
    recover(settings, disk=disk)
    with living(settings, disk) as life:
        life.send(*SERIES)
        disk.failing = True
        with pytest.raises(Exhausted, match="the mirror"):
            life.send(SMALL)
        with pytest.raises(Exhausted, match="the mirror"):
            Deleter(life.home).delete([SERIES[0].sop_instance_uid], "test")
        with pytest.raises(Exhausted, match="the mirror"):
            life.packer.pack_now()
        life.home.index.close()  # It is killed.
    with restarted(settings) as (report, life):
        assert report.damaged == []
        life.assert_served(SERIES)
        assert_sent_again(life, SMALL, "same")
        assert_equal(settings)


def test_M5_the_journal_is_lost_and_its_mirror_is_there(data: Path, mirror: Path) -> None:
    doomed = Doomed(data, **mirrored(mirror))
    doomed.life.send(*SERIES, LARGE)
    doomed.die()
    shutil.rmtree(data / "journal")
    before = contents(mirror)
    with pytest.raises(WrongUse, match="If the journal was lost, copy"):
        recover(doomed.settings)
    assert contents(mirror) == before
    shutil.copytree(mirror, data, dirs_exist_ok=True)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served([*SERIES, LARGE])


# --- every cut


class Places:
    """A node's data folder and its mirror, both below the folder that a story gets."""

    def __init__(self, folder: Path) -> None:
        self.data, self.mirror = folder / "node", folder / "mirror"
        self.mirror.mkdir(parents=True)


class MirroredStory(test_every_cut.Story):
    def __init__(self, disk: CuttingDisk, folder: Path) -> None:
        self.places = Places(folder)
        super().__init__(disk, self.places.data)
        self.settings = settings_of(self.places.data, **mirrored(self.places.mirror))

    def assert_whole(self) -> None:
        test_every_cut.assert_whole(self, self.places.data)


class MirroredDeletions(test_every_cut_of_deletion.Story):
    def __init__(self, disk: CuttingDisk, folder: Path) -> None:
        self.places = Places(folder)
        super().__init__(disk, self.places.data)
        self.settings = settings_of(self.places.data, **mirrored(self.places.mirror, compaction={"grace_seconds": 0}))

    def assert_whole(self) -> None:
        test_every_cut_of_deletion.assert_whole(self, self.places.data)


Told = MirroredStory | MirroredDeletions


def lose_the_first_disk(settings: Settings, places: Places) -> None:
    """All but the packs, which rest elsewhere; then what the start asks for, where it asks."""
    for folder in ("journal", "index", "pool", "derived"):
        shutil.rmtree(places.data / folder, ignore_errors=True)
    (places.data / "node.json").unlink(missing_ok=True)
    try:
        recover(settings)
    except WrongUse:
        shutil.copytree(places.mirror, places.data, dirs_exist_ok=True)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kind", "loss", "torn", "first"),
    [
        (MirroredStory, "nothing", True, "kept"),
        (MirroredStory, "unsynced", False, "kept"),
        (MirroredStory, "nothing", True, "lost"),
        (MirroredStory, "unsynced", False, "lost"),
        (MirroredDeletions, "unsynced", False, "kept"),
        (MirroredDeletions, "nothing", True, "lost"),
    ],
)
def test_a_cut_at_every_call(folder: Path, kind: Callable[[CuttingDisk, Path], Told], loss: Loss, torn: bool, first: str) -> None:
    def assert_whole(story: Told, _: Path) -> None:
        if first == "lost":
            lose_the_first_disk(story.settings, story.places)
        story.assert_whole()
        assert_equal(story.settings)

    cut_at_every_call(kind, folder, assert_whole, loss, torn)
