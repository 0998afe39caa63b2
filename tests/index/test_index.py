"""Both environments as one: a moving instance is in one of them at least; a lookup costs microseconds."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.json import dumps
from archive.index.index import Index
from archive.index.located import PackPlace
from archive.index.packed_writer import PackedWriter
from archive.pack.journal import Location
from archive.pack.pack_reader import read_tail
from tests.pack.build import Made, make_instance, make_pack, read_from


@pytest.fixture
def open_index(tmp_path: Path) -> Iterator[Callable[..., Index]]:
    opened: list[Index] = []

    def open_one(**options: str) -> Index:
        opened.append(Index(tmp_path / "index", 256 << 20, **options))  # type: ignore[arg-type]
        return opened[-1]

    yield open_one
    for index in opened:
        index.close()


def accept(index: Index, *made: Made) -> None:
    with index.pending.environment.writing() as t:
        for each in made:
            index.pending.add(t, Location(1, 4096), each.descriptor, dumps(each.descriptor.to_json()), further=False)


def commit(index: Index, *made: Made, sequence: int = 1) -> None:
    pack = make_pack(made, sequence=sequence)
    with index.packed.environment.writing() as t:
        PackedWriter(index.packed).add_pack(t, pack.name, read_tail(len(pack.data), read_from(pack.data)))


def forget(index: Index, *made: Made) -> None:
    with index.pending.environment.writing() as t:
        index.pending.remove(t, [each.descriptor.revision.sequence for each in made])


def test_an_instance_is_found_at_each_step_of_its_way(open_index: Callable[..., Index]) -> None:
    index, made = open_index(), make_instance(1)
    uid = made.descriptor.sop_instance_uid
    assert index.revisions(uid) == []
    accept(index, made)
    assert [type(i.place) for i in index.revisions(uid)] == [Location]
    commit(index, made)
    assert [type(i.place) for i in index.revisions(uid)] == [PackPlace]  # once, though it is in both
    forget(index, made)
    assert [type(i.place) for i in index.revisions(uid)] == [PackPlace]


def test_an_instance_that_moves_while_it_is_looked_up_is_found(open_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch) -> None:
    """The packer commits and forgets it between the two looks."""
    index, made = open_index(), make_instance(1)
    accept(index, made)
    looks: list[str] = []

    def then_move(name: str, find: Callable[..., Any]) -> Callable[..., Any]:
        def look(t: object, uid: str) -> Any:
            found = find(t, uid)
            looks.append(name)
            if len(looks) == 1:
                commit(index, made)
                forget(index, made)
            return found

        return look

    monkeypatch.setattr(index.pending, "find", then_move("pending", index.pending.find))
    monkeypatch.setattr(index.packed, "find", then_move("packed", index.packed.find))
    assert len(index.revisions(made.descriptor.sop_instance_uid)) == 1
    assert set(looks) == {"pending", "packed"}


def test_uids_whose_hashes_collide_are_told_apart(open_index: Callable[..., Index], monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("pending", "packed", "packed_writer"):
        monkeypatch.setattr(f"archive.index.{room}.hash_uid", lambda uid: b"collides")
    index = open_index()
    waiting, resting = [make_instance(n) for n in (1, 2)], [make_instance(n, study="1.5", series="1.5.1") for n in (3, 4)]
    accept(index, *waiting)
    commit(index, *resting)
    for made in (*waiting, *resting):
        (found,) = index.revisions(made.descriptor.sop_instance_uid)
        d = made.descriptor
        assert (found.sop_instance_uid, found.series_instance_uid, found.revision) == (
            d.sop_instance_uid,
            d.series_instance_uid,
            d.revision,
        )
    assert index.revisions("1.2.3.4.99") == []


@pytest.mark.parametrize(("served", "sequence"), [("first", 1), ("last", 3)])
def test_revisions_come_in_order_of_arrival(open_index: Callable[..., Index], served: str, sequence: int) -> None:
    index = open_index(revision_served=served)
    made = [make_instance(n, bytes([n]), uid="1.2.3.4.1") for n in (1, 2, 3)]
    accept(index, made[2], made[1])
    commit(index, made[0])
    found = index.revisions("1.2.3.4.1")
    assert [i.revision.sequence for i in found] == [1, 2, 3]
    assert index.served(found).revision.sequence == sequence


def test_a_lookup_costs_microseconds(open_index: Callable[..., Index]) -> None:
    """A bound ten times what it costs here, for slow and busy machines."""
    index = open_index()
    made = [make_instance(n, b"x") for n in range(1, 5001)]
    commit(index, *made)
    uids = [each.descriptor.sop_instance_uid for each in made[::5]]
    started = time.perf_counter()
    for uid in uids:
        assert index.revisions(uid)
    assert (time.perf_counter() - started) / len(uids) < 300e-6


def test_an_instance_costs_few_bytes(open_index: Callable[..., Index]) -> None:
    """Under 200 bytes each with short UIDs and no query attributes, pages that LMDB keeps free included."""
    index = open_index()
    before = index.packed.environment.size_bytes()
    commit(index, *(make_instance(n, b"x", attributes={}) for n in range(1, 5001)))
    assert (index.packed.environment.size_bytes() - before) / 5000 < 200
