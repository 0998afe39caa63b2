"""Every row of the crash table in docs/recovery.md: what is on disk, and what the next start does about it."""

import re
import shutil
from pathlib import Path

import pytest

from archive.errors import Damaged
from archive.flow.check import verify
from archive.flow.ingest import Reception
from archive.flow.packing import Packer
from archive.flow.recovery import rebuild_index, recover
from archive.tier.tails import read_pack_tail
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.crash.doomed import Doomed, plans, restarted, uids
from tests.flow.objects import EXPLICIT, NAME, Life, Object, living, make_object, pack_files, settings_of
from tests.kit import ROOT

SMALL = make_object(1, 3, 1, pixel_bytes=40_000)
LARGE = make_object(1, 2, 1, pixel_bytes=150_000)
SERIES = [make_object(1, 1, number) for number in (2, 1, 3)]
IN_ORDER = [SERIES[1], SERIES[0], SERIES[2]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def pack_series(doomed: Doomed) -> None:
    doomed.life.send(*SERIES)
    doomed.life.packer.pack_now()


def begin(life: Life, one: Object) -> Reception:
    return life.ingest.begin(
        sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid, transfer_syntax_uid=EXPLICIT, source="test"
    )


def assert_sent_again(life: Life, one: Object, outcome: str) -> None:
    assert life.send(one)[0].outcome == outcome
    assert life.received(one) == one.data_set


def assert_packed(life: Life, objects: list[Object], number: int, packs: int) -> None:
    """The pack with this number holds exactly these, in this order, and it is the last of so many."""
    entries = list(life.home.tier.list_packs(NAME))
    assert [entry.name.sequence for entry in entries] == list(range(1, packs + 1))
    tail = read_pack_tail(life.home.tier, entries[number - 1].name)
    assert [d.sop_instance_uid for series in tail.series for _, d in series.instances] == uids(objects)
    assert life.home.waiting() == (0, 0)
    assert plans(life) == []
    life.assert_served(objects)


def test_every_row_has_a_test() -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/recovery.md").read_text(), re.MULTILINE)
    tested = {name.split("_")[1] for name in globals() if re.match(r"test_[A-Z]\d+_", name)}
    assert tested == set(rows)
    assert len(rows) > 20


# --- an instance


def test_I1_received_and_nothing_written(data: Path) -> None:
    doomed = Doomed(data)
    begin(doomed.life, SMALL).write(SMALL.data_set)
    doomed.die()
    assert doomed.files("journal") == ["counters", "writers"]
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, report.torn, report.instances_pending) == ([], [], 0)
        assert_sent_again(life, SMALL, "new")


def test_I2_part_of_a_record_is_written(data: Path) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.die_before("write .*/open/", lambda: doomed.life.send(SMALL), torn=True)
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, len(report.torn), report.instances_pending) == ([], 1, 3)
        life.assert_served(SERIES)
        life.packer.pack_now()
        assert not [number for number, _ in life.home.journal.segments() if number == 1]
        life.assert_served(SERIES)


def test_I2_a_page_of_the_payload_alone_did_not_come_down(data: Path) -> None:
    """It cannot be told from an acknowledged record that rotted, so it is kept until its sender has sent it again."""
    doomed = Doomed(data)
    doomed.die_before("sync .*/open/.*seg", lambda: doomed.life.send(SMALL))
    (segment,) = (data / "journal/open").iterdir()
    with segment.open("r+b") as file:
        file.seek(5 * 4096)
        file.write(bytes(4096))
    with restarted(doomed.settings) as (report, life):
        assert [SMALL.sop_instance_uid in text for text in report.damaged] == [True]
        with pytest.raises(Damaged):
            life.received(SMALL)
        assert_sent_again(life, SMALL, "new")
        assert life.packer.pack_now().set_aside == {}
        assert_packed(life, [SMALL], number=1, packs=1)
    assert recover(doomed.settings).damaged == []
    assert doomed.files("journal/sealed") == []


@pytest.mark.parametrize(("loss", "taken_in"), [("nothing", 1), ("unsynced", 0), ("unsynced bytes", 0)])
def test_I3_the_record_is_written_and_not_synced(data: Path, loss: Loss, taken_in: int) -> None:
    doomed = Doomed(data)
    doomed.die_before("sync .*/open/.*seg", lambda: doomed.life.send(SMALL), loss)
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, report.torn, report.instances_pending) == ([], [], taken_in)
        assert_sent_again(life, SMALL, "same" if taken_in else "new")


def test_I3_a_whole_record_is_synced_before_it_is_taken_in(data: Path) -> None:
    doomed = Doomed(data)
    doomed.die_before("sync .*/open/.*seg", lambda: doomed.life.send(SMALL))
    again = Doomed(data, doomed.disk)
    again.life.assert_served([SMALL])
    again.die("unsynced bytes")
    with restarted(doomed.settings) as (_, life):
        life.assert_served([SMALL])


