"""Compaction: packs are joined and deleted bytes left out; every revision stays what it was, whoever reads meanwhile."""

import gzip
import random
import shutil
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.flow.check import verify
from archive.flow.compaction_choice import _series_over_packs, choose
from archive.flow.recovery import rebuild_index
from archive.flow.series_view import whole_extent
from archive.flow.superseded import delete_superseded
from archive.index.located import SeriesKey
from tests.flow.compacting import all_rows, allowed, compact, delete, pack_each, revisions, tails, uids
from tests.flow.objects import NAME, Life, Object, living, make_object, pack_files

SERIES = SeriesKey("1.2.1", "1.2.1.1")


@pytest.fixture
def life(data: Path) -> Iterator[Life]:
    with living(allowed(data)) as one:
        yield one


# --- what it does


def test_late_instances_and_small_series_become_one_pack(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in (3, 1)), make_object(2, 1, 1), make_object(1, 1, 2))
        before, rows = revisions(life, sent), all_rows(life)
        metadata = life.retrieval.series_metadata(*SERIES)
        assert whole_extent(life.home.index, SERIES) is None
        report = compact(life)
        assert (report.packs_read, report.packs_written, report.packs_waiting, report.kept) == (4, 1, 0, [])
        assert len(pack_files(data)) == 1
        (tail,) = tails(life)
        assert uids(tail) == [["1.2.1.1.1", "1.2.1.1.2", "1.2.1.1.3"], ["1.2.2.1.1"]]
        assert tail.header["supersedes"] == [[NAME, number] for number in (1, 2, 3, 4)]
        life.assert_served(sent)
        assert (revisions(life, sent), all_rows(life)) == (before, rows)
        assert whole_extent(life.home.index, SERIES) is not None, "its metadata goes out as it lies"
        assert gzip.decompress(life.retrieval.series_metadata(*SERIES)) == gzip.decompress(metadata)
        again = compact(life)
        assert (again.packs_read, again.packs_written) == (0, 0)
    assert verify(settings) == []
    rebuild_index(settings)
    with living(settings) as life:
        life.assert_served(sent)
        assert (revisions(life, sent), all_rows(life)) == (before, rows)
        life.send(make_object(1, 1, 4))
        life.packer.pack_now()
        assert [entry.name.sequence for entry in life.home.tier.list_packs(NAME)] == [5, 6]


