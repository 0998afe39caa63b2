"""Packing gives way while objects come in, and only then; not where somebody waits for it."""

import threading
from pathlib import Path

import pytest

from archive.flow import packing
from archive.flow.giving_way import REST_SECONDS_MAX, RESTS, WORK_SECONDS, GivingWay
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
    time = Time()
    give_way = GivingWay(life.home.index.pending.environment, lambda: time.now, time.sleep)

    def work(seconds: float) -> list[float]:
        time.slept.clear()
        time.now += seconds
        give_way()
        return time.slept

    assert work(0.01) == []
    life.send(make_object(1, 1, 1))
    assert work(0.01) == [pytest.approx(RESTS * 0.01)]
    assert work(0.01) == []  # Nothing came since.
    life.send(make_object(1, 1, 2))
    assert work(WORK_SECONDS * 0.6) == []
    assert work(WORK_SECONDS * 0.6) == [pytest.approx(RESTS * WORK_SECONDS * 1.2)]
    life.send(make_object(1, 1, 3))
    assert work(1.0) == [REST_SECONDS_MAX]


@pytest.mark.parametrize(
    ("settings", "gives_way"), [({"quiet_seconds": 0}, True), ({"quiet_seconds": 0, "pressure_ratio": 0.00001}, False)]
)
def test_the_packer_gives_way_unless_the_journal_presses(
    data: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, float], gives_way: bool
) -> None:
    made: list[object] = []

    class Noted(GivingWay):
        def __call__(self) -> None:
            made.append(self)
            stop.set()

    monkeypatch.setattr(packing, "GivingWay", Noted)
    stop = threading.Event()
    with living(settings_of(data, packer=settings, journal={"bytes_max": 64 << 20, "segment_bytes": 1 << 20})) as life:
        life.send(*[make_object(1, 1, number) for number in range(4)])
        thread = threading.Thread(target=life.packer.run, args=(stop,))
        thread.start()
        while life.home.waiting()[0]:
            stop.wait(0.02)
        stop.set()
        thread.join(20)
        assert bool(made) == gives_way
        life.send(make_object(2, 1, 1))
        made.clear()
        life.packer.pack_now()
        assert made == []
