"""`verify` beside a working node. What it finds is in tests/damage/test_damages.py."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from archive.errors import Unavailable
from archive.flow.check import Finding, _Check, verify
from archive.tier.directory import DirectoryTier
from tests.flow.objects import Life, living, make_object, settings_of


def test_a_new_archive_has_nothing_to_find(data: Path) -> None:
    assert verify(settings_of(data)) == []


def test_what_moves_is_not_called_damage(data: Path) -> None:
    """Objects come, segments are sealed, packed, released and recycled all the while."""
    with living(settings_of(data, packer={"pack_bytes_target": 1 << 20})) as life:
        stop = threading.Event()
        sent = [0]

        def send() -> None:
            while not stop.is_set():
                life.send(make_object(1 + sent[0] % 5, 1, sent[0], pixel_bytes=70_000 if sent[0] % 7 == 0 else 40_000))
                sent[0] += 1

        def pack() -> None:
            while not stop.is_set():
                life.packer.pack_now()

        threads = [threading.Thread(target=run) for run in (send, pack)]
        for thread in threads:
            thread.start()
        try:
            looks = []
            while sent[0] < 150 and all(thread.is_alive() for thread in threads):
                looks.append(list(_Check(life.home, lambda _: None).run()))
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert [finding for found in looks for finding in found if finding.severity == "damage"] == []
        assert sent[0] >= 150 and len(looks) > 3
        assert list(_Check(life.home, lambda _: None).run()) == []


def test_it_says_what_it_is_at(data: Path) -> None:
    said: list[str] = []
    with living(settings_of(data)) as life:
        life.send(make_object(1, 1, 1))
        life.packer.pack_now()
    verify(settings_of(data), said.append)
    assert len(said) == 1 and "000000000001-" in said[0]


def test_a_tier_that_does_not_answer_is_a_finding(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> Iterator[None]:
        raise Unavailable("nobody there")

    life.send(make_object(1, 1, 1))
    life.packer.pack_now()
    for name in ("nodes", "length"):
        monkeypatch.setattr(DirectoryTier, name, away)
    found = list(_Check(life.home, lambda _: None).run())
    assert [(finding.severity, finding.item.split()[0], finding.detail) for finding in found] == [
        ("damage", "pack", "nobody there"),
        ("damage", "tier", "nobody there"),
    ]
    assert isinstance(found[0], Finding)
