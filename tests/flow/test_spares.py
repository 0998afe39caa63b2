"""Spare segments are made while objects come in, whatever the packer does meanwhile."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.errors import Exhausted
from archive.flow import spares
from archive.flow.recovery import recover
from archive.flow.spares import Spares
from tests.flow.objects import Life, files_below, living, make_object, settings_of

COUNT_MAX = 3


@pytest.fixture
def life(data: Path) -> Iterator[Life]:
    with living(settings_of(data, journal={"segment_bytes": 1 << 20, "free_bytes_min": 0, "spare_segments_max": COUNT_MAX})) as one:
        yield one


def made(data: Path) -> int:
    return len(files_below(data / "journal/spare"))


def test_none_is_made_for_a_few_objects_and_all_for_more(life: Life, data: Path) -> None:
    makes = Spares(life.home)
    life.send(make_object(1, 1, 1))
    assert not makes.make_one()
    life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(2, 5)])
    assert [makes.make_one() for _ in range(COUNT_MAX + 1)] == [True] * COUNT_MAX + [False]
    assert made(data) == COUNT_MAX


def test_as_many_more_as_wait_to_be_packed(data: Path) -> None:
    with living(settings_of(data, journal={"segment_bytes": 1 << 20, "free_bytes_min": 0})) as life:
        makes = Spares(life.home)
        life.send(make_object(1, 1, 1, pixel_bytes=200_000))
        assert [makes.make_one() for _ in range(5)] == [True] * 4 + [False]
        life.send(*[make_object(1, 1, number, pixel_bytes=700_000) for number in range(2, 6)])
        while makes.make_one():
            pass
        assert made(data) == 4 + 2, "2.9 MiB wait"


def test_they_are_given_back_where_the_disk_has_scanty_room(life: Life, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty journal must not refuse objects for the room that its spares take."""
    makes = Spares(life.home)
    life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(4)])
    while makes.make_one():
        pass
    monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: (4 << 20) - (1 + made(data) - COUNT_MAX << 20))
    makes.give_back()
    assert made(data) == COUNT_MAX - 1
    life.packer.pack_now()
    monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: 1 << 20)
    taken = life.home.disk.open_write(min((data / "journal/spare").iterdir()))
    try:
        assert life.home.disk.lock(taken, shared=False, wait=False)  # A writer is about to give it another life.
        makes.give_back()
        assert made(data) == 1
    finally:
        life.home.disk.close(taken)
    makes.give_back()
    assert made(data) == 0


def test_none_is_made_while_somebody_waits_for_packing(life: Life, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spares, "REST_SECONDS", 0.001)
    life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(4)])
    assert not Spares(life.home, lambda: True).make_one()
    waits = iter([False, True, True, True, False])  # Somebody comes while one is being made.
    assert Spares(life.home, lambda: next(waits)).make_one()
    assert list(waits) == [] and made(data) == 1


def test_none_is_made_where_the_disk_has_little_room(life: Life, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(4)])
    monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: 16 << 20)
    assert not Spares(life.home).make_one()
    monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: (16 << 20) + 1)
    assert Spares(life.home).make_one()


def test_they_are_made_until_stopped_and_after_any_error(
    life: Life, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(4)])
    monkeypatch.setattr(spares, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(spares, "POLL_SECONDS", 0.01)
    make, full = life.home.journal.make_spare, Exhausted("the disk is full")
    failures = iter([full, full, OSError("broken"), ValueError("a defect")])

    def fail_first(between: Callable[[], None], enough: int) -> bool:
        for failure in failures:
            raise failure
        return make(between, enough)

    monkeypatch.setattr(life.home.journal, "make_spare", fail_first)
    stop = threading.Event()
    thread = threading.Thread(target=Spares(life.home).run, args=(stop,))
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while made(data) < COUNT_MAX:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive()
    said = [record.getMessage() for record in caplog.records if "no spare" in record.getMessage()]
    assert len(said) == 3 and all(text in line for text, line in zip(("the disk is full", "broken", "a defect"), said, strict=True))


def test_none_is_made_where_the_disk_of_the_mirror_has_little_room(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    settings = settings_of(data, journal={"segment_bytes": 1 << 20, "free_bytes_min": 0, "mirror": str(mirror)})
    recover(settings)
    with living(settings) as life:
        life.send(*[make_object(1, 1, number, pixel_bytes=50_000) for number in range(4)])
        monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: 16 << 20 if path.is_relative_to(mirror) else 1 << 40)
        assert not Spares(life.home).make_one()
        monkeypatch.setattr(life.home.disk, "free_bytes", lambda path: (16 << 20) + 1 if path.is_relative_to(mirror) else 1 << 40)
        assert Spares(life.home).make_one()