def test_deleted_bytes_are_left_out_and_deletions_carried_on(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        sent = [make_object(1, 1, number) for number in range(4)]
        life.send(*sent)
        life.packer.pack_now()
        delete(life, sent[1].sop_instance_uid, sent[2].sop_instance_uid)
        life.packer.pack_now()
        (report,) = [compact(life)]
        assert report.length_dropped > 0
        (tail,) = tails(life)
        assert uids(tail) == [[sent[0].sop_instance_uid, sent[3].sop_instance_uid]]
        assert [uid for d in tail.deletions for _, uid in d.deleted] == [sent[1].sop_instance_uid, sent[2].sop_instance_uid]
        (pack,) = pack_files(data)
        content = pack.read_bytes()
        assert sent[0].data_set in content and sent[1].data_set not in content
        assert whole_extent(life.home.index, SERIES) is not None
    assert verify(settings) == []


def test_everything_deleted_leaves_a_pack_of_deletions(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        delete(life, "1.2.1")
        life.packer.pack_now()
        compact(life)
        (tail,) = tails(life)
        assert (tail.series, len(tail.deletions)) == ([], 1)
        assert compact(life).packs_written == 0
    rebuild_index(settings)
    assert verify(settings) == []


def test_old_packs_beside_the_new_one_bring_nothing_back(data: Path, tmp_path: Path) -> None:
    """Whichever of them are still there when the index is lost, or come back from a backup."""
    settings = allowed(data)
    backup = tmp_path / "backup"
    with living(settings) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
        delete(life, sent[1].sop_instance_uid)
        life.packer.pack_now()
        shutil.copytree(data / "packs", backup)
        compact(life)
        again = make_object(1, 1, 1)
        life.send(again)
        life.packer.pack_now()
        delete(life, sent[2].sop_instance_uid)
        life.packer.pack_now()
        old = [path.relative_to(backup) for path in sorted(backup.rglob("*.zip"))]
    for chosen in range(1 << len(old)):
        for number, path in enumerate(old):
            (data / "packs" / path).unlink(missing_ok=True)
            if chosen & 1 << number:
                shutil.copy(backup / path, data / "packs" / path)
        rebuild_index(settings)
        with living(settings) as life:
            life.assert_served([sent[0], again])
            assert sorted(i.sop_instance_uid for i in life.retrieval.instances("1.2.1")) == [
                sent[0].sop_instance_uid,
                again.sop_instance_uid,
            ]
            assert len(life.home.index.revisions(again.sop_instance_uid)) == 1
            delete_superseded(life.home, 0)
            life.assert_served([sent[0], again])
        assert len(pack_files(data)) == 3
        assert verify(settings) == []


def test_further_revisions_and_one_uid_in_two_series(data: Path) -> None:
    settings = allowed(data, index={"map_bytes_max": 64 << 20, "revision_served": "last"})
    with living(settings) as life:
        sent = pack_each(
            life,
            make_object(1, 1, 1),
            make_object(1, 1, 1, pixels=b"another picture!"),
            make_object(1, 2, 1, sop="1.2.1.1.1"),
            make_object(1, 1, 2),
        )
        before, rows = revisions(life, sent), all_rows(life)
        compact(life)
        (pack,) = pack_files(data)
        with zipfile.ZipFile(pack) as archive:
            assert archive.testzip() is None
            assert len(archive.namelist()) == len(set(archive.namelist()))
        assert (revisions(life, sent), all_rows(life)) == (before, rows)
        life.assert_served([sent[1], sent[2], sent[3]])
    rebuild_index(settings)
    with living(settings) as life:
        assert (revisions(life, sent), all_rows(life)) == (before, rows)


def test_a_large_series_and_full_packs_are_left_alone(data: Path) -> None:
    target = 1 << 20
    with living(allowed(data, packer={"pack_bytes_target": target})) as life:
        sent = [make_object(1, 1, number, pixel_bytes=300_000) for number in range(1, 9)]
        life.send(*sent)
        life.packer.pack_now()
        small = pack_each(life, *(make_object(2, 1, number, pixel_bytes=50_000) for number in range(4)))
        compact(life)
        life.assert_served([*sent, *small])
        packs = len(pack_files(data))
        for _ in range(2):
            assert compact(life).packs_written == 0
        assert len(pack_files(data)) == packs
        assert all(path.stat().st_size < target * 1.2 for path in pack_files(data))


def chained(life: Life, packs: int, instances: int, pixel_bytes: int) -> list[Object]:
    """Each pack holds the end of one series and the start of the next."""
    sent = []
    for number in range(packs):
        ends = [make_object(1, number, n, pixel_bytes=pixel_bytes) for n in range(instances, 2 * instances)]
        starts = [make_object(1, number + 1, n, pixel_bytes=pixel_bytes) for n in range(instances)]
        life.send(*ends, *starts)
        life.packer.pack_now()
        sent += ends + starts
    return sent


def split(life: Life) -> int:
    """How often a series goes on in another pack."""
    return sum(len(lengths) - 1 for lengths in _series_over_packs(life.home.index.packed))


@pytest.mark.parametrize(("pixel_bytes", "instances_max"), [(80_000, 16384), (1000, 12)])
def test_packs_that_hang_together_by_series_are_written_in_bounded_groups(
    data: Path, pixel_bytes: int, instances_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("compaction_choice", "portions"):
        monkeypatch.setattr(f"archive.flow.{module}.INSTANCES_PER_PACK_MAX", instances_max)
    target = 1 << 20
    settings = allowed(data, packer={"pack_bytes_target": target})
    with living(settings) as life:
        sent = chained(life, 12, 3, pixel_bytes)
        before, runs = split(life), 0
        while groups := list(choose(life.home, every_deletion=False)):
            for group in groups:
                assert sum(info.held for info in group) <= 2 * target
                assert sum(info.instances for info in group) <= 2 * instances_max
            compact(life)
            after, runs = split(life), runs + 1
            assert after < before and runs < 12, "each run brings series together, and it ends"
            before = after
        assert runs
        life.assert_served(sent)
    assert verify(settings) == []


def test_a_series_that_fits_into_a_pack_is_not_cut(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the next run would bring it together, and so on."""
    for module in ("compaction_choice", "portions"):
        monkeypatch.setattr(f"archive.flow.{module}.INSTANCES_PER_PACK_MAX", 8)
    with living(allowed(data)) as life:
        sent = chained(life, 2, 4, 100)
        compact(life)
        assert split(life) == 0
        assert compact(life).packs_written == 0
        life.assert_served(sent)


def test_a_series_in_two_full_packs_is_brought_together(data: Path) -> None:
    with living(allowed(data, packer={"pack_bytes_target": 1 << 20})) as life:
        sent = chained(life, 2, 4, 120_000)
        compact(life)
        assert split(life) == 0
        life.assert_served(sent)


def test_random_packs_and_deletions_come_out_the_same(data: Path) -> None:
    """Against a dictionary; attributes that disagree included. What a search says does not change by compaction, nor by a new index."""
    chance = random.Random(5)
    settings = allowed(data, packer={"pack_bytes_target": 1 << 20})
    for turn in range(4):
        with living(settings) as life:
            for number in range(25):
                one = make_object(
                    chance.randint(1, 3),
                    chance.randint(1, 3),
                    1 + 100 * turn + number,
                    pixel_bytes=chance.choice((200, 40_000, 200_000)),
                    PatientName=chance.choice(("A^B", "C^D", "")),
                    StudyDescription=chance.choice(("", "one", "two")),
                )
                life.send(one)
                if chance.random() < 0.3:
                    life.packer.pack_now()
                if chance.random() < 0.2:
                    there = [row["00080018"]["Value"][0] for row in all_rows(life)[2]]
                    delete(life, chance.choice(there))
            life.packer.pack_now()
            rows = all_rows(life)
            compact(life, 0.0 if turn % 2 else 3600.0)
            assert all_rows(life) == rows
        assert [f for f in verify(settings) if f.severity == "damage"] == []
        rebuild_index(settings)
        with living(settings) as life:
            assert all_rows(life) == rows
            series = {(row["0020000D"]["Value"][0], row["0020000E"]["Value"][0]) for row in rows[1]}
            for study, uid in series:
                life.retrieval.series_metadata(study, uid)


# --- readers


def test_who_looked_before_reads_after(life: Life) -> None:
    sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
    looked = life.retrieval.instances("1.2.1")
    compact(life)
    for stored, one in zip(looked, sent, strict=True):
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.stored_data_set()) == one.data_set


def test_readers_beside_it_see_nothing_of_it(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        sent = [make_object(1, 1 + number % 2, number) for number in range(12)]
        for start in range(0, 12, 2):
            life.send(*sent[start : start + 2])
            life.packer.pack_now()
        stop, rounds, errors = threading.Event(), [0], []

        def read() -> None:
            try:
                while not stop.is_set():
                    life.assert_served(sent)
                    for series in ("1.2.1.1", "1.2.1.2"):
                        assert life.retrieval.series_metadata("1.2.1", series)
                    assert len(life.retrieval.instances("1.2.1")) == 12
                    for one in sent[:2]:
                        assert life.retrieval.instance_metadata(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)
                    rounds[0] += 1
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(3)]
        for thread in threads:
            thread.start()
        for late in range(20, 32):
            compact(life)
            life.send(make_object(2, 1, late), make_object(3, 1, late))
            life.packer.pack_now()
        stop.set()
        for thread in threads:
            thread.join()
        assert errors == []
        assert rounds[0] > 3


def test_what_is_deleted_while_it_is_written_stays_deleted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = allowed(data)
    with living(settings) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
        put = life.home.tier.put

        def delete_then_put(*arguments: Any) -> Any:
            monkeypatch.undo()
            delete(life, sent[1].sop_instance_uid)
            return put(*arguments)

        monkeypatch.setattr(life.home.tier, "put", delete_then_put)
        compact(life)
        assert len(life.retrieval.instances("1.2.1")) == 2
        life.packer.pack_now()
        compact(life)
        assert len(life.retrieval.instances("1.2.1")) == 2
        assert uids(tails(life)[0]) == [[sent[0].sop_instance_uid, sent[2].sop_instance_uid]]
    rebuild_index(settings)
    with living(settings) as life:
        life.assert_served([sent[0], sent[2]])
        assert len(life.retrieval.instances("1.2.1")) == 2
