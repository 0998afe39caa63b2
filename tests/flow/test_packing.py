"""From journal to packs: which series are ready, what a pack holds and in which order, and what is set aside."""

import random
import threading
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from archive.errors import Damaged, Unavailable
from archive.flow.check import verify
from archive.flow.pack_content import MetadataArray, metadata_array
from archive.flow.recovery import recover
from archive.index.pending import _STATE
from archive.pack.pack_reader import PackTail
from archive.pack.pack_writer import compress
from archive.tier.protocol import NumberTaken
from archive.tier.tails import read_pack_tail
from tests.flow.objects import LARGE_BYTES, NAME, Life, Object, files_below, living, make_object, pack_files, settings_of


def tails(life: Life) -> list[PackTail]:
    return [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]


def content(life: Life) -> list[list[list[str]]]:
    """SOP Instance UIDs by pack and series."""
    return [[[d.sop_instance_uid for _, d in series.instances] for series in tail.series] for tail in tails(life)]


def uids(*objects: Object) -> list[str]:
    return [one.sop_instance_uid for one in objects]


def wait_for(what: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.01)


def test_a_series_lies_by_instance_number_then_by_arrival(life: Life) -> None:
    sent = [make_object(1, 1, number) for number in (10, 2, 1)]
    ties = [make_object(1, 1, 30, InstanceNumber="2"), make_object(1, 1, 20, InstanceNumber="2")]
    without = make_object(1, 1, 40, InstanceNumber="")
    life.send(*sent, *ties, without)
    life.packer.pack_now()
    assert content(life) == [[uids(without, sent[2], sent[1], *ties, sent[0])]]
    life.assert_served([*sent, *ties, without])


def test_several_series_in_one_pack_each_contiguous(life: Life, data: Path) -> None:
    sent = [make_object(study, series, number) for number in (2, 1) for study in (1, 2) for series in (2, 1)]
    life.send(*sent)
    report = life.packer.pack_now()
    assert (report.packs, report.instances, report.set_aside) == (1, 8, {})
    assert content(life) == [[uids(make_object(s, e, 1), make_object(s, e, 2)) for s in (1, 2) for e in (1, 2)]]
    (pack,) = pack_files(data)
    assert report.length == pack.stat().st_size
    with zipfile.ZipFile(pack) as archive:
        assert archive.testzip() is None
        for one in sent:
            name = f"{one.study_instance_uid}/{one.series_instance_uid}/{one.sop_instance_uid}.dcm"
            assert archive.read(name).endswith(one.data_set)


def test_a_series_larger_than_a_pack_is_cut_and_small_ones_are_not(data: Path) -> None:
    target = 1 << 20
    sent = [make_object(1, 1, number, pixel_bytes=300_000) for number in range(1, 9)]
    small = [make_object(2, 1, number, pixel_bytes=150_000) for number in range(1, 5)]
    with living(settings_of(data, packer={"pack_bytes_target": target})) as life:
        life.send(*small[:1], *sent, *small[1:])
        life.packer.pack_now()
        packs = content(life)
        assert [uid for pack in packs for series in pack for uid in series] == uids(*sent, *small)
        assert len([1 for pack in packs for series in pack if series[0].startswith("1.2.2.")]) == 1, "a series that fits is not cut"
        assert packs[:2] == [[uids(*sent[:3])], [uids(*sent[3:6])]]
        assert all(length < target * 1.2 for length in (path.stat().st_size for path in pack_files(data)))
        life.assert_served([*sent, *small])
        assert [s.sop_instance_uid for s in life.retrieval.instances("1.2.1")] == uids(*sent)


def test_an_object_larger_than_a_pack_has_one_of_its_own(data: Path) -> None:
    sent = [make_object(1, 1, 1), make_object(1, 1, 2, pixel_bytes=2_000_000), make_object(1, 1, 3)]
    with living(settings_of(data, packer={"pack_bytes_target": 1 << 20})) as life:
        life.send(*sent)
        life.packer.pack_now()
        assert content(life) == [[uids(one)] for one in sent]
        life.assert_served(sent)


def test_metadata_is_compressed_document_by_document() -> None:
    documents = [random.Random(n).randbytes(5000).hex().encode() for n in range(64)]
    whole = compress(metadata_array(documents))
    tracemalloc.start()
    try:
        array = MetadataArray()
        for document in documents:
            array.add(bytes(bytearray(document) * 20))
        assert tracemalloc.get_traced_memory()[1] < 2 << 20, "12 MB of documents came"
    finally:
        tracemalloc.stop()
    array = MetadataArray()
    for document in documents:
        array.add(document)
    assert array.finish() == whole, "as if it were compressed at once"


