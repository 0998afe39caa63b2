"""Pages that list what the code has list all of it: attributes, statuses, metrics, rooms, decisions."""

import re

from archive.dicom import attributes
from archive.dimse import status
from archive.dimse.counters import Counters
from archive.web import metrics
from tests.kit import ROOT

DOCS = ROOT / "docs"


def test_the_conformance_statement_lists_every_attribute_of_searches() -> None:
    page = (DOCS / "conformance-statement.md").read_text()
    groups = (attributes.PATIENT_ATTRIBUTES, attributes.STUDY_ATTRIBUTES, attributes.SERIES_ATTRIBUTES, attributes.INSTANCE_ATTRIBUTES)
    rows = [f"| ({tag[:4]},{tag[4:]}) | {attributes.keyword_of(tag)} | {attributes.vr_of(tag)} |" for group in groups for tag in group]
    assert re.findall(r"^\| \([0-9A-F]{4},[0-9A-F]{4}\) \|.*$", page, re.MULTILINE) == rows


def test_the_conformance_statement_lists_every_status_that_is_sent() -> None:
    page = (DOCS / "conformance-statement.md").read_text()
    sent = {value for name, value in vars(status).items() if name.isupper() and isinstance(value, int)}
    assert {int(found, 16) for found in re.findall(r"^\| 0x([0-9A-F]{4}) \|", page, re.MULTILINE)} == sent


def test_operations_names_every_metric() -> None:
    page = (DOCS / "operations.md").read_text()
    named = set(re.findall(r"dicom_archive_[a-z_]+", page))
    code = "".join((ROOT / "archive" / "web" / f"{module}.py").read_text() for module in ("metrics", "readiness"))
    figures = {metrics.PREFIX + name for name in re.findall(r'Figure\("([a-z_]+)"', code)}
    figures |= {f"{metrics.PREFIX}packed_{kind}" for kind in ("packs", "studies", "series", "instances")}
    http = re.findall(r'(Counter|Gauge|Histogram)MetricFamily\(\s*f"\{PREFIX\}([a-z_]+)"', code)
    families = {metrics.PREFIX + name + ("_total" if kind == "Counter" else "") for kind, name in http}
    assert len(families) == 8
    kinds = {name: name if name.endswith("_open") else f"{name}_total" for name in Counters().snapshot()}
    dimse = {f"{metrics.PREFIX}dimse_{kind}" for kind in kinds.values()}
    assert {name for name in named if not name.endswith("_")} == figures | families | dimse


def test_every_room_and_every_decision_has_its_page_and_is_indexed() -> None:
    rooms = {path.name for path in (ROOT / "archive").iterdir() if (path / "__init__.py").exists()} | {"floor"}
    assert {path.stem for path in (DOCS / "architecture").glob("*.md")} == rooms | {"README"}
    assert set(re.findall(r"\(([a-z]+)\.md\)", (DOCS / "architecture" / "README.md").read_text())) == rooms
    decisions = {path.name for path in (DOCS / "decisions").glob("0*.md")}
    assert set(re.findall(r"\((0[^)]+\.md)\)", (DOCS / "decisions" / "README.md").read_text())) == decisions


def test_every_module_stands_on_the_page_of_its_room() -> None:
    missing = [
        str(path.relative_to(ROOT))
        for path in sorted((ROOT / "archive").glob("*/*.py"))
        if path.name != "__init__.py" and f"`{path.name}`" not in (DOCS / "architecture" / f"{path.parent.name}.md").read_text()
    ]
    assert missing == []
