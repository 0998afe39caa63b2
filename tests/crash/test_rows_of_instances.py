"""Rows I, L and S of the crash table in docs/recovery.md: what is on disk, and what the next start does about it."""

from pathlib import Path

import pytest

from archive.errors import Damaged
from archive.flow.ingest import Reception
from archive.flow.recovery import recover
from tests.crash.cutting import Cut, Loss
from tests.crash.doomed import Doomed, restarted
from tests.crash.rows import LARGE, SERIES, SMALL, assert_packed, assert_sent_again, cut, pack_series
from tests.flow.objects import begin


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


# --- an instance


def test_I1_received_and_nothing_written(data: Path) -> None:
    doomed = Doomed(data)
    begin(doomed.life.ingest, SMALL).write(SMALL.data_set)
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
    begin(doomed.life.ingest, LARGE).write(LARGE.data_set[:100_000])
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


def test_L3_the_name_is_made_durable_before_it_is_believed(data: Path) -> None:
    first = Doomed(data)
    first.die_before("sync folder .*/open", lambda: first.life.send(LARGE), "nothing")
    second = Doomed(data, first.disk)
    assert_sent_again(second.life, LARGE, "same")
    second.die("unsynced")
    with restarted(first.settings) as (_, life):
        life.assert_served([LARGE])
