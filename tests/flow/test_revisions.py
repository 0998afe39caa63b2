"""Different objects under one SOP Instance UID: the first is never harmed, and what the sender is told is the truth."""

import contextlib
import threading
from pathlib import Path

import pytest

from archive.errors import ArchiveError, Duplicate
from archive.flow.deletion import Deleter
from archive.flow.ingest import Reception
from archive.flow.recovery import rebuild_index, recover
from tests.flow.compacting import allowed
from tests.flow.objects import Life, Object, living, make_object

FIRST = make_object(1, 1, 1)
OTHER = make_object(1, 1, 1, pixels=b"another picture!")
ELSEWHERE = make_object(1, 2, 1, sop=FIRST.sop_instance_uid)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("second", [OTHER, ELSEWHERE], ids=["other bytes", "another series"])
def test_one_after_the_other(data: Path, second: Object, packed: bool) -> None:
    settings = allowed(data)
    with living(settings) as life:
        outcomes = []
        for one in (FIRST, FIRST, second, second, FIRST):
            outcomes += [accepted.outcome for accepted in life.send(one)]
            if packed:
                life.packer.pack_now()
        assert outcomes == ["new", "same", "revision", "same", "same"]
        life.assert_served([FIRST])
        assert len(life.home.index.revisions(FIRST.sop_instance_uid)) == 2
    rebuild_index(settings)
    with living(settings) as life:
        life.assert_served([FIRST])
        assert len(life.home.index.revisions(FIRST.sop_instance_uid)) == 2
        Deleter(life.home).delete([FIRST.sop_instance_uid], "test")
        assert life.send(second)[0].outcome == "new"
        life.assert_served([second])


@pytest.mark.parametrize("packed", [False, True])
def test_refused_where_the_settings_say_so(data: Path, packed: bool) -> None:
    settings = allowed(data, index={"map_bytes_max": 64 << 20, "revision_refused": True})
    with living(settings) as life:
        life.send(FIRST)
        if packed:
            life.packer.pack_now()
        for second in (OTHER, ELSEWHERE):
            with pytest.raises(Duplicate):
                life.send(second)
        assert life.send(FIRST)[0].outcome == "same"
        Deleter(life.home).delete([FIRST.sop_instance_uid], "test")
        assert life.send(OTHER)[0].outcome == "new"
    recover(settings)
    with living(settings) as life:
        life.assert_served([OTHER])
        assert len(life.home.index.revisions(FIRST.sop_instance_uid)) == 1


def at_once(life: Life, objects: list[Object]) -> list[str]:
    """Each sent by a thread of its own, all of them at the moment when they look for what is known; what each was told."""
    told = [""] * len(objects)

    def send(number: int) -> None:
        try:
            told[number] = life.send(objects[number])[0].outcome
        except ArchiveError as error:
            told[number] = type(error).__name__

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(objects))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return told


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("refused", [False, True])
def test_at_the_very_same_moment(data: Path, refused: bool, large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = allowed(data, index={"map_bytes_max": 64 << 20, "revision_refused": refused})
    size = 100_000 if large else 200
    objects = [make_object(1, 1, 1, pixels=bytes([65 + number]) * size) for number in range(4)]
    barrier = threading.Barrier(len(objects))
    known = Reception._known

    def wait_for_all(self: Reception, description: object) -> object:
        found = known(self, description)  # type: ignore[arg-type]
        with contextlib.suppress(threading.BrokenBarrierError):  # They are let in one by one.
            barrier.wait(0.5)
        return found

    monkeypatch.setattr(Reception, "_known", wait_for_all)
    with living(settings) as life:
        told = at_once(life, objects)
        if refused:
            assert sorted(told) == ["Duplicate"] * 3 + ["new"]
        else:
            assert sorted(told) == ["new"] + ["revision"] * 3
        kept = [one for one, outcome in zip(objects, told, strict=True) if outcome == "new" or not refused]
        first = next(one for one in kept if one.data_set == life.received(one))
    recover(settings)
    with living(settings) as life:
        life.assert_served([first])
        assert len(life.home.index.revisions(FIRST.sop_instance_uid)) == (1 if refused else 4)


def test_the_same_object_at_the_very_same_moment_while_the_other_is_packed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look at what is known and its own publication, the very same object came and was packed."""
    settings = allowed(data)
    publish = Reception._publish
    with living(settings) as life:

        def after_another(self: Reception, *arguments: object) -> object:
            monkeypatch.undo()
            assert life.send(FIRST)[0].outcome == "new"
            life.packer.pack_now()
            return publish(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Reception, "_publish", after_another)
        assert life.send(FIRST)[0].outcome == "same"
        assert len(life.home.index.revisions(FIRST.sop_instance_uid)) == 1
