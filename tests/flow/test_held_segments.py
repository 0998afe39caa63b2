"""Journal segments that a few damaged records hold up are freed; the records stay, as damaged as they are, by name."""

from pathlib import Path

import pytest

from archive.errors import Damaged, Exhausted
from archive.flow import held_segments
from archive.flow.check import verify
from archive.flow.deletion import Deleter
from archive.flow.held_segments import rewrite_held
from archive.flow.home import Home
from archive.flow.recovery import recover
from archive.pack.journal import Appended, Location
from tests.crash.cutting import Cut
from tests.flow.objects import Life, Object, files_below, living, make_object, settings_of

COUNT = 60
SENT = [make_object(1, 1, number, pixel_bytes=50_000) for number in range(COUNT)]


def fill(data: Path) -> list[Object]:
    """Three segments or more, one damaged record in each; all the rest is packed."""
    settings = settings_of(data)
    with living(settings) as life:
        life.send(*SENT)
    bad = []
    for path in sorted((data / "journal/sealed").iterdir()):
        content = bytearray(path.read_bytes())
        one = next(one for one in SENT if one.data_set in content)
        content[content.index(one.data_set) + 1000] ^= 1
        path.write_bytes(content)
        bad.append(one)
    recover(settings)
    with living(settings) as life:
        life.packer.pack_now()
    assert len(bad) >= 3
    return bad


def assert_set_aside(life: Life, bad: list[Object]) -> None:
    with life.home.index.pending.environment.reading() as t:
        aside = life.home.index.pending.aside(t)
    assert len(aside) == len(bad)
    for one in bad:
        assert any(one.sop_instance_uid in reason for reason in aside.values())
        with pytest.raises(Damaged):
            life.received(one)
    life.assert_served([one for one in SENT if one not in bad])


def test_several_become_one(data: Path) -> None:
    bad = fill(data)
    settings = settings_of(data)
    with living(settings) as life:
        life.packer.release_segments()  # That of the plan.
        before = len(life.home.journal.sealed())
        assert before == len(bad)
        assert rewrite_held(life.home) == before
        assert life.packer.release_segments() == before
        assert_set_aside(life, bad)
    with living(settings) as life:
        assert len(life.home.journal.sealed()) == 1
        assert rewrite_held(life.home) == 0, "one alone is left"
        assert_set_aside(life, bad)
    recover(settings)
    assert [f.severity for f in verify(settings)] == ["damage"] * len(bad)
    with living(settings) as life:
        assert_set_aside(life, bad)
        assert {a.outcome for a in life.send(*bad)} <= {"new", "revision"}
        life.packer.pack_now()
        life.assert_served(SENT)
        assert life.home.waiting() == (0, 0)
    recover(settings)
    assert files_below(data / "journal/sealed") == []


@pytest.mark.parametrize("cut_after", [0, 1, 2])
def test_H1_it_is_cut_off(data: Path, cut_after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = fill(data)
    settings = settings_of(data)
    with living(settings) as life:
        move, left = life.home.index.pending.move, [cut_after]

        def move_or_cut(*arguments: object) -> None:
            if not left[0]:
                raise Cut
            left[0] -= 1
            move(*arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(life.home.index.pending, "move", move_or_cut)
        with pytest.raises(Cut):
            rewrite_held(life.home)
    for _ in range(2):
        recover(settings)
        with living(settings) as life:
            assert_set_aside(life, bad)
            life.packer.pack_now()
    with living(settings) as life:
        rewrite_held(life.home)
        life.packer.release_segments()
        assert_set_aside(life, bad)
    recover(settings)
    with living(settings) as life:
        assert_set_aside(life, bad)
        assert len(life.home.journal.sealed()) == 1


def test_what_takes_more_than_its_share_is_left(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(data)
    monkeypatch.setattr(held_segments, "HELD_SHARE_MAX", 0.01)
    with living(settings_of(data)) as life:
        assert rewrite_held(life.home) == 0


def test_all_of_a_segment_goes_on_or_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it moved, a record would lie in two segments, and a void record name one of them."""
    first, second = SENT[:2]
    with living(settings_of(data, deletion={"allowed": True})) as life:
        life.send(first, second, make_object(2, 1, 1))
    (path,) = (data / "journal/sealed").iterdir()
    content = bytearray(path.read_bytes())
    for one in (first, second):
        content[content.index(one.data_set) + 1000] ^= 1
    path.write_bytes(content)
    recover(settings_of(data))
    again, calls = held_segments._append_again, 0

    def fail_at_the_second(home: Home, location: Location, sequence: int) -> Appended:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise Exhausted("the disk is full")
        return again(home, location, sequence)

    with living(settings_of(data, deletion={"allowed": True})) as life:
        life.packer.pack_now()
        with monkeypatch.context() as patch:
            patch.setattr(held_segments, "_append_again", fail_at_the_second)
            assert rewrite_held(life.home, every=True) == 0
        with life.home.index.pending.environment.reading() as t:
            assert len(life.home.index.pending.sequences(t, int(path.name[:12]))) == 2, "both are where they were"
        assert life.send(first)[0].outcome == "new"
        life.packer.pack_now()
    for is_deleted in (False, True):
        recover(settings_of(data))
        with living(settings_of(data, deletion={"allowed": True})) as life:
            life.packer.pack_now()
            if not is_deleted:
                Deleter(life.home).delete([first.sop_instance_uid], "test")
            life.packer.pack_now()
            assert life.home.index.revisions(first.sop_instance_uid) == []
