"""Several packs on their way at once: published and committed in the order of their numbers, whatever becomes of one of them."""

import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.disk import Bytes
from archive.errors import Unavailable
from archive.pack.naming import PackName
from archive.tier.directory import DirectoryTier
from tests.flow.objects import Life, Object, living, make_object, settings_of

NUMBER = 4
SECONDS = 20.0


def far(data: Path, at_once: int = 2) -> Any:
    return settings_of(data, packer={"pack_bytes_target": 1 << 20, "packs_at_once_max": at_once})


def large_series(series: int) -> list[Object]:
    """More than fits into a pack with another one."""
    return [make_object(1, series, n, pixel_bytes=400_000) for n in (1, 2)]


@pytest.fixture
def life(data: Path) -> Iterator[Life]:
    with living(far(data)) as one:
        yield one


class Watched:
    """Looks at the packs that go into a tier; `hold` is called with the number of each when its first bytes went."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hold: Callable[[int], None]) -> None:
        self.running = self.most = 0
        self.published: list[int] = []
        lock, put = threading.Lock(), DirectoryTier.put

        def watched(tier: DirectoryTier, node: str, sequence: int, length: int, chunks: Iterable[Bytes], *rest: Any) -> PackName:
            def held() -> Iterator[Bytes]:
                for at, chunk in enumerate(chunks):
                    if at == 1:
                        hold(sequence)
                    yield chunk

            with lock:
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                name = put(tier, node, sequence, length, held(), *rest)
                self.published.append(sequence)
                return name
            finally:
                with lock:
                    self.running -= 1

        monkeypatch.setattr(DirectoryTier, "put", watched)


def test_a_slow_pack_is_published_before_the_next(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [one for series in range(1, NUMBER + 1) for one in large_series(series)]
    life.send(*sent)
    second_began = threading.Event()

    def hold(sequence: int) -> None:
        if sequence == 1:
            assert second_began.wait(SECONDS), "the second pack waits for the first one to end"
        if sequence == 2:
            second_began.set()

    watched = Watched(monkeypatch, hold)
    report = life.packer.pack_now()
    assert (report.packs, report.instances, report.set_aside) == (NUMBER, len(sent), {})
    assert (watched.published, watched.most) == ([1, 2, 3, 4], 2)
    for one in sent:
        assert life.received(one) == one.data_set


def test_a_pack_that_fails_holds_back_the_next(life: Life, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = [one for series in range(1, NUMBER + 1) for one in large_series(series)]
    life.send(*sent)
    second_began = threading.Event()

    def hold(sequence: int) -> None:
        if sequence == 2:
            second_began.set()
        if sequence == 1:
            assert second_began.wait(SECONDS)
            raise Unavailable("the tier failed")

    with monkeypatch.context() as patch:
        watched = Watched(patch, hold)
        with pytest.raises(Unavailable, match="^the tier failed$"):
            life.packer.pack_now()
        assert watched.published == []
    assert [path for path in (data / "packs").rglob("*") if path.is_file()] == []
    assert life.home.waiting()[0] == len(sent)
    life.packer.pack_now()
    names = [entry.name.sequence for entry in life.home.tier.list_packs(life.home.identity.name)]
    assert names == [1, 2, 3, 4]
    assert life.home.waiting()[0] == 0
    for one in sent:
        assert life.received(one) == one.data_set
    assert [t.name for t in threading.enumerate() if t.name.startswith(("pack", "alongside"))] == []


def test_one_at_a_time_where_that_is_wanted(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with living(far(data, at_once=1)) as life:
        life.send(*(one for series in range(1, NUMBER + 1) for one in large_series(series)))
        watched = Watched(monkeypatch, lambda _: None)
        life.packer.pack_now()
        assert (watched.published, watched.most) == ([1, 2, 3, 4], 1)
