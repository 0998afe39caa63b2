"""Every row of the crash table in docs/recovery.md has its test."""

import re

from tests.crash import (
    test_rows_of_compaction,
    test_rows_of_deletions,
    test_rows_of_erasing,
    test_rows_of_instances,
    test_rows_of_left_overs,
    test_rows_of_mirroring,
    test_rows_of_packs,
    test_rows_of_refusals,
)
from tests.flow import test_held_segments
from tests.kit import ROOT


def test_every_row_has_a_test() -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/recovery.md").read_text(), re.MULTILINE)
    of_packs = test_rows_of_packs, test_rows_of_deletions, test_rows_of_compaction, test_rows_of_erasing, test_rows_of_refusals
    modules = test_rows_of_instances, test_rows_of_left_overs, test_rows_of_mirroring, test_held_segments, *of_packs
    names = [name for module in modules for name in vars(module)]
    tested = {row for name in names if name.startswith("test_") for row in re.findall(r"[A-Z]\d+(?=_)", name)}
    assert tested == set(rows)
    assert len(rows) > 20
