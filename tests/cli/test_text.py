"""Numbers for people."""

import pytest

from archive.cli.text import count, duration, size


def test_counts() -> None:
    assert [count(n, "study") for n in (0, 1, 2)] == ["0 studies", "1 study", "2 studies"]
    assert [count(n, "series") for n in (0, 1, 2)] == ["0 series", "1 series", "2 series"]
    assert count(3, "pack") == "3 packs"


@pytest.mark.parametrize(
    ("length", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1.0 KiB"), (1536 << 10, "1.5 MiB"), (5 << 60, "5120.0 PiB")]
)
def test_sizes(length: int, text: str) -> None:
    assert size(length) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 seconds"), (120, "2 minutes"), (7200, "2 hours"), (2e5, "2 days")])
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
