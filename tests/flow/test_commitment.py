"""Committed is what rests in packs that are whole; requests survive their process, and only one holds each."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from archive.dicom.commitment import FailureReason, Reference
from archive.errors import Duplicate, Exhausted, Unavailable
from archive.flow import commitment_requests
from archive.flow.commitment import AwaitedSeries, Commitment
from archive.flow.commitment_requests import CommitmentRequests, requests_folder
from archive.pack.naming import PackName
from tests.flow.objects import CT, Life, Object, living, make_object, pack_files, settings_of

OBJECTS = [make_object(1, 1, n) for n in range(1, 4)]
NOBODY = Reference(CT, "1.2.99")


def reference(one: Object) -> Reference:
    return Reference(one.sop_class_uid, one.sop_instance_uid)


ALL = [reference(one) for one in OBJECTS]


def test_accepted_waits_and_packed_is_committed(life: Life) -> None:
    life.send(*OBJECTS)
    commitment = Commitment(life.home)
    assert commitment.judge(ALL) is None
    life.packer.pack_now()
    verdict = commitment.judge([*ALL, NOBODY, Reference("1.2.840.10008.5.1.4.1.1.4", ALL[0].sop_instance_uid)])
    assert verdict is not None
    assert verdict.committed == ALL
    assert [reason for _, reason in verdict.failed] == [FailureReason.NO_SUCH_OBJECT_INSTANCE, FailureReason.CLASS_INSTANCE_CONFLICT]


def test_a_revision_that_is_not_packed_yet_is_waited_for(life: Life) -> None:
    life.send(OBJECTS[0])
    life.packer.pack_now()
    life.send(make_object(1, 1, 1, pixel_bytes=256))
    assert Commitment(life.home).judge([ALL[0]]) is None


@pytest.mark.parametrize("check", ["length", "digest"])
@pytest.mark.parametrize("damage", ["missing", "cut", "flipped"])
def test_a_pack_that_is_not_whole_is_no_commitment(data: Path, damage: str, check: str) -> None:
    with living(settings_of(data, commitment={"check": check})) as life:
        life.send(*OBJECTS)
        life.packer.pack_now()
        [pack] = pack_files(data)
        content = bytearray(pack.read_bytes())
        if damage == "missing":
            pack.unlink()
        elif damage == "cut":
            pack.write_bytes(content[:-1])
        else:
            content[len(content) // 3] ^= 1
            pack.write_bytes(content)
        verdict = Commitment(life.home).judge(ALL)
        assert verdict is not None
        if (damage, check) == ("flipped", "length"):
            assert verdict.committed == ALL
        else:
            assert verdict.failed == [(one, FailureReason.PROCESSING_FAILURE) for one in ALL]


def test_a_pack_is_read_once_for_an_hour(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.send(*OBJECTS)
    life.packer.pack_now()
    read: list[PackName] = []
    stream = life.home.tier.stream

    def counting(name: PackName, offset: int, length: int) -> object:
        read.append(name)
        return stream(name, offset, length)

    monkeypatch.setattr(life.home.tier, "stream", counting)
    commitment = Commitment(life.home)
    for _ in range(3):
        verdict = commitment.judge(ALL)
        assert verdict is not None and verdict.committed == ALL
    assert len(read) == 1


def test_a_tier_that_is_away_is_waited_for(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.send(*OBJECTS)
    life.packer.pack_now()

    def away(name: PackName) -> int:
        raise Unavailable("away")

    monkeypatch.setattr(life.home.tier, "length", away)
    with pytest.raises(Unavailable):
        Commitment(life.home).judge(ALL)


def test_what_is_set_aside_will_not_be_committed(life: Life) -> None:
    [accepted] = life.send(OBJECTS[0])
    pending = life.home.index.pending
    with pending.environment.reading() as t:
        [record] = pending.find(t, OBJECTS[0].sop_instance_uid)
    with pending.environment.writing() as t:
        pending.set_aside(t, record.descriptor.revision.sequence, "damaged")
    verdict = Commitment(life.home).judge([ALL[0]])
    assert verdict is not None and verdict.failed == [(ALL[0], FailureReason.PROCESSING_FAILURE)]
    assert accepted is not None


def test_what_is_awaited_is_packed_at_once_and_nothing_else(data: Path) -> None:
    with living(settings_of(data, packer={"quiet_seconds": 3600})) as life:
        life.send(*OBJECTS, make_object(2, 1, 1))
        requests = CommitmentRequests(requests_folder(life.home.settings))
        held = requests.keep("MODALITY", "1.2.3", [ALL[0], NOBODY])
        awaited = AwaitedSeries(life.home, requests)
        assert {key.series_instance_uid for key in awaited.series()} == {OBJECTS[0].series_instance_uid}
        stop = threading.Event()
        packer = threading.Thread(target=life.packer.run, args=(stop,))
        packer.start()
        commitment = Commitment(life.home)
        for _ in range(100):
            if commitment.judge(ALL) is not None:
                break
            stop.wait(0.1)
        stop.set()
        packer.join()
        verdict = commitment.judge([*ALL, Reference(CT, "1.2.2.1.1")])
        assert verdict is None, "the other study waits on"
        assert awaited.series() == set()
        requests.forget(held)


def test_whoever_asks_over_and_over_costs_one_look(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the threads that pack do, before each of their rests."""
    life.send(*OBJECTS)
    requests = CommitmentRequests(requests_folder(life.home.settings))
    held = requests.keep("MODALITY", "1.2.3", ALL)
    assert held is not None
    looks: list[str] = []
    references = CommitmentRequests.references

    def noted(self: CommitmentRequests, name: str) -> list[Reference]:
        looks.append(name)
        return references(self, name)

    monkeypatch.setattr(CommitmentRequests, "references", noted)
    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(lambda _: life.packer._in_a_hurry(), range(200)))
    assert len(looks) == 1
    life.packer._ready()
    assert len(looks) == 2, "what is to be packed is looked for anew"
    requests.forget(held)
    monkeypatch.setattr(time, "monotonic", lambda now=time.monotonic: now() + 60)
    assert not life.packer._in_a_hurry()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "commitment"


