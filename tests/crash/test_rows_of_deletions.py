"""Rows D of the crash table in docs/recovery.md, and X6, which is about deletions."""

import shutil
from pathlib import Path
from unittest import mock

import pytest

from archive.errors import Exhausted, NotFound, Unavailable
from archive.flow import deletion as deletion_module
from archive.flow.check import verify
from archive.flow.deletion import Deleter
from archive.flow.pack_steps import PackSteps
from archive.flow.recovery import rebuild_index, recover
from archive.index.located import SeriesKey
from archive.index.packed_writer import PackedWriter
from archive.index.pending import PendingIndex
from archive.tier.directory import DirectoryTier
from archive.tier.tails import read_pack_tail
from tests.crash.cutting import Loss
from tests.crash.doomed import Doomed, plans, restarted
from tests.crash.rows import IN_ORDER, SERIES, SMALL, assert_sent_again, cut
from tests.flow.objects import NAME, Life, Object, living, make_object, settings_of

ALLOWED = {"deletion": {"allowed": True}}
GONE, LEFT = SERIES[1], [SERIES[0], SERIES[2]]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture(params=["in the journal", "in a pack"])
def doomed(request: pytest.FixtureRequest, data: Path) -> Doomed:
    """The series waits to be packed, or rests in one."""
    one = Doomed(data, None, **ALLOWED)
    one.life.send(*SERIES)
    if request.param == "in a pack":
        one.life.packer.pack_now()
    return one


def delete(life: Life, one: Object = GONE) -> None:
    Deleter(life.home).delete([one.sop_instance_uid], "test")


def assert_gone(life: Life, gone: Object = GONE) -> None:
    with pytest.raises(NotFound):
        life.received(gone)
    assert life.home.index.revisions(gone.sop_instance_uid) == []


def assert_stays_gone(doomed: Doomed) -> None:
    """After packing, with a new index, and the same object sent again."""
    with living(doomed.settings) as life:
        life.packer.pack_now()
        assert_gone(life)
    rebuild_index(doomed.settings)
    with living(doomed.settings) as life:
        assert_gone(life)
        life.assert_served(LEFT)
        assert_sent_again(life, GONE, "new")
        life.packer.pack_now()
    rebuild_index(doomed.settings)
    assert verify(doomed.settings) == []
    with living(doomed.settings) as life:
        life.assert_served(SERIES)


@pytest.mark.parametrize("torn", [False, True])
def test_D1_the_record_is_written_and_not_synced(doomed: Doomed, torn: bool) -> None:
    doomed.die_before(
        "write .*/open/" if torn else "sync .*/open/.*seg", lambda: delete(doomed.life), "nothing" if torn else "unsynced", torn=torn
    )
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served(SERIES)
        delete(life)
        assert_gone(life)
    assert_stays_gone(doomed)


def test_D1_a_whole_record_is_believed(doomed: Doomed) -> None:
    doomed.die_before("sync .*/open/.*seg", lambda: delete(doomed.life), "nothing")
    with restarted(doomed.settings) as (_, life):
        assert_gone(life)
        life.assert_served(LEFT)
    assert_stays_gone(doomed)


@pytest.mark.parametrize("loss", ["nothing", "unsynced"])
@pytest.mark.parametrize(
    ("row", "step"),
    [("D2", (PendingIndex, "add_deletion")), ("D2", (PackedWriter, "delete")), ("D3", (PendingIndex, "remove"))],
)
def test_D2_and_D3_the_record_is_synced(
    doomed: Doomed, row: str, step: tuple[type, str], loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*step, cut)
        doomed.die_in(lambda: delete(doomed.life), loss)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        assert_gone(life)
        life.assert_served(LEFT)
    assert_stays_gone(doomed)


def test_D3_what_was_sent_again_is_not_taken_for_the_deleted_one(doomed: Doomed) -> None:
    delete(doomed.life)
    assert_sent_again(doomed.life, GONE, "new")
    doomed.die("unsynced")
    with restarted(doomed.settings) as (_, life):
        life.assert_served(SERIES)
        assert life.send(GONE)[0].outcome == "same"
        life.packer.pack_now()
    rebuild_index(doomed.settings)
    with living(doomed.settings) as life:
        life.assert_served(SERIES)


def test_D4_between_two_records_of_a_large_deletion(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deletion_module, "DELETED_PER_RECORD_MAX", 2)
    doomed.die_before("write .*/open/", lambda: Deleter(doomed.life.home).delete(["1.2.1.1"], "test"), skip=1)
    with restarted(doomed.settings) as (_, life):
        assert len(life.retrieval.instances("1.2.1")) == 1
        Deleter(life.home).delete(["1.2.1.1"], "test")
        for one in SERIES:
            assert_gone(life, one)
    rebuild_index(doomed.settings)
    with living(doomed.settings) as life:
        for one in SERIES:
            assert_gone(life, one)


@pytest.mark.parametrize("when", ["before it is committed", "after"])
def test_D5_the_pack_that_holds_it_is_renamed(doomed: Doomed, when: str, monkeypatch: pytest.MonkeyPatch) -> None:
    delete(doomed.life)
    if when == "after":
        with monkeypatch.context() as patch:
            patch.setattr(PackSteps, "forget", cut)
            doomed.die_in(doomed.life.packer.pack_now, "unsynced")
    else:
        doomed.die_before("sync folder .*packs/.*/000000000$", doomed.life.packer.pack_now)
    with restarted(doomed.settings) as (_, life):
        assert_gone(life)
        life.packer.pack_now()
        tails = [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]
        assert sum(len(tail.deletions) for tail in tails) == 1
    assert_stays_gone(doomed)


