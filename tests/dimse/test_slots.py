"""Slots over several processes: the limit is never exceeded and nothing leaks."""

import multiprocessing
import os
import threading
from collections.abc import Iterator

import pytest

from archive.dimse.slots import AssociationSlots, clear_slots, create_slots


@pytest.fixture
def descriptor() -> Iterator[int]:
    created = create_slots(3)
    yield created
    os.close(created)


def test_the_limit_holds_over_workers(descriptor: int) -> None:
    first, second = AssociationSlots(descriptor, 0, 3), AssociationSlots(descriptor, 1, 3)
    assert [first.take(), second.take(), first.take(), second.take(), first.take()] == [True, True, True, False, False]
    first.give_back()
    assert [second.take(), first.take()] == [True, False]


def test_the_slots_of_a_dead_worker_are_cleared(descriptor: int) -> None:
    dead, alive = AssociationSlots(descriptor, 2, 2), AssociationSlots(descriptor, 1, 2)
    dead.count_connection(1)
    assert dead.take() and dead.take() and not alive.take()
    clear_slots(descriptor, 2, 3)
    assert alive.take() and alive.take() and not alive.take()
    assert not alive.is_ahead()


def test_a_restarted_worker_starts_with_none(descriptor: int) -> None:
    assert AssociationSlots(descriptor, 0, 1).take()
    assert AssociationSlots(descriptor, 0, 1).take()


def test_the_worker_with_fewer_connections_is_told_from_the_others(descriptor: int) -> None:
    workers = [AssociationSlots(descriptor, index, 9) for index in range(3)]
    workers[0].count_connection(1)
    assert [worker.is_ahead() for worker in workers] == [True, False, False]
    workers[0].count_connection(-1)
    assert [worker.is_ahead() for worker in workers] == [False, False, False]


def take_and_give_back(descriptor: int, index: int, rounds: int) -> None:
    slots = AssociationSlots(descriptor, index, 5)
    holder = AssociationSlots.give_back

    def work() -> None:
        for _ in range(rounds):
            if slots.take():
                assert sum(slots._everybody[0]) <= 5 + 6  # a taker may be seen before it finds the limit reached
                holder(slots)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_threads_of_two_processes_leave_no_slot_behind(descriptor: int) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=take_and_give_back, args=(descriptor, index, 2000)) for index in (0, 1)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert os.pread(descriptor, 48, 0) == bytes(48)


def test_a_title_with_a_limit_of_its_own() -> None:
    created, limits = create_slots(2, 2), {"CT1": 2, "MR1": 1}
    first, second = AssociationSlots(created, 0, 4, limits), AssociationSlots(created, 1, 4, limits)
    assert [first.take("CT1"), second.take("CT1"), second.take("CT1"), first.take("CT1")] == [True, True, False, False]
    assert [first.take("MR1"), second.take("MR1"), second.take("OTHER"), first.take("OTHER")] == [True, False, True, False]
    first.give_back("CT1")
    assert [second.take("MR1"), second.take("CT1"), second.take("OTHER")] == [False, True, False]
    clear_slots(created, 0, 2)
    assert [second.take("MR1"), second.take("MR1"), second.take("OTHER")] == [True, False, False]
    os.close(created)
