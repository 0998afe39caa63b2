"""docs/operations.md names every limit that can be set, with its default and what happens at it."""

import re
from collections.abc import Iterator

import pytest

from archive.config import Row, settings_table
from scripts.settings import plain_size
from tests.kit import ROOT

IS_LIMIT = re.compile(r".*_(max|min)|.*patience_seconds|artim_seconds|(answer|connect|commit)_seconds")
SETTINGS = {f"{row.section}.{row.key}": row for row in settings_table()}
LIMITS = [name for name, row in SETTINGS.items() if IS_LIMIT.fullmatch(row.key)]


def rows() -> Iterator[tuple[str, str, str]]:
    """What each row of the tables says: the limit, its default, what happens at it."""
    text = (ROOT / "docs/operations.md").read_text()
    section = text[text.index("\n## Limits") : text.index("\n## Watch")]
    for line in section.splitlines():
        if line.startswith("|") and not line.startswith(("|---", "| limit ")):
            limit, default, answer = (cell.strip() for cell in line.strip("|").split("|"))
            yield limit, default, answer


def shown(row: Row) -> str:
    size, number = plain_size(row.default, row.unit), f"{row.default:,}".removesuffix(".0")
    return size or (f"{number} s" if row.unit == "seconds" else number)


def named(limit: str) -> list[str]:
    return re.findall(r"`([a-z]+\.(?:TITLE\.)?[a-z_]+)`", limit)


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_in_a_table(name: str) -> None:
    assert [answer for limit, _, answer in rows() if name in named(limit) and answer]


def test_defaults_are_those_of_the_settings() -> None:
    said = {limit: default for limit, default, _ in rows()}
    assert said == {limit: ", ".join(shown(SETTINGS[name]) for name in named(limit)) for limit in said}


def test_what_counts_as_a_limit() -> None:
    assert {"journal.bytes_max", "pool.free_bytes_min", "webhdfs.read_patience_seconds", "dimse.artim_seconds"} < set(LIMITS)