@pytest.mark.parametrize("step", ["add_deletion", "remove"])
def test_D8_the_packer_alone_is_started_again(doomed: Doomed, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And packs at once, so that segments are released."""
    with monkeypatch.context() as patch:
        patch.setattr(PendingIndex, step, cut)
        doomed.die_in(lambda: delete(doomed.life))
    with living(doomed.settings) as life:
        life.send(SMALL)
        life.packer.pack_now()
        assert_gone(life)
        life.assert_served([SMALL, *LEFT])
    assert_stays_gone(doomed)


def test_D8_after_an_error(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row D7, then the packer's end."""
    with monkeypatch.context() as patch:
        patch.setattr(PendingIndex, "add_deletion", mock.Mock(side_effect=Exhausted("the index is full")))
        with pytest.raises(Exhausted):
            delete(doomed.life)
    doomed.die()
    with living(doomed.settings) as life:
        life.packer.pack_now()
    assert_stays_gone(doomed)


def test_D8_what_nobody_let_go_of_is_not_deleted_later(doomed: Doomed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sender of the same object was told, after the packer's end, that the archive has it."""
    doomed.life.send(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(PackedWriter, "delete", cut)
        doomed.die_in(lambda: delete(doomed.life))
    with living(doomed.settings) as life:
        assert_sent_again(life, GONE, "same")
        with life.packer._lock:
            life.packer._resume(None)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.assert_served([SMALL, *SERIES])
        life.packer.pack_now()
    rebuild_index(doomed.settings)
    with living(doomed.settings) as life:
        life.assert_served([SMALL, *SERIES])


@pytest.mark.parametrize("call", ["create .*inflight", "rename .*inflight", "sync folder .*packs/.*/000000000$"])
def test_D6_a_planned_instance_is_deleted_before_its_pack_is_known(data: Path, call: str) -> None:
    doomed = Doomed(data, None, **ALLOWED)
    doomed.life.send(*SERIES)
    doomed.die_before(call, doomed.life.packer.pack_now)
    with restarted(doomed.settings) as (_, life):
        delete(life)
        assert_gone(life)
    with restarted(doomed.settings) as (report, life):
        assert report.damaged == []
        life.packer.pack_now()
        assert (life.home.waiting(), plans(life)) == ((0, 0), [])
        assert_gone(life)
        life.assert_served(LEFT)
        for entry in life.home.tier.list_packs(NAME):
            held = [d for series in read_pack_tail(life.home.tier, entry.name).series for _, d in series.instances]
            assert len(held) == len({d.revision for d in held})
    assert_stays_gone(doomed)


def test_D6_and_its_pack_rests_without_having_been_committed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commit failed, the node goes on: the pack is taken as it is, nothing of it is packed twice."""
    doomed = Doomed(data, None, **ALLOWED)
    doomed.life.send(*SERIES)
    with monkeypatch.context() as patch:
        patch.setattr(doomed.life.packer._steps, "commit", lambda *_: (_ for _ in ()).throw(OSError("the index is full")))
        with pytest.raises(OSError, match="full"):
            doomed.life.packer.pack_now()
    delete(doomed.life)
    doomed.life.packer.pack_now()
    assert_gone(doomed.life)
    doomed.life.assert_served(LEFT)
    tails = [read_pack_tail(doomed.life.home.tier, entry.name) for entry in doomed.life.home.tier.list_packs(NAME)]
    assert [len(s.instances) for tail in tails for s in tail.series] == [len(IN_ORDER)]
    assert doomed.life.home.waiting() == (0, 0)
    doomed.end()
    assert_stays_gone(doomed)


def test_other_series_are_not_touched(doomed: Doomed) -> None:
    doomed.life.send(SMALL)
    delete(doomed.life)
    doomed.die()
    with restarted(doomed.settings) as (_, life):
        life.assert_served([SMALL, *LEFT])


@pytest.mark.parametrize("how", ["lost", "of another version"])
def test_X6_the_index_is_lost_and_the_tier_is_away(data: Path, how: str) -> None:
    """An image was deleted, and its deletion rests in a pack; the journal still has it, beside one that waits."""
    settings, other = settings_of(data, deletion={"allowed": True}), make_object(2, 1, 1)
    recover(settings)
    with living(settings) as life:
        life.send(SMALL, other)
    for step in ("delete", "pack the deletion"):
        recover(settings)
        with living(settings) as life, life.packer._lock:
            if step == "delete":
                life.packer._pack([SeriesKey(SMALL.study_instance_uid, SMALL.series_instance_uid)], None, now=False)
                Deleter(life.home).delete([SMALL.sop_instance_uid], "test")
            else:
                life.packer._pack([], None, now=True)
    if how == "lost":
        shutil.rmtree(data / "index")
    else:
        (data / "index/format").write_text("0\n")
    with mock.patch.object(DirectoryTier, "nodes", side_effect=Unavailable("away")):
        for _ in range(2):
            with pytest.raises(Unavailable, match="has to be made anew"):
                recover(settings)
    with restarted(settings) as (report, life):
        assert report.damaged == []
        life.assert_served([other])
        with pytest.raises(NotFound):
            life.received(SMALL)
