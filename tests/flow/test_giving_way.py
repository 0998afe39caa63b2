"""Packing gives way while objects come in, and only then; not where somebody waits for it."""

import threading
import time as clock
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.flow import packing
from archive.flow.giving_way import REST_SECONDS_MAX, RESTS, WORK_SECONDS, GivingWay
from archive.index.located import SeriesKey
from tests.flow.objects import Life, living, make_object, settings_of


class Time:
    """A clock that stands still but for what is worked and slept."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_it_rests_for_a_multiple_of_its_work_while_objects_come_in(life: Life) -> None:
    time, hurries = Time(), False
    give_way = GivingWay(life.home.index.pending.environment, lambda: hurries, lambda: time.now, time.sleep)

    def work(seconds: float) -> list[float]:
        time.slept.clear()
        time.now += seconds
        give_way()
        return time.slept

    assert work(0.004) == []
    life.send(make_object(1, 1, 1))
    assert work(0.004) == [pytest.approx(RESTS * 0.004)]
    assert work(0.004) == []  # Nothing came since.
    life.send(make_object(1, 1, 2))
    assert work(WORK_SECONDS * 0.6) == []
    assert work(WORK_SECONDS * 0.6) == [pytest.approx(RESTS * WORK_SECONDS * 1.2)]
    life.send(make_object(1, 1, 3))
    assert work(1.0) == [REST_SECONDS_MAX]
    hurries = True
    life.send(make_object(1, 1, 4))
    assert work(0.004) == []


def test_waiting_is_no_work_and_what_other_threads_do_is(life: Life) -> None:
    slept: list[float] = []
    give_way = GivingWay(life.home.index.pending.environment, lambda: False, sleep=slept.append)

    def in_a_thread(work: Callable[[], object]) -> None:
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(20)

    life.send(make_object(1, 1, 1))
    give_way._since = clock.process_time()
    clock.sleep(0.05)
    give_way()
    assert slept == []
    in_a_thread(lambda: sum(range(1_000_000)))
    give_way()
    assert len(slept) == 1


@pytest.mark.parametrize("why", ["nobody waits", "the journal presses", "commitment is asked for", "pack --now", "it presses meanwhile"])
def test_the_packer_gives_way_unless_somebody_waits(data: Path, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    """What it is told between two records; the journal may hold 64 MiB, and presses from a part of that on."""
    told: list[bool] = []
    stop = threading.Event()
    ratio = 0.00001 if why == "the journal presses" else 0.01 if why == "it presses meanwhile" else 1
    packer = {"quiet_seconds": 3600 if why == "pack --now" else 0, "pressure_ratio": ratio}

    class Noted(GivingWay):
        def __call__(self) -> None:
            told.append(self._in_a_hurry())
            if len(told) == 1 and why == "it presses meanwhile":
                life.send(*[make_object(2, 1, number, pixel_bytes=60_000) for number in range(12)])

    monkeypatch.setattr(packing, "GivingWay", Noted)
    with living(settings_of(data, packer=packer, journal={"bytes_max": 64 << 20, "segment_bytes": 1 << 20})) as life:
        sent = [make_object(1, 1, number) for number in range(4)]
        life.send(*sent)
        if why == "commitment is asked for":
            key = SeriesKey(sent[0].study_instance_uid, sent[0].series_instance_uid)
            monkeypatch.setattr(life.packer._awaited, "series", lambda: {key})
        if why == "pack --now":
            life.packer.pack_now()
        else:
            thread = threading.Thread(target=life.packer.run, args=(stop,))
            thread.start()
            deadline = clock.monotonic() + 20
            while life.home.waiting()[0] and clock.monotonic() < deadline:
                clock.sleep(0.02)
            stop.set()
            thread.join(20)
        assert life.home.waiting() == (0, 0)
    assert told[0] == (why not in ("nobody waits", "it presses meanwhile"))
    assert told[1] == (why != "nobody waits")