def test_late_instances_make_a_further_pack(life: Life) -> None:
    sent = [make_object(1, 1, number) for number in (1, 3, 2)]
    life.send(*sent[:2])
    life.packer.pack_now()
    life.send(sent[2])
    assert life.packer.pack_now().packs == 1
    assert content(life) == [[uids(*sent[:2])], [uids(sent[2])]]
    assert [s.sop_instance_uid for s in life.retrieval.instances("1.2.1", "1.2.1.1")] == uids(sent[0], sent[2], sent[1])
    life.assert_served(sent)
    assert life.packer.pack_now().packs == 0


def test_a_further_revision_has_an_entry_of_its_own(life: Life, data: Path) -> None:
    objects = [make_object(1, 1, 1, pixels=text * 8) for text in (b"one ", b"two!")]
    _, second = life.send(*objects)
    life.packer.pack_now()
    with zipfile.ZipFile(pack_files(data)[0]) as archive:
        assert archive.read("1.2.1/1.2.1.1/1.2.1.1.1.dcm").endswith(objects[0].data_set)
        assert archive.read(f"1.2.1/1.2.1.1/1.2.1.1.1.r{second.revision}.dcm").endswith(objects[1].data_set)


# --- when


def series_ready(life: Life) -> list[str]:
    return [key.series_instance_uid for key in life.packer._ready()]


def age(life: Life, seconds: float, series: str, last_too: bool = True) -> None:
    """As if a series had come so much earlier."""
    pending = life.home.index.pending
    with pending.environment.writing() as t:
        for key, value in t.scan("states"):
            if key.decode().endswith(series):
                first, last, length, count = _STATE.unpack(value)
                back = int(seconds * 1e6)
                t.put("states", key, _STATE.pack(first - back, last - back * last_too, length, count))
                return
    raise AssertionError(series)


def test_a_series_is_ready_when_it_was_quiet(data: Path) -> None:
    with living(settings_of(data, packer={"quiet_seconds": 60})) as life:
        life.send(make_object(1, 1, 1), make_object(1, 2, 1))
        assert series_ready(life) == []
        age(life, 61, "1.2.1.2")
        assert series_ready(life) == ["1.2.1.2"]
        life.send(make_object(1, 2, 2))
        assert series_ready(life) == []


def test_a_series_from_before_the_clock_was_set_back_is_ready(data: Path) -> None:
    with living(settings_of(data, packer={"quiet_seconds": 30})) as life:
        life.send(make_object(1, 1, 1))
        age(life, -3600, "1.2.1.1")
        assert series_ready(life) == ["1.2.1.1"]


def test_a_series_is_ready_when_it_is_old_though_more_keeps_coming(data: Path) -> None:
    with living(settings_of(data, packer={"quiet_seconds": 60, "age_seconds_max": 600})) as life:
        life.send(make_object(1, 1, 1), make_object(1, 2, 1))
        age(life, 601, "1.2.1.2", last_too=False)
        assert series_ready(life) == ["1.2.1.2"]


