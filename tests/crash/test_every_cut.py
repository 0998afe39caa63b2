"""A node is stopped at every call that changes its disk, with nothing, everything or half of the unsynced lost; then it starts again."""

import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from archive.disk import LOCAL_DISK
from archive.flow.check import verify
from archive.flow.home import Home
from archive.flow.ingest import Accepted
from archive.flow.query import Query, Search
from archive.flow.recovery import recover
from archive.pack.descriptor import Revision
from archive.pack.held import HeldSegments
from archive.tier.tails import read_pack_tail
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.every_cut import calls_of, cut_at_every_call
from tests.flow.objects import NAME, Life, Object, files_below, living, make_object, settings_of

FIRST = [make_object(1, 1, 2), make_object(1, 1, 1), make_object(1, 2, 1, pixel_bytes=100_000)]
"""The last one is large: it streams to a segment of its own."""
LATE = [make_object(1, 1, 3), make_object(2, 1, 1, pixel_bytes=70_000)]
REVISION = make_object(1, 1, 1, pixels=b"another picture!")
LAST = [make_object(3, 1, 1), REVISION]
SENT = [*FIRST, *LATE, *LAST]


class Story:
    """Three lives of a node: objects come, are packed, come late, come again; journal segments are released and recycled."""

    def __init__(self, disk: CuttingDisk, data: Path) -> None:
        self.disk, self.settings = disk, settings_of(data)
        self.acknowledged: list[tuple[Object, Accepted]] = []
        self._home: Home | None = None

    def __str__(self) -> str:
        return f"{len(self.acknowledged)} acknowledged"

    def run(self) -> None:
        with suppress(Cut):
            self._life(FIRST)
            self._life([*LATE, FIRST[0]], pack=True)
            self._life(LAST, pack=True)
        if self._home is not None:
            self._home.pool.close()
            self._home.index.close()
        self.disk.close_all()

    def _life(self, objects: list[Object], pack: bool = False) -> None:
        recover(self.settings, disk=self.disk)
        self._home = Home(self.settings, "test-0", self.disk)
        life = Life(self._home)
        if pack:
            life.packer.pack_now()
        for one in objects:
            self.acknowledged += zip([one], life.send(one), strict=True)
        if pack:
            life.packer.pack_now()
        self._home.close()
        self._home = None


def assert_whole(story: Story, data: Path) -> None:
    """Everything that was acknowledged is served byte for byte, packing works, nothing is damaged, used twice or left behind."""
    settings, acknowledged = story.settings, story.acknowledged
    report = recover(settings)
    assert report.damaged == []
    with living(settings) as life:
        check_served(life, acknowledged)
        (after,) = life.send(make_object(9, 1, 1))
        assert after.revision.sequence > max((accepted.revision.sequence for _, accepted in acknowledged), default=0)
        assert life.packer.pack_now().set_aside == {}
        assert life.home.waiting() == (0, 0)
        check_served(life, [*acknowledged, (make_object(9, 1, 1), after)])
        check_numbers(life)
    assert recover(settings).instances_pending == 0
    assert verify(settings) == []
    left = {name for name in files_below(data) if not name.startswith(("index/", "journal/spare/", f"packs/{NAME}/"))}
    # The list of segments that hold something is there once one did, and says by now that none does.
    assert left - {"journal/held", "journal/mirror"} == {"journal/counters", "journal/writers", "node.json"}
    assert HeldSegments(data / "journal", LOCAL_DISK).read() == set()


def check_served(life: Life, acknowledged: list[tuple[Object, Accepted]]) -> None:
    revisions = {}
    for one, accepted in acknowledged:
        found = life.home.index.revisions(one.sop_instance_uid)
        (stored,) = [f for f in found if f.revision == accepted.revision]
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.stored_data_set()) == one.data_set
        revisions[accepted.revision] = one.data_set
    query = Query("instance", {}, "all", 100, 0)
    rows = [row["00080018"]["Value"][0] for row in Search(life.home).search(query).rows]
    assert len(rows) == len(set(rows))
    assert {one.sop_instance_uid for one, _ in acknowledged} <= set(rows) <= {one.sop_instance_uid for one in [*SENT, make_object(9)]}


def check_numbers(life: Life) -> None:
    """Pack numbers have no gap, and every revision id names one object."""
    numbers: list[int] = []
    digests: dict[Revision, str] = {}
    for entry in life.home.tier.list_packs(NAME):
        numbers.append(entry.name.sequence)
        for series in read_pack_tail(life.home.tier, entry.name).series:
            for _, descriptor in series.instances:
                assert digests.setdefault(descriptor.revision, descriptor.digest) == descriptor.digest
    assert numbers == list(range(1, len(numbers) + 1))


def test_without_a_cut(folder: Path) -> None:
    disk = CuttingDisk()
    story = Story(disk, folder / "data")
    story.run()
    assert [accepted.outcome for _, accepted in story.acknowledged] == ["new"] * 5 + ["same", "new", "revision"]
    assert_whole(story, folder / "data")


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "torn"), [("nothing", True), ("unsynced", False), ("unsynced bytes", False)])
def test_a_cut_at_every_call(folder: Path, loss: Loss, torn: bool) -> None:
    cut_at_every_call(Story, folder, assert_whole, loss, torn)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
def test_a_cut_of_the_start_after_a_cut(folder: Path, loss: Loss) -> None:
    """Every tenth cut, and the start after it cut off at every other call."""
    total = calls_of(Story, folder)
    for calls in range(7, total, 10):
        calls_of_the_start = 0
        while True:
            data = folder / "data"
            disk = CuttingDisk(calls)
            story = Story(disk, data)
            story.run()
            disk.lose(loss)
            disk.revive(calls_of_the_start)
            with suppress(Cut):
                recover(story.settings, disk=disk)
            over = not disk.is_cut
            disk.close_all()
            disk.lose(loss)
            try:
                assert_whole(story, data)
            except BaseException as error:
                error.add_note(f"cut after call {calls} of {total}, and after call {calls_of_the_start} of the start: {disk.last}")
                raise
            shutil.rmtree(data)
            if over:
                break
            calls_of_the_start += 2
