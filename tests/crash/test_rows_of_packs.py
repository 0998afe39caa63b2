"""Rows P, V and X of the crash table in docs/recovery.md: what is on disk, and what the next start does about it."""

import random
import shutil
from pathlib import Path

import pytest

from archive.errors import Damaged, Exhausted
from archive.flow.check import verify
from archive.flow.deletion import Deleter
from archive.flow.pack_steps import PackSteps
from archive.flow.recovery import rebuild_index, recover
from archive.flow.repair import How, repair
from archive.tier.tails import read_pack_tail
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.doomed import Doomed, plans, restarted, uids
from tests.crash.rows import IN_ORDER, LARGE, SERIES, SMALL, assert_packed, assert_sent_again, cut, flip, pack_series
from tests.crash.simulated import SimulatedDisk
from tests.flow.objects import NAME, Life, living, make_object, pack_files, settings_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# --- a pack


def test_P1_the_plan_is_written_and_not_synced(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("sync .*/open/.*seg", doomed.life.packer.pack_now, "unsynced")
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, plans(life)) == ([], [])
        life.packer.pack_now()
        assert_packed(life, IN_ORDER, number=1, packs=1)


def test_P1_the_plan_is_torn(data: Path) -> None:
    doomed = Doomed(data)
    many = [make_object(2, 1, number) for number in range(1, 100)]  # So that half of what is written is more than the header.
    doomed.life.send(*many)
    doomed.die_before("write .*/open/", doomed.life.packer.pack_now, torn=True)
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, len(report.torn), plans(life)) == ([], 1, [])
        life.packer.pack_now()
        assert_packed(life, many, number=1, packs=1)
    recover(doomed.settings)
    assert doomed.files("journal/sealed") == []


def test_P9_a_plan_whose_sync_failed_is_there_all_the_same(data: Path) -> None:
    """Its records were planned anew under the same number, and packed: it must not be taken for another node's."""
    rng = random.Random(1)
    disk = SimulatedDisk(rng)
    settings = settings_of(data)
    recover(settings, disk=disk)
    with living(settings, disk) as life:
        life.send(*SERIES)
        sync = disk.sync
        failed: list[int] = []

        def fail_once(fd: int) -> None:
            if not failed:
                failed.append(fd)
                raise OSError(5, "Input/output error")
            sync(fd)

        disk.sync = fail_once  # type: ignore[method-assign]
        with pytest.raises(Exhausted):
            life.packer.pack_now()
        life.packer.release_segments = lambda: 0  # type: ignore[method-assign]  # It stops before.
        life.packer.pack_now()
    with restarted(settings) as (_, life):
        assert len(plans(life)) == 1
        late = make_object(1, 1, 4)
        life.send(late)
        life.packer.pack_now()
        assert_packed(life, IN_ORDER, number=1, packs=2)
        life.assert_served([late])


@pytest.mark.parametrize("call", ["create .*inflight", "sync .*/open/.*seg"])
def test_P2_the_plan_is_synced(data: Path, call: str) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before(call, doomed.life.packer.pack_now)
    with restarted(doomed.settings) as (_, life):
        assert_the_plan_is_finished(life)


def assert_the_plan_is_finished(life: Life) -> None:
    (plan,) = plans(life)
    assert plan.pack_sequence == 1
    life.send(make_object(1, 1, 0))  # The plan stays as it was.
    life.packer.pack_now()
    assert_packed(life, IN_ORDER, number=1, packs=2)
    first = next(iter(life.home.tier.list_packs(NAME)))
    assert read_pack_tail(life.home.tier, first.name).header["plan_id"] == plan.plan_id


