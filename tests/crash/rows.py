"""What the tests of the crash table have in common."""

from pathlib import Path

from archive.tier.tails import read_pack_tail
from tests.crash.cutting import Cut
from tests.crash.doomed import Doomed, plans, uids
from tests.flow.objects import NAME, Life, Object, make_object

SMALL = make_object(1, 3, 1, pixel_bytes=40_000)
LARGE = make_object(1, 2, 1, pixel_bytes=150_000)
SERIES = [make_object(1, 1, number) for number in (2, 1, 3)]
IN_ORDER = [SERIES[1], SERIES[0], SERIES[2]]


def pack_series(doomed: Doomed) -> None:
    doomed.life.send(*SERIES)
    doomed.life.packer.pack_now()


def assert_sent_again(life: Life, one: Object, outcome: str) -> None:
    assert life.send(one)[0].outcome == outcome
    assert life.received(one) == one.data_set


def assert_packed(life: Life, objects: list[Object], number: int, packs: int) -> None:
    """The pack with this number holds exactly these, in this order, and it is the last of so many."""
    entries = list(life.home.tier.list_packs(NAME))
    assert [entry.name.sequence for entry in entries] == list(range(1, packs + 1))
    tail = read_pack_tail(life.home.tier, entries[number - 1].name)
    assert [d.sop_instance_uid for series in tail.series for _, d in series.instances] == uids(objects)
    assert life.home.waiting() == (0, 0)
    assert plans(life) == []
    life.assert_served(objects)


def cut(*_: object) -> None:
    raise Cut


def flip(file: Path, where: bytes) -> None:
    """One bit of the last of these bytes, in the only place that holds them."""
    content = bytearray(file.read_bytes())
    assert content.count(where) == 1
    content[content.index(where) + len(where) - 1] ^= 1
    file.write_bytes(content)