def test_a_request_is_there_for_whoever_comes_next(folder: Path) -> None:
    first, second = CommitmentRequests(folder), CommitmentRequests(folder)
    held = first.keep("MODALITY", "1.2.3", ALL)
    assert list(second.take()) == [], "another process holds it"
    first.release(held)
    [taken] = second.take()
    assert taken.request == held.request and taken.request.references == ALL
    assert list(first.take()) == []
    second.forget(taken)
    assert list(first.take()) == [] and first.names() == []


def test_the_same_request_again_is_one_and_another_of_its_name_is_refused(folder: Path) -> None:
    requests, other = CommitmentRequests(folder), CommitmentRequests(folder)
    former = requests.keep("MODALITY", "1.2.3", ALL)
    assert requests.is_current(former)
    held = other.keep("MODALITY", "1.2.3", ALL)
    assert other.is_current(held) and not requests.is_current(former)
    with pytest.raises(Duplicate):
        requests.keep("MODALITY", "1.2.3", ALL[:1])
    requests.keep("OTHER", "1.2.3", ALL[:1])
    assert len(requests.names()) == 2
    requests.forget(former)
    assert other.is_current(held) and len(requests.names()) == 2, "what took its place stays"
    assert list(requests.take()) == [], "and is held"
    other.forget(held)
    assert len(requests.names()) == 1


def test_there_is_a_bound(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_requests, "REQUESTS_MAX", 2)
    requests = CommitmentRequests(folder)
    for n in (1, 2):
        requests.keep("MODALITY", f"1.2.{n}", ALL)
    with pytest.raises(Exhausted):
        requests.keep("MODALITY", "1.2.3", ALL)
    requests.keep("MODALITY", "1.2.1", ALL)  # It takes the place of the first.


def test_one_requestor_leaves_room_for_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commitment_requests, "REQUESTS_OF_TITLE_MAX", 2)
    requests = CommitmentRequests(folder)
    for n in (1, 2):
        requests.keep("MODALITY", f"1.2.{n}", ALL)
    with pytest.raises(Exhausted, match="2 storage commitment requests of MODALITY"):
        requests.keep("MODALITY", "1.2.3", ALL)
    requests.keep("MODALITY", "1.2.2", ALL)
    requests.keep("OTHER", "1.2.3", ALL)


def test_a_request_under_the_name_of_an_earlier_version_is_taken(folder: Path) -> None:
    requests = CommitmentRequests(folder)
    held = requests.keep("MODALITY", "1.2.3", ALL)
    held.path.rename(folder / held.path.name.removeprefix(held.request.prefix))
    requests.release(held)
    [taken] = requests.take()
    assert taken.request == held.request and requests.is_current(taken)
    requests.forget(taken)
    assert requests.names() == []


def test_what_cannot_be_read_is_named_and_holds_nobody_up(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    requests = CommitmentRequests(folder)
    held = requests.keep("MODALITY", "1.2.3", ALL)
    requests.release(held)
    (folder / "damaged.json").write_bytes(b'{"calling_ae_title": 1}')
    (folder / ".half.part").write_bytes(b"{")
    assert [one.request.transaction_uid for one in requests.take()] == ["1.2.3"]
    assert "damaged.json cannot be read" in caplog.text
