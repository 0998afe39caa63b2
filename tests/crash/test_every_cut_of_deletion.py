"""A node that deletes and compacts is stopped at every call that changes its disk; then it starts again, with its index and without."""

from contextlib import suppress
from pathlib import Path

import pytest

from archive.flow.check import verify
from archive.flow.compaction import Compactor
from archive.flow.deletion import Deleter
from archive.flow.home import Home
from archive.flow.query import Query, Search
from archive.flow.recovery import rebuild_index, recover
from archive.pack.naming import PackName
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.every_cut import cut_at_every_call
from tests.flow.objects import NAME, Life, living, make_object, pack_files, settings_of

SENT = {number: make_object(1, 1 + number % 2, number, pixel_bytes=70_000 if number == 3 else 300) for number in range(8)}


class Story:
    """One life, whose every step changes what there is: numbers of `SENT` by what is true of them.

    Attributes
    ----------
    there, gone : set of int
        Acknowledged; what the step that was cut was about is in neither.
    """

    def __init__(self, disk: CuttingDisk, data: Path) -> None:
        self.disk = disk
        self.settings = settings_of(data, deletion={"allowed": True}, compaction={"grace_seconds": 0})
        self.there: set[int] = set()
        self.gone: set[int] = set()
        self._home: Home | None = None

    def __str__(self) -> str:
        return f"there {self.there}, gone {self.gone}"

    def run(self) -> None:
        with suppress(Cut):
            recover(self.settings, disk=self.disk)
            self._home = Home(self.settings, "test-0", self.disk)
            self._steps(Life(self._home))
            self._home.close()
            self._home = None
        if self._home is not None:
            self._home.pool.close()
            self._home.index.close()
        self.disk.close_all()

    def _steps(self, life: Life) -> None:
        compactor, deleter = Compactor(life.home, life.packer), Deleter(life.home)

        def send(*numbers: int) -> None:
            for number in numbers:
                self.gone.discard(number)
                life.send(SENT[number])
                self.there.add(number)

        def delete(*numbers: int) -> None:
            self.there -= {*numbers}
            deleter.delete([SENT[number].sop_instance_uid for number in numbers], "test")
            self.gone |= {*numbers}

        send(0, 1, 2)
        life.packer.pack_now()
        send(3, 4)
        delete(0, 4)
        send(0)
        life.packer.pack_now()
        compactor.compact()
        send(5, 6)
        delete(2, 5)
        compactor.compact()
        life.packer.pack_now()
        delete(0)
        compactor.compact()
        send(5, 7)


def check(life: Life, story: Story) -> None:
    life.assert_served([SENT[number] for number in sorted(story.there)])
    rows = [row["00080018"]["Value"][0] for row in Search(life.home).search(Query("instance", {}, "all", 100, 0)).rows]
    assert len(rows) == len(set(rows))
    assert {SENT[number].sop_instance_uid for number in story.there} <= set(rows)
    assert not {SENT[number].sop_instance_uid for number in story.gone} & set(rows)
    for number in story.gone:
        assert life.home.index.revisions(SENT[number].sop_instance_uid) == []
    for number in story.there:
        assert len(life.home.index.revisions(SENT[number].sop_instance_uid)) == 1


def assert_whole(story: Story, data: Path) -> None:
    assert recover(story.settings).damaged == []
    with living(story.settings) as life:
        check(life, story)
        life.packer.pack_now()
        check(life, story)
    rebuild_index(story.settings)
    assert verify(story.settings) == []
    with living(story.settings) as life:
        check(life, story)
        Compactor(life.home, life.packer).compact(every_deletion=True)
        check(life, story)
        numbers = [entry.name.sequence for entry in life.home.tier.list_packs(NAME)]
        assert len(numbers) <= 1
        content = b"".join(path.read_bytes() for path in pack_files(data))
        assert not [number for number in story.gone if SENT[number].data_set in content]
    assert recover(story.settings).instances_pending == 0
    assert verify(story.settings) == []


def test_without_a_cut(folder: Path) -> None:
    story = Story(CuttingDisk(), folder / "data")
    story.run()
    assert (story.there, story.gone) == ({1, 3, 5, 6, 7}, {0, 2, 4})
    assert_whole(story, folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "torn"), [("nothing", True), ("unsynced", False), ("unsynced bytes", False)])
def test_a_cut_at_every_call(folder: Path, loss: Loss, torn: bool) -> None:
    cut_at_every_call(Story, folder, assert_whole, loss, torn)


def assert_whole_without_a_start(story: Story, data: Path) -> None:
    """The packer alone is started again and packs, before the node is."""
    if story.there or story.gone:
        with living(story.settings) as life:
            check(life, story)
            life.packer.pack_now()
            check(life, story)
            assert {entry.name for entry in life.home.tier.list_packs(NAME)} <= known_packs(life)
    assert_whole(story, data)


def known_packs(life: Life) -> set[PackName]:
    with life.home.index.packed.environment.reading() as t:
        return {info.name for info in life.home.index.packed.packs(t)}


@pytest.mark.slow
@pytest.mark.parametrize("torn", [True, False])
def test_the_packer_alone_is_cut_at_every_call(folder: Path, torn: bool) -> None:
    cut_at_every_call(Story, folder, assert_whole_without_a_start, "nothing", torn)