def test_P3_part_of_the_pack_is_streamed(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("write .*inflight", doomed.life.packer.pack_now, skip=3, torn=True)
    assert doomed.files("packs") == [f".inflight/{NAME}-000000000001.zip"]
    with restarted(doomed.settings) as (report, life):
        assert report.left_over == [f"{NAME}-000000000001.zip"]
        assert doomed.files("packs") == []
        assert_the_plan_is_finished(life)


def test_P4_the_pack_is_synced_and_not_renamed(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("rename .*inflight", doomed.life.packer.pack_now)
    assert doomed.files("packs") == [f".inflight/{NAME}-000000000001.zip"]
    with restarted(doomed.settings) as (_, life):
        assert doomed.files("packs") == []
        assert_the_plan_is_finished(life)


def test_P5_the_pack_is_renamed(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("sync folder .*packs/.*/000000000$", doomed.life.packer.pack_now)
    assert len(pack_files(data)) == 1
    with restarted(doomed.settings) as (report, life):
        assert (report.packs_adopted, report.instances_pending) == (1, 0)
        assert life.packer.pack_now().packs == 0
        assert_packed(life, IN_ORDER, number=1, packs=1)
    assert verify(doomed.settings) == []


def test_P6_the_index_is_committed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    with monkeypatch.context() as patch:
        patch.setattr(PackSteps, "forget", cut)
        doomed.die_in(doomed.life.packer.pack_now, "unsynced")
    with restarted(doomed.settings) as (report, life):
        assert (report.packs_adopted, report.instances_pending, plans(life)) == (0, 0, [])
        assert life.packer.pack_now().packs == 0
        assert_packed(life, IN_ORDER, number=1, packs=1)


@pytest.mark.parametrize("row", ["P7", "P8"])
def test_P7_and_P8_pending_entries_are_removed(data: Path, row: str) -> None:
    first = Doomed(data)
    first.life.send(*SERIES)
    first.end()
    second = Doomed(data, first.disk)
    if row == "P7":
        second.die_before("rename .*/sealed/.*/spare/", second.life.packer.pack_now)
    else:
        second.life.packer.pack_now()
        assert second.files("journal/spare") == ["000000000001.seg"]
        second.die("unsynced")  # The file has its old name again.
    assert second.files("journal/sealed") == ["000000000001.seg"]
    with restarted(second.settings) as (report, life):
        assert (report.segments_released, report.instances_pending) == (2, 0)  # The plan's segment is the other.
        assert second.files("journal/sealed") == []
        assert_packed(life, IN_ORDER, number=1, packs=1)


def test_P8_a_segment_is_half_released(data: Path) -> None:
    """Removed, not kept: there are spares enough."""
    first = Doomed(data, journal={"spare_segments_max": 0, "segment_bytes": 1 << 20, "large_bytes": 65536, "free_bytes_min": 0})
    first.life.send(LARGE)
    first.life.packer.pack_now()
    assert first.files("journal/sealed") == []
    first.die("unsynced")
    assert "000000000001.seg" in str(first.files("journal"))
    with restarted(first.settings) as (report, life):
        assert report.instances_pending == 0
        assert_packed(life, [LARGE], number=1, packs=1)


@pytest.mark.parametrize(
    "call", ["create .*held", "write .*held", "sync .*held", "rename .*held", "sync folder .*journal$", "unlink .*sealed"]
)
@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
def test_P10_the_list_of_segments_is_written_before_one_is_released(data: Path, call: str, loss: Loss) -> None:
    doomed = Doomed(data, journal={"segment_bytes": 1 << 20, "large_bytes": 65536, "free_bytes_min": 0})
    doomed.life.send(LARGE)
    doomed.life.packer.release_segments()
    doomed.die_before(call, doomed.life.packer.pack_now, loss)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.packer.pack_now()
        life.assert_served([LARGE])
        assert life.home.journal.missing() == []


def test_S3_a_released_segment_lost_the_name_of_its_next_life(data: Path) -> None:
    doomed = Doomed(data)
    pack_series(doomed)
    doomed.end()
    doomed.die("nothing")
    again = Doomed(data, doomed.disk)
    (spare,) = (data / "journal/spare").iterdir()
    again.die_before("rename .*/open/", lambda: again.life.send(SMALL))
    spare.rename(data / "journal/sealed" / spare.name)
    recover(again.settings)
    assert again.files("journal/sealed") == []
    assert verify(again.settings) == []


# --- damage, and what is lost


def test_X5_a_segment_is_missing(data: Path) -> None:
    """It is said by each start and by `verify`, until the file is put back or given up."""
    doomed = Doomed(data)
    doomed.life.send(LARGE, *SERIES)
    doomed.life.packer.release_segments()
    doomed.end()
    (segment,) = [path for path in (data / "journal/sealed").iterdir() if LARGE.data_set in path.read_bytes()]
    kept = segment.rename(data / "elsewhere")
    for _ in range(2):
        with restarted(doomed.settings) as (report, life):
            assert [f"segment {int(segment.stem)} is missing" in text for text in report.damaged] == [True]
            life.assert_served(SERIES)
            life.packer.pack_now()
        assert [(f.item, f.detail) for f in verify(doomed.settings)] == [(f"journal segment {int(segment.stem)}", "is missing")]
    kept.rename(segment)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served([LARGE, *SERIES])


def test_X5_it_is_given_up_by_a_word_of_its_own(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(LARGE)
    doomed.life.packer.release_segments()
    doomed.end()
    for path in (data / "journal/sealed").iterdir():
        path.unlink()
    assert len(recover(doomed.settings).damaged) == 1
    assert repair(doomed.settings, How(apply=True)).left != []
    assert repair(doomed.settings, How(apply=True, accept_loss=True)).left == []
    assert recover(doomed.settings).damaged == []


def test_X5_a_segment_under_the_name_of_another_is_not_taken_for_it(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(LARGE)
    doomed.end()
    (segment,) = (data / "journal/sealed").iterdir()
    segment.rename(segment.with_name("000000000077.seg"))
    with restarted(doomed.settings) as (report, _):
        assert ["its header says that it is segment 1" in text for text in report.damaged] == [True]


def test_V1_a_planned_record_is_found_damaged(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("create .*inflight", doomed.life.packer.pack_now)
    flip(next((data / "journal/open").iterdir()), SERIES[1].data_set)
    with restarted(doomed.settings) as (report, life):
        assert [SERIES[1].sop_instance_uid in text for text in report.damaged] == [True]
        (plan,) = plans(life)
        aside = life.packer.pack_now().set_aside
        assert [SERIES[1].sop_instance_uid in reason for reason in aside.values()] == [True]
        void, good = [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]
        assert (void.header["plan_id"], void.series) == (plan.plan_id, [])
        assert SERIES[1].sop_instance_uid in void.header["void_reason"]
        assert [d.sop_instance_uid for _, d in good.series[0].instances] == uids([SERIES[0], SERIES[2]])
        life.assert_served([SERIES[0], SERIES[2]])
        with pytest.raises(Damaged):
            life.received(SERIES[1])


def test_V2_a_pack_rests_damaged_and_its_plan_is_not_done_with(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("sync folder .*packs/.*/000000000$", doomed.life.packer.pack_now)
    (pack,) = pack_files(data)
    content = pack.read_bytes()
    pack.write_bytes(content[:-100] + b"#" + content[-99:])
    with restarted(doomed.settings) as (report, life):
        assert [pack.name in text for text in report.damaged] == [True]
        assert report.instances_pending == 3
        life.packer.pack_now()
        first, second = [entry.name for entry in life.home.tier.list_packs(NAME)]
        assert (first.sequence, second.sequence) == (1, 2)
        assert [d.sop_instance_uid for _, d in read_pack_tail(life.home.tier, second).series[0].instances] == uids(IN_ORDER)
        assert plans(life) == []
        life.assert_served(SERIES)
    assert [finding.item for finding in verify(doomed.settings)] == [f"pack {first}"]


@pytest.mark.parametrize("fails", ["its folder is not synced", "what waited is not forgotten"])
def test_V3_a_number_is_published_as_void_and_an_error_comes_behind(data: Path, fails: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(data, deletion={"allowed": True})
    recover(settings)
    with living(settings) as life:
        life.send(*SERIES)
        steps, disk = life.packer._steps, life.home.disk

        def fail(*_: object) -> None:
            raise Exhausted("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(disk, "create", fail)
            with pytest.raises(Exhausted):
                life.packer.pack_now()
        assert len(plans(life)) == 1
        Deleter(life.home).delete([SERIES[1].sop_instance_uid], "test")
        with monkeypatch.context() as patch:
            if fails == "its folder is not synced":
                patch.setattr(disk, "sync_folder", lambda path: fail() if path.name == "000000000" else None)
            else:
                patch.setattr(steps, "forget", fail)
            with pytest.raises(Exhausted):
                life.packer.pack_now()
        life.packer.pack_now()
        void, good = [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]
        assert (void.series, plans(life), life.home.waiting()) == ([], [], (0, 0))
        assert [d.sop_instance_uid for _, d in good.series[0].instances] == uids([SERIES[0], SERIES[2]])
        life.assert_served([SERIES[0], SERIES[2]])


def test_X1_the_identity_is_half_written(data: Path) -> None:
    disk = CuttingDisk()
    disk.stop_before("write .*node.json", torn=True)
    with pytest.raises(Cut):
        recover(settings_of(data), disk=disk)
    disk.close_all()
    assert len(list(data.glob("node.json.*.part"))) == 1
    with restarted(settings_of(data)) as (_, life):
        assert not list(data.glob("node.json.*.part"))
        assert_sent_again(life, SMALL, "new")


@pytest.mark.parametrize("lost", ["removed", "old", "short"])
def test_X2_the_numbers_are_lost(data: Path, lost: str) -> None:
    doomed = Doomed(data)
    pack_series(doomed)
    (last,) = doomed.life.send(SMALL)
    doomed.die()
    counters = data / "journal/counters"
    if lost == "removed":
        counters.unlink()
    else:
        counters.write_bytes((1).to_bytes(8, "little") * 2 if lost == "old" else b"\1")
    with restarted(doomed.settings) as (_, life):
        later = life.send(make_object(1, 1, 9), make_object(1, 1, 10, pixel_bytes=80_000))
        assert min(accepted.revision.sequence for accepted in later) > last.revision.sequence
        numbers = [number for number, _ in life.home.journal.segments()]
        assert len(numbers) == len(set(numbers)) == 3
        life.assert_served([*SERIES, SMALL])
    with restarted(doomed.settings) as (_, life):
        life.packer.pack_now()
    shutil.rmtree(data / "journal")  # Everything is packed: numbers go on behind what packs say.
    with restarted(doomed.settings) as (_, life):
        (last_of_all,) = life.send(make_object(1, 1, 11))
        assert last_of_all.revision.sequence > later[1].revision.sequence


@pytest.mark.parametrize("how", ["at the next start", "by rebuild-index"])
def test_X3_the_index_is_lost(data: Path, how: str) -> None:
    doomed = Doomed(data)
    pack_series(doomed)
    doomed.life.send(SMALL, LARGE)
    doomed.die()
    shutil.rmtree(data / "index")
    report = (recover if how == "at the next start" else rebuild_index)(doomed.settings)
    assert (report.packs_adopted, report.instances_pending) == (1, 2)
    with living(doomed.settings) as life:
        life.assert_served([*SERIES, SMALL, LARGE])


def test_X4_the_data_folder_is_lost(data: Path, tmp_path: Path) -> None:
    doomed = Doomed(data, node={"data": data, "name": NAME, "tier": f"file://{tmp_path}/tier"})
    pack_series(doomed)
    doomed.end()
    before = doomed.life.home.identity.node
    shutil.rmtree(data)
    with restarted(doomed.settings) as (report, life):
        assert report.packs_adopted == 1
        assert life.home.identity.node != before
        life.assert_served(SERIES)
        late = make_object(1, 1, 4)
        (accepted,) = life.send(late)
        assert accepted.revision.node == life.home.identity.node
        life.packer.pack_now()
        assert_packed(life, [late], number=2, packs=2)
        life.assert_served([*SERIES, late])
