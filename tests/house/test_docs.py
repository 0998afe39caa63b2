"""Links between pages lead somewhere."""

import re
from pathlib import Path

from tests.house.test_gates import project_files
from tests.kit import ROOT

LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")


def broken_links(page: Path) -> list[str]:
    targets = LINK.findall(page.read_text())
    return [target for target in targets if "://" not in target and not (page.parent / target).exists()]


def test_relative_links_lead_to_files() -> None:
    pages = [path for path in project_files() if path.suffix == ".md"]
    assert ROOT / "README.md" in pages
    broken = {str(page.relative_to(ROOT)): links for page in pages if (links := broken_links(page))}
    assert broken == {}


def test_a_broken_link_is_noticed(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[a](page.md#part) [b](https://example.org/) [c](gone.md)")
    assert broken_links(page) == ["gone.md"]
