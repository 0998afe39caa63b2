"""The way in: what is accepted, what is the same, what is refused, and that nothing stays of what was not accepted."""

import threading
from pathlib import Path
from typing import Any

import pytest

from archive.disk import Disk
from archive.errors import Duplicate, Exhausted, Mismatch, NotUnderstood
from archive.flow import ingest
from archive.flow.ingest import Reception
from archive.flow.recovery import recover
from tests.flow.objects import CT, EXPLICIT, LARGE_BYTES, Life, Object, files_below, living, make_object, settings_of

SMALL, LARGE = make_object(1, 1, 1), make_object(1, 1, 2, pixel_bytes=3 * LARGE_BYTES)


def begin(life: Life, one: Object) -> Reception:
    return life.ingest.begin(
        sop_class_uid=one.sop_class_uid, sop_instance_uid=one.sop_instance_uid, transfer_syntax_uid=EXPLICIT, source="test"
    )


def as_in_time(objects: list[Object], life: Life) -> list[str]:
    """Send all from threads of their own, each on the last step before it is published at the same time; outcomes in order."""
    together = threading.Barrier(len(objects))
    outcomes: dict[int, str] = {}
    publish = Reception._publish

    def wait_and_publish(*arguments: object) -> object:
        together.wait(10)
        return publish(*arguments)  # type: ignore[arg-type]

    def run(number: int) -> None:
        outcomes[number] = life.send(objects[number])[0].outcome

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reception, "_publish", wait_and_publish)
        threads = [threading.Thread(target=run, args=(number,)) for number in range(len(objects))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    return [outcomes[number] for number in range(len(objects))]


@pytest.mark.parametrize("sent", [SMALL, LARGE, make_object(1, 1, 3, pixel_bytes=LARGE_BYTES)])
def test_new_and_the_same_again(life: Life, sent: Object) -> None:
    first, again = life.send(sent, sent)
    assert (first.outcome, again.outcome, again.revision) == ("new", "same", first.revision)
    assert life.received(sent) == sent.data_set
    assert life.home.waiting()[0] == 1
    life.packer.pack_now()
    (packed,) = life.send(sent)
    assert packed == again


def test_an_object_of_no_more_than_its_uids(life: Life) -> None:
    bare = make_object(2, 1, 1)
    uids = Object(bare.study_instance_uid, bare.series_instance_uid, bare.sop_instance_uid, bare.data_set[:0])
    with pytest.raises(NotUnderstood):
        life.send(uids)
    assert life.home.waiting() == (0, 0)


def test_bytes_come_by_room_and_filled_in_pieces_of_any_size(life: Life) -> None:
    reception = begin(life, LARGE)
    left = memoryview(LARGE.data_set)
    for size in [1, 2, 70_000, 1, 4096, *[9_999] * 50]:
        if not left:
            break
        room = reception.room(min(size, len(left)))
        assert 0 < len(room) <= size
        room[:] = left[: len(room)]
        reception.filled(len(room))
        left = left[len(room) :]
    assert not left
    assert reception.commit().outcome == "new"
    assert life.received(LARGE) == LARGE.data_set


@pytest.mark.parametrize("served", ["first", "last"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_different_object_is_a_further_revision(data: Path, served: str, packed: bool) -> None:
    objects = [make_object(1, 1, 1, pixels=text * 8) for text in (b"one ", b"two!", b"3333")]
    with living(settings_of(data, index={"revision_served": served, "map_bytes_max": 64 << 20})) as life:
        for one in objects:
            (accepted,) = life.send(one)
            assert accepted.outcome == ("new" if one is objects[0] else "revision")
            if packed:
                life.packer.pack_now()
        assert life.received(objects[0]) == (objects[0] if served == "first" else objects[2]).data_set
        for stored, one in zip(life.home.index.revisions(objects[0].sop_instance_uid), objects, strict=True):
            with life.retrieval.open(stored) as opened:
                assert bytes(opened.stored_data_set()) == one.data_set
        assert [accepted.outcome for accepted in life.send(*objects)] == ["same"] * 3
        assert len(life.retrieval.instances("1.2.1", "1.2.1.1")) == 1


def test_the_same_data_set_in_another_transfer_syntax_is_a_revision(life: Life) -> None:
    other = Object(
        SMALL.study_instance_uid, SMALL.series_instance_uid, SMALL.sop_instance_uid, SMALL.data_set, CT, "1.2.840.10008.1.2.1.98"
    )
    assert [accepted.outcome for accepted in life.send(SMALL, other)] == ["new", "revision"]


@pytest.mark.parametrize("sent", [SMALL, LARGE])
def test_the_same_object_at_the_same_time_is_one(life: Life, data: Path, sent: Object) -> None:
    assert sorted(as_in_time([sent] * 4, life)) == ["new", "same", "same", "same"]
    assert life.home.waiting()[0] == 1
    assert life.received(sent) == sent.data_set
    life.packer.pack_now()
    assert len(life.home.index.revisions(sent.sop_instance_uid)) == 1


def test_equal_records_of_one_time_are_one_after_a_start_too(data: Path) -> None:
    with living(settings_of(data)) as life:
        as_in_time([SMALL] * 3, life)
        life.packer.pack_now()
    assert recover(settings_of(data)).instances_pending == 0


def test_two_objects_under_one_uid_at_the_same_time_are_both_kept(life: Life) -> None:
    objects = [make_object(1, 1, 1, pixels=text * 8) for text in (b"one ", b"two!")]
    assert sorted(as_in_time(objects, life)) == ["new", "revision"]
    found = life.home.index.revisions(SMALL.sop_instance_uid)
    data_sets = set()
    for stored in found:
        with life.retrieval.open(stored) as opened:
            data_sets.add(bytes(opened.stored_data_set()))
    assert data_sets == {one.data_set for one in objects}


@pytest.mark.parametrize("packed", [False, True])
def test_one_sop_instance_uid_in_two_series_and_two_studies(life: Life, packed: bool) -> None:
    """Others' bug: the second must not replace the first."""
    objects = [make_object(1, 1, 1, sop="1.2.77"), make_object(1, 2, 1, sop="1.2.77"), make_object(2, 1, 1, sop="1.2.77")]
    assert [accepted.outcome for accepted in life.send(*objects)] == ["new", "revision", "revision"]
    if packed:
        life.packer.pack_now()
    life.assert_served(objects)
    for one in objects:
        assert len(life.retrieval.instances(one.study_instance_uid, one.series_instance_uid)) == 1


def test_a_command_that_names_another_object_is_a_mismatch(life: Life) -> None:
    for sop_class, sop in ((CT, "1.2.3.999"), ("1.2.840.10008.5.1.4.1.1.4", SMALL.sop_instance_uid)):
        for one in (SMALL, LARGE):
            uid = sop if sop == "1.2.3.999" else one.sop_instance_uid
            with pytest.raises(Mismatch, match=uid if sop == "1.2.3.999" else sop_class):
                life.send(Object(one.study_instance_uid, one.series_instance_uid, uid, one.data_set, sop_class))
    assert life.home.waiting() == (0, 0)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
def test_an_object_without_a_uid_is_not_understood(life: Life, keyword: str) -> None:
    without: dict[str, Any] = {keyword: ""}
    sent = make_object(1, 1, 1, **without)
    with pytest.raises(NotUnderstood, match=r"(?i)" + keyword.replace("UID", "")[:6]):
        life.send(sent)
    assert life.home.waiting() == (0, 0)


def test_a_second_object_is_refused_where_the_settings_say_so(data: Path) -> None:
    with living(settings_of(data, index={"revision_refused": True, "map_bytes_max": 64 << 20})) as life:
        life.send(SMALL)
        for _ in range(2):
            with pytest.raises(Duplicate, match=SMALL.sop_instance_uid):
                life.send(make_object(1, 1, 1, pixels=b"another one"))
            assert life.send(SMALL)[0].outcome == "same"
            life.packer.pack_now()
        assert len(life.home.index.revisions(SMALL.sop_instance_uid)) == 1


def test_a_full_journal_is_exhausted_and_takes_again_when_packed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("archive.flow.home.ROOM_SECONDS", 0.0)  # Look at the bounds for every object.
    bytes_max = 64 << 20
    settings = settings_of(
        data, journal={"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "free_bytes_min": 0, "bytes_max": bytes_max}
    )
    with living(settings) as life:
        life.send(SMALL)
        with life.home.index.pending.environment.writing() as t:
            life.home.index.pending._count(t, 0, bytes_max)  # As if so much were waiting.
        with pytest.raises(Exhausted, match="bytes_max"):
            life.send(LARGE)
        with life.home.index.pending.environment.writing() as t:
            life.home.index.pending._count(t, 0, -bytes_max)
        assert life.send(LARGE)[0].outcome == "new"


def test_what_was_refused_once_stays_refused(data: Path) -> None:
    """Whether the bound was looked at because of the time or because of the bytes."""
    bytes_max = 64 << 20
    with living(settings_of(data, journal={"segment_bytes": 1 << 20, "large_bytes": LARGE_BYTES, "bytes_max": bytes_max})) as life:
        life.send(SMALL)
        with life.home.index.pending.environment.writing() as t:
            life.home.index.pending._count(t, 0, bytes_max)
        life.home.took(bytes_max // 64)
        for _ in range(2):
            with pytest.raises(Exhausted, match="bytes_max"):
                life.send(LARGE)


def test_a_disk_without_room_is_exhausted(data: Path) -> None:
    with (
        living(settings_of(data, journal={"free_bytes_min": 1 << 60, "large_bytes": LARGE_BYTES})) as life,
        pytest.raises(Exhausted, match="free_bytes_min"),
    ):
        life.send(SMALL)


class FullDisk(Disk):
    """Says that it is full at a call."""

    full = ""

    def write(self, fd: int, parts: object, offset: int) -> int:
        if self.full == "write":
            raise Exhausted("the disk is full")
        return super().write(fd, parts, offset)  # type: ignore[arg-type]

    def sync(self, fd: int) -> None:
        if self.full == "sync":
            raise OSError(5, "Input/output error")
        super().sync(fd)


@pytest.mark.parametrize("full", ["write", "sync"])
@pytest.mark.parametrize("sent", [SMALL, LARGE])
def test_a_disk_that_fails_in_the_middle_is_no_success_and_leaves_nothing(data: Path, full: str, sent: Object) -> None:
    disk = FullDisk()
    settings = settings_of(data)
    with living(settings, disk) as life:
        life.send(make_object(5, 1, 1))
        disk.full = full
        with pytest.raises((Exhausted, OSError)):
            life.send(sent)
        disk.full = ""
        assert life.home.waiting()[0] == 1
        assert files_below(data / "journal/incoming") == []
        assert life.send(sent)[0].outcome == "new"
        life.assert_served([sent, make_object(5, 1, 1)])
    recover(settings)
    with living(settings) as life:
        life.assert_served([sent, make_object(5, 1, 1)])


def test_an_object_without_an_end_is_stopped_at_the_bounds(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with living(settings_of(data)) as life:
        reception = begin(life, LARGE)
        reception.write(bytes(3 * LARGE_BYTES))
        settings = settings_of(data, journal={"free_bytes_min": 1 << 60, "large_bytes": LARGE_BYTES})
        monkeypatch.setattr(life.home, "settings", settings)
        monkeypatch.setattr(life.home, "_room_until", 0.0)
        with pytest.raises(Exhausted, match="free_bytes_min"):
            reception.write(bytes(3 * LARGE_BYTES))
        reception.abort()
        assert files_below(data / "journal/incoming") == []


def test_memory_is_given_back_though_a_file_cannot_be_removed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise OSError(5, "Input/output error")

    with living(settings_of(data, dimse={"buffer_bytes_max": 1 << 20})) as life:
        with monkeypatch.context() as patch:
            patch.setattr(life.home.disk, "unlink", fail)
            for _ in range((1 << 20) // LARGE_BYTES):
                reception = begin(life, LARGE)
                reception.write(LARGE.data_set)
                with pytest.raises(OSError, match="Input/output"):
                    reception.abort()
        assert life.ingest.buffers.take() is not None


def test_when_all_buffers_are_taken_objects_stream(data: Path) -> None:
    with living(settings_of(data, dimse={"buffer_bytes_max": 1 << 20})) as life:
        held = [begin(life, SMALL) for _ in range((1 << 20) // LARGE_BYTES)]
        assert files_below(data / "journal/incoming") == []
        small = make_object(1, 1, 7)
        streamed = begin(life, small)
        assert len(files_below(data / "journal/incoming")) == 1
        streamed.write(small.data_set)
        assert streamed.commit().outcome == "new"
        assert life.received(small) == small.data_set
        for reception in held:
            reception.abort()
        begin(life, SMALL).abort()
        assert files_below(data / "journal/incoming") == []


def test_a_stream_that_cannot_start_leaves_nothing(data: Path) -> None:
    disk = FullDisk()
    with living(settings_of(data, dimse={"buffer_bytes_max": 1 << 20}), disk) as life:
        held = [begin(life, SMALL) for _ in range((1 << 20) // LARGE_BYTES)]
        write = disk.write

        def fail_in_the_part(fd: int, parts: object, offset: int) -> int:
            if offset > 0:
                raise Exhausted("the disk is full")
            return write(fd, parts, offset)

        disk.write = fail_in_the_part  # type: ignore[method-assign]
        with pytest.raises(Exhausted):
            begin(life, SMALL)
        assert files_below(data / "journal/incoming") == []
        for reception in held:
            reception.abort()


@pytest.mark.parametrize("sent", [SMALL, LARGE])
def test_an_abort_leaves_nothing_and_may_be_repeated(life: Life, data: Path, sent: Object) -> None:
    reception = begin(life, sent)
    reception.write(sent.data_set)
    reception.abort()
    reception.abort()
    assert files_below(data / "journal") == ["counters", "writers"]
    assert life.home.waiting() == (0, 0)
    free = len(life.ingest.buffers._free)
    begin(life, sent).abort()
    assert len(life.ingest.buffers._free) == free == 1


def test_a_sender_that_tries_again_repairs_its_damaged_record(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        life.send(SMALL, make_object(1, 1, 2))
    (segment,) = (data / "journal/sealed").iterdir()
    content = bytearray(segment.read_bytes())
    content[content.index(SMALL.data_set) + len(SMALL.data_set) - 1] ^= 1
    segment.write_bytes(content)
    for outcome in ("new", "same", "same"):  # The damaged record is read again as long as its segment is there.
        recover(settings)
        with living(settings) as life:
            assert outcome == "new" or life.received(SMALL) == SMALL.data_set
            assert life.send(SMALL)[0].outcome == outcome
            assert life.received(SMALL) == SMALL.data_set
    with living(settings) as life:
        assert life.packer.pack_now().set_aside == {}
        assert life.home.waiting() == (0, 0)
        life.assert_served([SMALL, make_object(1, 1, 2)])
    recover(settings)
    assert files_below(data / "journal/sealed") == []


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("served", ["first", "last"])
def test_the_order_of_revisions_is_not_that_of_a_clock_that_was_set_back(
    data: Path, served: str, packed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = [make_object(1, 1, 1, PatientName=name) for name in ("A", "B", "C")]
    with living(settings_of(data, index={"revision_served": served, "map_bytes_max": 64 << 20})) as life:
        for one, now in zip(objects, (5_000_000, 3_000_000, 4_000_000), strict=True):
            monkeypatch.setattr(ingest, "now_us", lambda now=now: now)
            life.send(one)
            if packed:
                life.packer.pack_now()
        wanted = objects[0 if served == "first" else -1]
        life.assert_served([wanted])
        (stored,) = life.retrieval.instances("1.2.1", "1.2.1.1")
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.data_set()) == wanted.data_set
