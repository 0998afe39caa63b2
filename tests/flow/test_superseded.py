"""Packs whose content went on in others: how long they stay, what must be proved first, what a second node sees."""

from pathlib import Path
from typing import Any

import pytest

from archive.errors import Damaged, Unavailable
from archive.flow.check import verify
from archive.flow.compaction import Compactor
from archive.flow.following import adopt_packs
from archive.flow.housekeeping import Housekeeping
from archive.flow.recovery import recover
from archive.flow.superseded import delete_superseded
from archive.pack.naming import PackName
from tests.flow.compacting import allowed, compact, delete, pack_each
from tests.flow.objects import NAME, living, make_object, pack_files

TARGET = {"pack_bytes_target": 1 << 20}


def test_old_packs_rest_until_their_grace_is_over(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        assert compact(life, 3600).packs_waiting == 2
        assert len(pack_files(data)) == 3
        assert delete_superseded(life.home, 3600) == []
        assert len(pack_files(data)) == 3
    assert verify(settings) == []
    recover(settings)
    with living(settings) as life:
        assert delete_superseded(life.home, 0) == []
        assert len(pack_files(data)) == 1
        life.assert_served([make_object(1, 1, 1), make_object(1, 1, 2)])


def damage(path: Path, needle: bytes) -> None:
    path.chmod(0o640)
    data = bytearray(path.read_bytes())
    data[data.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_pack_is_left_as_it_is_and_the_others_are_joined(data: Path) -> None:
    with living(allowed(data)) as life:
        sent = pack_each(life, *(make_object(1, 1, number) for number in range(3)))
    damage(pack_files(data)[1], sent[1].data_set)
    with living(allowed(data)) as life:
        report = compact(life)
        assert (report.packs_read, report.packs_written) == (2, 1)
        assert len(report.kept) == 1 and "000000000002" in report.kept[0]
        life.assert_served([sent[0], sent[2]])
        with pytest.raises(Damaged):
            life.received(sent[1])
        assert [entry.name.sequence for entry in life.home.tier.list_packs(NAME)] == [2, 4]


@pytest.mark.parametrize("harm", ["flipped", "missing"])
def test_the_old_packs_stay_where_the_new_one_is_not_whole(data: Path, harm: str) -> None:
    with living(allowed(data)) as life:
        sent = pack_each(life, make_object(1, 1, 1), make_object(1, 1, 2))
        compact(life, 3600)
    if harm == "flipped":
        damage(pack_files(data)[2], sent[0].data_set)
    else:
        pack_files(data)[2].unlink()
    with living(allowed(data)) as life:
        assert len(delete_superseded(life.home, 0)) == 2
        assert [entry.name.sequence for entry in life.home.tier.list_packs(NAME)][:2] == [1, 2]


# --- a second node


def test_a_second_node_follows(tmp_path: Path) -> None:
    tier = f"file://{tmp_path}/tier"
    one, two = (allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": tier}) for name in ("one", "two"))
    with living(one) as first, living(two) as second:
        sent = [make_object(1, 1, number) for number in range(4)]
        for part in sent[:2], sent[2:]:
            first.send(*part)
            first.packer.pack_now()
        adopt_packs(second.home, own=False)
        second.assert_served(sent)
        delete(first, sent[3].sop_instance_uid)
        first.packer.pack_now()
        compact(first)  # Without any grace.
        second.home.pool._packs.clear()  # What it had mapped would still do.
        with pytest.raises(Unavailable):  # It looks again soon; nothing is called damaged, or not found.
            second.received(sent[0])
        Housekeeping(second.home).tend_now()
        second.assert_served(sent[:3])
        assert len(second.retrieval.instances("1.2.1")) == 3
        with second.home.index.packed.environment.reading() as t:
            assert second.home.index.packed.superseded(t) == []
            assert second.home.index.packed.counts(t)["packs"] == 1
        assert compact(second).packs_read == 0, "packs of others are theirs"
    assert verify(two) == []


def test_what_is_found_in_no_other_pack_yet_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of a pack's content went on when its mount was away for a moment."""
    one, two = (
        allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": f"file://{tmp_path}/tier"}, packer=TARGET)
        for name in ("one", "two")
    )
    with living(one) as first, living(two) as second:
        sent = [make_object(1, 1, number, pixel_bytes=400_000) for number in range(3)]
        for part in sent[:2], sent[2:]:
            first.send(*part)
            first.packer.pack_now()
        adopt_packs(second.home, own=False)
        with first.home.index.packed.environment.reading() as t:
            old = list(first.home.index.packed.packs(t))
        publish = first.packer.publish
        published: list[PackName] = []

        def once(*arguments: Any) -> PackName:
            if published:
                raise Unavailable("the tier is away after the first of two packs")
            published.append(publish(*arguments))
            return published[0]

        compactor = Compactor(first.home, first.packer)
        with monkeypatch.context() as patch:
            patch.setattr(first.packer, "publish", once)
            with pytest.raises(Unavailable):
                compactor._write(old)
        adopt_packs(second.home, own=False)
        (tmp_path / "tier").rename(tmp_path / "away")
        (tmp_path / "tier").mkdir()
        Housekeeping(second.home).tend_now()
        (tmp_path / "tier").rmdir()
        (tmp_path / "away").rename(tmp_path / "tier")
        second.home.pool._packs.clear()
        second.home.index.packed._packs.clear()  # As in another process.
        second.assert_served(sent)
        compactor.compact(grace_seconds=0.0)
        Housekeeping(second.home).tend_now()
        second.assert_served(sent)
        with second.home.index.packed.environment.reading() as t:
            assert second.home.index.packed.superseded(t) == []
    assert verify(two) == []
