"""Deletion: invisible at once and everywhere, durable, sent again, bounded, beside work that goes on."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.dicom.json import loads
from archive.errors import BadInput, NotFound, WrongUse
from archive.flow.check import verify
from archive.flow.deletion import DELETED_PER_RECORD_MAX, Deleter
from archive.flow.query import Query, Search
from archive.flow.recovery import rebuild_index, recover
from archive.node.status import look
from archive.pack.frame import Kind
from archive.pack.journal_reader import SMALL_PAYLOAD_BYTES, Found, scan_segment
from archive.tier.tails import read_pack_tail
from tests.flow.objects import NAME, Life, Object, living, make_object, settings_of

ONE, TWO, THREE = (make_object(1, 1, number) for number in (1, 2, 3))
OTHER_SERIES = make_object(1, 2, 1)
OTHER_STUDY = make_object(2, 1, 1)
ALL = [ONE, TWO, THREE, OTHER_SERIES, OTHER_STUDY]


def allowed(data: Path, **sections: dict[str, Any]) -> Settings:
    return settings_of(data, deletion={"allowed": True}, **sections)


@pytest.fixture
def life(data: Path) -> Iterator[Life]:
    with living(allowed(data)) as one:
        yield one


def delete(life: Life, *uids: str) -> None:
    Deleter(life.home).delete(uids, "test")


def rows(life: Life, level: Any = "instance") -> list[dict[str, Any]]:
    return Search(life.home).search(Query(level, {}, "all", 1000, 0)).rows


def metadata_uids(life: Life, study: str) -> list[str]:
    import gzip

    return sorted(row["00080018"]["Value"][0] for row in json.loads(gzip.decompress(life.retrieval.study_metadata(study))))


def assert_visible(life: Life, objects: list[Object]) -> None:
    """These and no others: lookups, searches at every level with their counts, metadata, status."""
    life.assert_served(objects)
    wanted = sorted(one.sop_instance_uid for one in objects)
    assert sorted(row["00080018"]["Value"][0] for row in rows(life)) == wanted
    series = {(one.study_instance_uid, one.series_instance_uid) for one in objects}
    studies = {study for study, _ in series}
    assert {(r["0020000D"]["Value"][0], r["0020000E"]["Value"][0]) for r in rows(life, "series")} == series
    assert {r["0020000D"]["Value"][0] for r in rows(life, "study")} == studies
    assert sum(r["00201208"]["Value"][0] for r in rows(life, "study")) == len(wanted)
    assert sum(r["00201209"]["Value"][0] for r in rows(life, "series")) == len(wanted)
    for study in studies:
        uids = sorted(one.sop_instance_uid for one in objects if one.study_instance_uid == study)
        assert metadata_uids(life, study) == uids
        assert sorted(i.sop_instance_uid for i in life.retrieval.instances(study)) == uids
    status = look(life.home)
    assert (status.studies, status.series, status.instances) == (len(studies), len(series), len(wanted))
    gone = [one for one in ALL if one.sop_instance_uid not in wanted]
    for one in gone:
        with pytest.raises(NotFound):
            life.received(one)
        for ask in (life.retrieval.instance_metadata,):
            with pytest.raises(NotFound):
                ask(one.study_instance_uid, one.series_instance_uid, one.sop_instance_uid)


LEVELS = {
    "instance": (TWO.sop_instance_uid, [ONE, THREE, OTHER_SERIES, OTHER_STUDY]),
    "series": (ONE.series_instance_uid, [OTHER_SERIES, OTHER_STUDY]),
    "study": (ONE.study_instance_uid, [OTHER_STUDY]),
}


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("when", ["in the journal", "in packs", "in both"])
def test_what_is_deleted_is_gone_everywhere(data: Path, level: str, when: str) -> None:
    uid, left = LEVELS[level]
    settings = allowed(data)
    with living(settings) as life:
        life.send(*ALL[:2])
        if when == "in both":
            life.packer.pack_now()
        life.send(*ALL[2:])
        if when == "in packs":
            life.packer.pack_now()
        assert_visible(life, ALL)
        delete(life, uid)
        assert_visible(life, left)
    with living(settings) as life:
        assert_visible(life, left)
    recover(settings)
    with living(settings) as life:
        assert_visible(life, left)
    rebuild_index(settings)  # The deletion is in the journal alone.
    with living(settings) as life:
        assert_visible(life, left)
        life.packer.pack_now()
        assert_visible(life, left)
        tails = [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]
        assert sum(len(tail.deletions) for tail in tails) == 1
        assert life.packer.pack_now().packs == 0
    rebuild_index(settings)  # It is in a pack.
    with living(settings) as life:
        assert_visible(life, left)
        assert list((data / "journal/sealed").iterdir()) == []
    assert verify(settings) == []


@pytest.mark.parametrize("first", ["in the journal", "in a pack"])
@pytest.mark.parametrize("second", ["in the journal", "in a pack"])
def test_what_is_sent_again_is_there_again(data: Path, first: str, second: str) -> None:
    settings = allowed(data)
    with living(settings) as life:
        life.send(ONE, TWO)
        if first == "in a pack":
            life.packer.pack_now()
        delete(life, ONE.sop_instance_uid)
        assert [a.outcome for a in life.send(ONE, TWO)] == ["new", "same"]
        if second == "in a pack":
            life.packer.pack_now()
        life.assert_served([ONE, TWO])
    for again in (recover, rebuild_index, recover):
        again(settings)
        with living(settings) as life:
            assert_visible(life, [ONE, TWO])
    with living(settings) as life:
        life.packer.pack_now()
        delete(life, ONE.sop_instance_uid)
    rebuild_index(settings)
    with living(settings) as life:
        assert_visible(life, [TWO])
        assert life.send(ONE)[0].outcome == "new"
        assert_visible(life, [ONE, TWO])


def test_every_revision_under_a_uid_is_deleted(life: Life) -> None:
    again = make_object(1, 1, 1, pixels=b"another picture!")
    life.send(ONE)
    life.packer.pack_now()
    life.send(again)
    (doomed,) = Deleter(life.home).look([ONE.sop_instance_uid])
    assert (doomed.level, doomed.instances, doomed.revisions) == ("instance", 1, 2)
    delete(life, ONE.sop_instance_uid)
    assert life.home.index.revisions(ONE.sop_instance_uid) == []


def test_what_the_deleted_one_said_of_its_series_is_forgotten(life: Life) -> None:
    wrong = make_object(1, 1, 1, PatientName="WRONG^NAME", PatientComments="of somebody else")
    life.send(wrong, TWO)
    life.packer.pack_now()
    assert rows(life, "study")[0]["00100010"]["Value"][0] == {"Alphabetic": "WRONG^NAME"}
    delete(life, wrong.sop_instance_uid)
    for level in ("study", "series"):
        assert "WRONG" not in str(rows(life, level)) and "somebody" not in str(rows(life, level))
        assert rows(life, level)[0]["00100010"]["Value"][0] == {"Alphabetic": "PATIENT^1"}
    assert Search(life.home).search(Query("study", {("00100010",): "WRONG*"}, "all", 10, 0)).rows == []


def test_it_is_off_unless_configured(data: Path) -> None:
    with living(settings_of(data)) as life:
        life.send(ONE)
        with pytest.raises(WrongUse, match=r"deletion\.allowed"):
            delete(life, ONE.sop_instance_uid)
        life.assert_served([ONE])


def test_nothing_is_deleted_where_one_of_the_uids_is_not_known(life: Life) -> None:
    life.send(ONE)
    with pytest.raises(NotFound, match="1.2.99"):
        delete(life, ONE.sop_instance_uid, "1.2.99")
    with pytest.raises(BadInput):
        delete(life, ONE.sop_instance_uid, "not-a-uid")
    life.assert_served([ONE])


def test_a_uid_of_two_levels_is_refused(life: Life) -> None:
    odd = make_object(1, 1, 1, sop="1.2.2")
    life.send(odd, OTHER_STUDY)
    with pytest.raises(BadInput, match="study and of a instance"):
        delete(life, "1.2.2")
    life.assert_served([odd, OTHER_STUDY])


def test_a_big_study_makes_several_bounded_records_and_blocks_nobody(data: Path) -> None:
    many = DELETED_PER_RECORD_MAX + 500
    settings = allowed(data, index={"map_bytes_max": 512 << 20})
    with living(settings) as life:
        life.send(*(make_object(1, 1, number, pixel_bytes=2) for number in range(many // 2)))
        life.packer.pack_now()
        life.send(*(make_object(1, 1, number, pixel_bytes=2) for number in range(many // 2, many)))
        life.send(OTHER_STUDY)
        stop, slowest, count = threading.Event(), [0.0], [0]

        def go_on() -> None:
            while not stop.is_set():
                start = time.monotonic()
                life.send(make_object(3, 1, count[0], pixel_bytes=2))
                life.assert_served([OTHER_STUDY])
                slowest[0] = max(slowest[0], time.monotonic() - start)
                count[0] += 1

        thread = threading.Thread(target=go_on)
        thread.start()
        start = time.monotonic()
        report = Deleter(life.home).delete(["1.2.1"], "test")
        seconds = time.monotonic() - start
        stop.set()
        thread.join()
        assert report.records == 2
        assert count[0] > 10
        assert slowest[0] < max(1.0, seconds / 3), (slowest, seconds)
        payloads = [
            len(item.payload)
            for number, path in life.home.journal.segments()
            for item in scan_segment(number, path, lambda _: True)
            if isinstance(item, Found) and item.header.kind == Kind.DELETION
        ]
        assert len(payloads) == 2 and 0 < max(payloads) < SMALL_PAYLOAD_BYTES
        with pytest.raises(NotFound):
            life.retrieval.instances("1.2.1")
    rebuild_index(settings)
    with living(settings) as life:
        assert len(life.retrieval.instances("1.2.3")) == count[0]
        with pytest.raises(NotFound):
            life.retrieval.instances("1.2.1")


def test_the_longest_record_is_read_back(life: Life) -> None:
    """Of the most objects, with the longest UIDs and the highest numbers."""
    from archive.dicom.json import dumps
    from archive.pack.descriptor import Deletion, Revision

    entries = [(Revision("f" * 32, (1 << 64) - 1 - n), "1." + "9" * 62) for n in range(DELETED_PER_RECORD_MAX)]
    payload = dumps(Deletion(Revision("f" * 32, (1 << 64) - 1), 1 << 60, "x" * 1000, entries).to_json())
    assert len(payload) <= SMALL_PAYLOAD_BYTES
    assert Deletion.from_json(loads(payload)).deleted == entries
