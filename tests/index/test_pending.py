"""What waits to be packed: found from the moment that it is added, counted right, gone when it is removed."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from archive.dicom.json import dumps
from archive.index.located import SeriesKey
from archive.index.pending import PendingIndex, SeriesState
from archive.pack.descriptor import Deletion, Plan, Revision
from archive.pack.journal import Location
from tests.pack.build import NODE_HEX, Made, make_instance

SERIES = SeriesKey("1.2.3", "1.2.3.4")
OTHER = SeriesKey("1.2.3", "1.2.3.5")


@pytest.fixture
def pending(tmp_path: Path) -> Iterator[PendingIndex]:
    opened = PendingIndex(tmp_path, 64 << 20)
    yield opened
    opened.environment.close()


def add(pending: PendingIndex, *made: Made, segment: int = 1) -> None:
    with pending.environment.writing() as t:
        for each in made:
            pending.add(
                t,
                Location(segment, 4096 * each.descriptor.revision.sequence),
                each.descriptor,
                dumps(each.descriptor.to_json()),
                further=False,
            )


def remove(pending: PendingIndex, *sequences: int) -> None:
    with pending.environment.writing() as t:
        pending.remove(t, list(sequences))


def test_what_was_added_is_found(pending: PendingIndex) -> None:
    first, second = make_instance(1), make_instance(2, series=OTHER.series_instance_uid)
    add(pending, first, second)
    with pending.environment.reading() as t:
        (found,) = pending.find(t, first.descriptor.sop_instance_uid)
        assert (found.location, found.descriptor, found.further) == (Location(1, 4096), first.descriptor, False)
        assert pending.get(t, 2) == pending.find(t, second.descriptor.sop_instance_uid)[0]
        assert pending.get(t, 3) is None
        assert pending.find(t, "1.2.3.4.5.6") == []
        located = found.located()
    d = first.descriptor
    assert (located.sop_instance_uid, located.length, located.crc, located.digest) == (d.sop_instance_uid, d.length, d.crc, d.digest[:32])
    assert (located.place, located.revision, located.received_us) == (Location(1, 4096), d.revision, d.received_us)


def test_revisions_of_one_uid_are_all_found(pending: PendingIndex) -> None:
    made = [make_instance(1), make_instance(2, uid="1.2.3.4.1"), make_instance(3)]
    add(pending, *made)
    with pending.environment.reading() as t:
        assert sorted(p.descriptor.revision.sequence for p in pending.find(t, "1.2.3.4.1")) == [1, 2]
    remove(pending, 1)
    with pending.environment.reading() as t:
        assert [p.descriptor.revision.sequence for p in pending.find(t, "1.2.3.4.1")] == [2]


def test_a_series_is_told_in_the_order_of_arrival(pending: PendingIndex) -> None:
    numbers = [7, 300, 2, 70_000, 256, 1]
    add(pending, *(make_instance(number) for number in numbers), make_instance(5, series=OTHER.series_instance_uid))
    with pending.environment.reading() as t:
        assert [p.descriptor.revision.sequence for p in pending.instances(t, SERIES)] == sorted(numbers)
        first = pending.first_instance(t, SERIES)
        assert first is not None
        assert first.descriptor.revision.sequence == 1
        assert pending.first_instance(t, SeriesKey("1", "2")) is None


def test_states_of_series(pending: PendingIndex) -> None:
    made = [make_instance(n) for n in (5, 3, 4)]
    add(pending, *made, make_instance(9, study="1.2.30", series="7"))
    (state,) = [state for state in states(pending) if state.key == SERIES]
    received = [m.descriptor.received_us for m in made]
    assert state == SeriesState(SERIES, min(received), max(received), sum(len(m.data) for m in made), 3)
    with pending.environment.reading() as t:
        assert [s.key for s in pending.states(t, "1.2.3")] == [SERIES]  # not 1.2.30
    remove(pending, 3)
    (state,) = [state for state in states(pending) if state.key == SERIES]
    assert (state.instances, state.length) == (2, len(made[0].data) + len(made[2].data))
    remove(pending, 4, 5)
    assert [state.key for state in states(pending)] == [SeriesKey("1.2.30", "7")]


def states(pending: PendingIndex) -> list[SeriesState]:
    with pending.environment.reading() as t:
        return pending.states(t)


@pytest.mark.parametrize("seed", range(3))
def test_totals_and_states_stay_right_whatever_comes_and_goes(pending: PendingIndex, seed: int) -> None:
    chance = random.Random(seed)
    here: dict[int, Made] = {}
    for number in range(1, 200):
        if here and chance.random() < 0.45:
            gone = chance.sample(sorted(here), k=min(len(here), chance.randrange(1, 4)))
            remove(pending, *gone, 10_000 + number)  # one that was never there
            remove(pending, gone[0])
            for sequence in gone:
                del here[sequence]
        else:
            here[number] = make_instance(number, b"x" * chance.randrange(1, 500), series=f"1.2.3.{chance.randrange(3)}")
            add(pending, here[number], segment=number % 5)
    with pending.environment.reading() as t:
        assert pending.totals(t) == (len(here), sum(len(m.data) for m in here.values()))
        by_series: dict[str, list[Made]] = {}
        for made in here.values():
            by_series.setdefault(made.descriptor.series_instance_uid, []).append(made)
        found = {s.key.series_instance_uid: (s.instances, s.length) for s in pending.states(t)}
        assert found == {uid: (len(each), sum(len(m.data) for m in each)) for uid, each in by_series.items()}
        assert {segment: pending.needed(t, segment) for segment in range(5)} == {
            segment: any(sequence % 5 == segment for sequence in here) for segment in range(5)
        }
    remove(pending, *here)
    with pending.environment.reading() as t:
        assert pending.totals(t) == (0, 0)
        assert [name for name in pending.environment.tables if name != "totals" and t.count(name)] == []


def test_a_segment_is_needed_while_anything_of_it_waits(pending: PendingIndex) -> None:
    plan = Plan("ab" * 16, 1, [1])
    deletion = Deletion(Revision(NODE_HEX, 6), 1, "cli", [(Revision(NODE_HEX, 1), "1.2")])
    add(pending, make_instance(1), segment=1)
    with pending.environment.writing() as t:
        pending.add_plan(t, Location(2, 4096), 5, plan)
        pending.add_deletion(t, Location(3, 4096), deletion)
        pending.keep(t, 4)
        assert pending.plans(t) == [(5, plan)]
        assert list(pending.deletions(t)) == [deletion]

    def needed() -> list[int]:
        with pending.environment.reading() as t:
            return [number for number in range(6) if pending.needed(t, number)]

    assert needed() == [1, 2, 3, 4]
    remove(pending, 1)
    assert needed() == [2, 3, 4]
    with pending.environment.writing() as t:
        pending.remove_small(t, "plans", [5, 99])
    assert needed() == [3, 4]
    with pending.environment.writing() as t:
        pending.remove_small(t, "deletions", [6])
        assert (pending.plans(t), list(pending.deletions(t))) == ([], [])
    assert needed() == [4]  # it holds damage


def test_what_is_set_aside_is_named_until_it_is_removed(pending: PendingIndex) -> None:
    add(pending, make_instance(1), make_instance(2))
    with pending.environment.writing() as t:
        pending.set_aside(t, 2, "payload does not match its CRC")
        assert pending.aside(t) == {2: "payload does not match its CRC"}
    remove(pending, 2)
    with pending.environment.reading() as t:
        assert pending.aside(t) == {}


def test_a_further_revision_is_flagged_and_large_payloads_keep_their_blocks(pending: PendingIndex) -> None:
    descriptor = replace(make_instance(1).descriptor, block_crcs=[1, 2], pixels={"tag": "7FE00010"})
    with pending.environment.writing() as t:
        pending.add(t, Location(1, 4096), descriptor, dumps(descriptor.to_json()), further=True)
    with pending.environment.reading() as t:
        located = pending.find(t, descriptor.sop_instance_uid)[0].located()
    assert (located.further, located.block_crcs, located.pixels) == (True, [1, 2], {"tag": "7FE00010"})