def test_I4_the_record_is_synced(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = Doomed(data)
    with monkeypatch.context() as patch:
        patch.setattr(Reception, "_publish", cut)
        doomed.die_in(lambda: doomed.life.send(SMALL), "unsynced")
    with restarted(doomed.settings) as (report, life):
        assert report.instances_pending == 1
        assert_sent_again(life, SMALL, "same")


def test_I5_the_pending_index_is_written_and_no_answer_sent(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    doomed = Doomed(data)
    publish = Reception._publish

    def publish_and_cut(*arguments: object) -> None:
        publish(*arguments)  # type: ignore[arg-type]
        raise Cut

    with monkeypatch.context() as patch:
        patch.setattr(Reception, "_publish", publish_and_cut)
        doomed.die_in(lambda: doomed.life.send(SMALL), "unsynced")
    (data / "index/pending/data.mdb").write_bytes(b"torn" * 5000)
    with restarted(doomed.settings) as (report, life):
        assert report.instances_pending == 1
        assert_sent_again(life, SMALL, "same")


def test_I6_success_is_sent(data: Path) -> None:
    doomed = Doomed(data)
    (accepted,) = doomed.life.send(SMALL)
    doomed.die("unsynced")
    with restarted(doomed.settings) as (report, life):
        assert report.instances_pending == 1
        (found,) = life.home.index.revisions(SMALL.sop_instance_uid)
        assert found.revision == accepted.revision
        assert_sent_again(life, SMALL, "same")


# --- a large instance


def test_L1_part_of_a_large_object_is_streamed(data: Path) -> None:
    doomed = Doomed(data)
    begin(doomed.life, LARGE).write(LARGE.data_set[:100_000])
    doomed.die()
    assert doomed.files("journal/incoming") == ["000000000001.test-0.part"]
    with restarted(doomed.settings) as (report, life):
        assert report.left_over == ["000000000001.test-0.part"]
        assert doomed.files("journal/incoming") == []
        assert_sent_again(life, LARGE, "new")


def test_L2_the_headers_are_written_and_it_is_not_renamed(data: Path) -> None:
    doomed = Doomed(data)
    doomed.die_before("rename .*/incoming/", lambda: doomed.life.send(LARGE))
    assert doomed.files("journal/incoming") == ["000000000001.test-0.part"]
    with restarted(doomed.settings) as (report, life):
        assert (report.left_over, report.instances_pending) == (["000000000001.test-0.part"], 0)
        assert_sent_again(life, LARGE, "new")


@pytest.mark.parametrize(("call", "loss"), [("sync folder .*/open", "nothing"), ("rename .*/open/.*/sealed/", "unsynced")])
def test_L3_it_is_renamed(data: Path, call: str, loss: Loss) -> None:
    doomed = Doomed(data)
    doomed.die_before(call, lambda: doomed.life.send(LARGE), loss)
    assert doomed.files("journal/open") == ["000000000001.test-0.seg"]
    with restarted(doomed.settings) as (report, life):
        assert (report.damaged, report.instances_pending) == ([], 1)
        assert_sent_again(life, LARGE, "same")


# --- segments


def test_S1_a_new_segments_file_is_made(data: Path) -> None:
    doomed = Doomed(data)
    doomed.die_before("rename .*/incoming/", lambda: doomed.life.send(SMALL))
    assert doomed.files("journal/incoming") == ["000000000001.test-0.part"]
    with restarted(doomed.settings) as (report, life):
        assert (report.left_over, report.damaged) == (["000000000001.test-0.part"], [])
        assert_sent_again(life, SMALL, "new")


def test_S1_a_spare_segment_has_its_new_header(data: Path) -> None:
    first = Doomed(data)
    pack_series(first)
    first.end()
    second = Doomed(data, first.disk)  # Its start releases the segment.
    assert second.files("journal/spare") == ["000000000001.seg"]
    second.die_before("rename .*/spare/", lambda: second.life.send(SMALL))
    assert second.files("journal/spare") == ["000000000001.seg"]
    with restarted(second.settings) as (report, life):
        assert (report.damaged, report.torn, report.instances_pending) == ([], [], 0)
        life.assert_served(SERIES)
        assert_sent_again(life, SMALL, "new")
    assert second.files("journal/spare") == []


@pytest.mark.parametrize(("loss", "folder"), [("nothing", "sealed"), ("unsynced", "open")])
def test_S2_a_segment_is_sealed(data: Path, loss: Loss, folder: str) -> None:
    doomed = Doomed(data)
    doomed.life.send(*SERIES)
    doomed.end()
    doomed.disk.close_all()
    doomed.disk.lose(loss)
    assert len(doomed.files(f"journal/{folder}")) == 1
    with restarted(doomed.settings) as (report, life):
        assert report.instances_pending == 3
        assert doomed.files("journal/open") == []
        life.assert_served(SERIES)


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
        patch.setattr(Packer, "_forget", cut)
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


# --- damage, and what is lost


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


def cut(*_: object) -> None:
    raise Cut


def flip(file: Path, where: bytes) -> None:
    """One bit of the last of these bytes, in the only place that holds them."""
    content = bytearray(file.read_bytes())
    assert content.count(where) == 1
    content[content.index(where) + len(where) - 1] ^= 1
    file.write_bytes(content)


def test_V2_the_planned_pack_rests_and_is_damaged(data: Path) -> None:
    with living(settings_of(data)) as life:
        life.send(first := make_object(1, 1, 1))
        life.packer.pack_now()
    [pack] = pack_files(data)
    with open(pack, "r+b") as file:
        file.truncate(pack.stat().st_size - 1)
    assert len(rebuild_index(settings_of(data)).damaged) == 1
    with living(settings_of(data)) as life:
        life.packer.pack_now()
        life.assert_served([first])
    assert [path.name[:12] for path in pack_files(data)] == ["000000000001", "000000000002"]