def test_every_series_is_ready_when_the_journal_presses(data: Path) -> None:
    journal = {"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "free_bytes_min": 0, "bytes_max": 64 << 20}
    with living(settings_of(data, packer={"quiet_seconds": 60, "pressure_ratio": 0.002}, journal=journal)) as life:
        life.send(make_object(1, 1, 1), make_object(1, 2, 1, pixel_bytes=100_000))
        assert series_ready(life) == []
        life.send(make_object(1, 2, 2, pixel_bytes=100_000))
        assert series_ready(life) == ["1.2.1.1", "1.2.1.2"]


def test_the_packer_packs_by_itself_what_is_ready_and_nothing_else(data: Path) -> None:
    with living(settings_of(data, packer={"quiet_seconds": 60})) as life:
        life.send(make_object(1, 1, 1), make_object(1, 2, 1))
        age(life, 61, "1.2.1.2")
        stop = threading.Event()
        thread = threading.Thread(target=life.packer.run, args=(stop,))
        thread.start()
        try:
            wait_for(lambda: life.home.waiting()[0] == 1)
        finally:
            stop.set()
            thread.join(10)
        assert content(life) == [[["1.2.1.2.1"]]]


def test_pack_now_commits_everything_accepted_before_the_call(life: Life) -> None:
    """While a sender goes on, and with the packer's own loop beside it."""
    stop, accepted = threading.Event(), [0]

    def go_on() -> None:
        while not stop.is_set():
            life.send(make_object(1, 1 + accepted[0] % 3, accepted[0]))
            accepted[0] += 1

    threads = [threading.Thread(target=go_on), threading.Thread(target=life.packer.run, args=(stop,))]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            before = accepted[0]
            life.packer.pack_now()
            pending = life.home.index.pending
            with pending.environment.reading() as t:
                waiting = {
                    int(p.descriptor.sop_instance_uid.rpartition(".")[2]) for s in pending.states(t) for p in pending.instances(t, s.key)
                }
            assert not [number for number in waiting if number < before]
            time.sleep(0.05)
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    life.packer.pack_now()
    life.assert_served([make_object(1, 1 + number % 3, number) for number in range(accepted[0])])


def test_segments_go_when_nothing_in_them_waits(life: Life, data: Path) -> None:
    sent = [make_object(1, 1 + number % 2, number, pixel_bytes=50_000) for number in range(75)]
    life.send(*sent)
    assert len(files_below(data / "journal/sealed")) == 3
    life.packer.pack_now()
    assert files_below(data / "journal/sealed") == []
    assert 1 <= len(files_below(data / "journal/spare")) <= 4
    again = [make_object(2, 1, number, pixel_bytes=50_000) for number in range(40)]
    life.send(*again)  # In recycled segments now.
    life.assert_served([*sent, *again])
    life.packer.pack_now()
    life.assert_served([*sent, *again])


# --- what cannot be packed


def damage(folder: Path, one: Object) -> None:
    """Flip a bit in an object's only copy below a folder."""
    for path in folder.rglob("*.seg"):
        data = bytearray(path.read_bytes())
        if one.data_set in data:
            data[data.index(one.data_set) + len(one.data_set) - 1] ^= 1
            with path.open("r+b") as file:
                file.write(data)
            return
    raise AssertionError(one)


@pytest.mark.parametrize("pixel_bytes", [200, 300_000])
@pytest.mark.parametrize("restart", [False, True])
def test_a_damaged_record_is_set_aside_by_name_and_the_rest_packed(data: Path, pixel_bytes: int, restart: bool) -> None:
    sent = [make_object(1, 1, number, pixel_bytes=pixel_bytes) for number in range(1, 5)]
    settings = settings_of(data)
    with living(settings) as life:
        life.send(*sent)
        damage(data / "journal", sent[1])
        if not restart:
            assert_set_aside(life, sent)
    if restart:
        recover(settings)
        with living(settings) as life:
            assert_set_aside(life, sent)
    assert [f.severity for f in verify(settings)] == ["damage"]
    recover(settings)
    with living(settings) as life:
        assert_set_aside(life, sent)  # The only copy, damaged as it is, is kept by every start.


def assert_set_aside(life: Life, sent: list[Object]) -> None:
    for _ in range(2):
        aside = life.packer.pack_now().set_aside
        assert [sent[1].sop_instance_uid in reason for reason in aside.values()] == [True]
    assert content(life) == [[uids(sent[0], *sent[2:])]]
    life.assert_served([sent[0], *sent[2:]])
    assert life.home.waiting()[0] == 1
    with pytest.raises(Damaged):
        life.received(sent[1])


def test_a_record_that_goes_bad_while_the_pack_is_written_voids_the_plan(life: Life, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [make_object(1, 1, number) for number in range(1, 4)]
    life.send(*sent)
    plan = life.packer._steps.plan

    def plan_and_damage(*arguments: Any) -> Any:
        planned = plan(*arguments)
        damage(data / "journal", sent[1])
        return planned

    with monkeypatch.context() as patch:
        patch.setattr(life.packer._steps, "plan", plan_and_damage)
        with pytest.raises(Damaged, match=r"does not match"):
            life.packer.pack_now()
    assert files_below(data / "packs") == []
    life.packer.pack_now()
    void, good = tails(life)
    assert sent[1].sop_instance_uid in void.header["void_reason"] and void.series == []
    assert [d.sop_instance_uid for _, d in good.series[0].instances] == uids(sent[0], sent[2])
    life.assert_served([sent[0], sent[2]])


def test_a_number_taken_by_another_node_stops_packing_and_says_so(data: Path, tmp_path: Path) -> None:
    tier = f"file://{tmp_path}/tier"
    lives = [settings_of(tmp_path / name, node={"data": tmp_path / name, "name": NAME, "tier": tier}) for name in ("a", "b")]
    with living(lives[0]) as one, living(lives[1]) as two:
        one.send(make_object(1, 1, 1))
        two.send(make_object(2, 1, 1))
        one.packer.pack_now()
        for _ in range(2):
            with pytest.raises(NumberTaken, match="another node under the name|two nodes"):
                two.packer.pack_now()
        two.assert_served([make_object(2, 1, 1)])  # Ingest and reading go on.
        two.send(make_object(2, 1, 2))


def test_a_number_taken_after_it_was_planned_does_not_lose_the_plan(tmp_path: Path) -> None:
    tier = f"file://{tmp_path}/tier"
    lives = [settings_of(tmp_path / name, node={"data": tmp_path / name, "name": NAME, "tier": tier}) for name in ("a", "b")]
    with living(lives[0]) as one, living(lives[1]) as two:
        two.send(make_object(2, 1, 1))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(two.home.tier, "put", lambda *_: (_ for _ in ()).throw(Unavailable("away")))
            with pytest.raises(Unavailable):
                two.packer.pack_now()
        one.send(make_object(1, 1, 1))
        one.packer.pack_now()
        for _ in range(2):
            with pytest.raises(NumberTaken, match="another node"):
                two.packer.pack_now()
        two.assert_served([make_object(2, 1, 1)])
        assert two.home.waiting()[0] == 1
