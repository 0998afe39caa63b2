"""Every row of the crash table in docs/recovery.md has its test."""

import re

from tests.crash import test_rows_of_instances, test_rows_of_packs
from tests.kit import ROOT


def test_every_row_has_a_test() -> None:
    rows = re.findall(r"^\| ([A-Z]\d+) \|", (ROOT / "docs/recovery.md").read_text(), re.MULTILINE)
    names = [*vars(test_rows_of_instances), *vars(test_rows_of_packs)]
    tested = {name.split("_")[1] for name in names if re.match(r"test_[A-Z]\d+_", name)}
    assert tested == set(rows)
    assert len(rows) > 20
