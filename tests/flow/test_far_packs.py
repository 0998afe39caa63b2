"""Packs that lie on another machine: adopted when they are stored, else one ranged read for a first frame, the series behind it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from archive.errors import Damaged, Unavailable
from archive.flow import home as home_module
from tests.flow.objects import Life, Object, living, make_object, settings_of
from tests.pool.far import FarTier, wait_until

IMAGES = 30
PIXEL_BYTES = 300_000


@pytest.fixture
def far(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "open_tier", lambda url, embedded, *rest: FarTier(data / "far"))


@contextmanager
def open_life(data: Path, **pool: float) -> Iterator[Life]:
    with living(settings_of(data, pool={"extent_bytes": 1 << 20, "free_bytes_min": 0, "wait_seconds_max": 20.0, **pool})) as life:
        yield life


@pytest.fixture
def series() -> list[Object]:
    return [make_object(number=n, pixel_bytes=PIXEL_BYTES) for n in range(1, IMAGES + 1)]


def tier_of(life: Life) -> FarTier:
    return cast(FarTier, life.home.tier)


def first_frame(life: Life, sent: Object) -> bytes:
    (stored,) = life.retrieval.instances(sent.study_instance_uid, sent.series_instance_uid, sent.sop_instance_uid)
    with life.retrieval.open(stored, 1) as opened:
        return b"".join(opened.frame(1))


def store(data: Path, objects: list[Object]) -> None:
    """Into a pack, with nothing of it near."""
    with open_life(data) as life:
        life.send(*objects)
        life.packer.pack_now()
    shutil.rmtree(data / "pool")


@pytest.mark.usefixtures("far")
def test_what_was_just_stored_is_not_fetched_back(data: Path, series: list[Object]) -> None:
    with open_life(data) as life:
        life.send(*series)
        life.packer.pack_now()
        tier_of(life).reads.clear()
        life.assert_served(series)
        life.retrieval.series_metadata(series[0].study_instance_uid, series[0].series_instance_uid)
        assert tier_of(life).reads == []
        assert life.home.pool.counters.adopted_bytes >= sum(len(one.data_set) for one in series)
    with open_life(data) as life:  # nor after a restart
        life.assert_served(series)
        assert tier_of(life).reads == []


@pytest.mark.usefixtures("far")
def test_a_cold_first_frame_is_one_ranged_read_and_the_series_comes_behind_it(data: Path, series: list[Object]) -> None:
    store(data, series)
    with open_life(data) as life:
        tier = tier_of(life)
        frame = first_frame(life, series[3])
        assert len(frame) == PIXEL_BYTES and frame == series[3].data_set[-PIXEL_BYTES:]
        offset, length = tier.reads[0]
        (stored,) = life.retrieval.instances("1.2.1", "1.2.1.1", series[3].sop_instance_uid)
        assert length <= -(-stored.length // (256 << 10)) * (256 << 10) + (256 << 10)  # the blocks that it lies in
        wait_until(lambda: life.home.pool.counters.ahead_bytes >= IMAGES * PIXEL_BYTES)
        tier.reads.clear()
        life.assert_served(series)
        assert tier.reads == []


@pytest.mark.usefixtures("far")
def test_one_frame_of_a_large_object_comes_without_the_others(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = b"".join(n.to_bytes(4, "little") * 75_000 for n in range(40))
    large = make_object(pixels=pixels, NumberOfFrames="40", Rows=500, Columns=600, SamplesPerPixel=1)
    store(data, [large])
    with open_life(data, ahead_bytes_max=0) as life:
        tier = tier_of(life)
        (stored,) = life.retrieval.instances("1.2.1", "1.2.1.1", large.sop_instance_uid)
        with life.retrieval.open(stored, 30) as opened:
            frame = b"".join(opened.frame(30))
        assert frame == pixels[29 * 300_000 : 30 * 300_000]
        assert sum(length for _, length in tier.reads) <= 7 * (256 << 10)  # what is looked at first, and three blocks at most


@pytest.mark.usefixtures("far")
def test_a_whole_data_set_is_one_piece_however_many_extents_it_lies_in(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = make_object(pixel_bytes=9_000_000)
    store(data, [large])
    with open_life(data) as life:
        (stored,) = life.retrieval.instances("1.2.1", "1.2.1.1", large.sop_instance_uid)
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.data_set()) == large.data_set
            assert b"".join(opened.chunks(0, stored.length))[stored.data_set_offset :] == large.data_set
            assert all(len(piece) <= 1 << 20 for piece in opened.chunks(0, stored.length))


@pytest.mark.usefixtures("far")
def test_a_cold_read_while_the_tier_is_away_is_refused_and_a_warm_one_is_served(data: Path, series: list[Object]) -> None:
    store(data, series)
    with open_life(data, ahead_bytes_max=0) as life:
        first_frame(life, series[0])
        tier_of(life).error = Unavailable("HDFS is away")
        assert first_frame(life, series[0]) == series[0].data_set[-PIXEL_BYTES:]
    shutil.rmtree(data / "pool")
    with open_life(data) as life:
        tier_of(life).error = Unavailable("HDFS is away")
        with pytest.raises(Unavailable, match="HDFS is away"):
            first_frame(life, series[0])
        tier_of(life).error = None
        assert first_frame(life, series[0]) == series[0].data_set[-PIXEL_BYTES:]


@pytest.mark.usefixtures("far")
def test_everything_of_a_missing_pack_is_damage(data: Path, series: list[Object]) -> None:
    store(data, series[:2])
    shutil.rmtree(data / "far")
    with open_life(data) as life:
        with pytest.raises(Damaged, match="is in the index and cannot be read"):
            first_frame(life, series[0])
        with pytest.raises(Damaged):
            life.retrieval.series_metadata("1.2.1", "1.2.1.1")
