"""docs/settings.md and config/dicom-archive.toml say what the table of settings says."""

import re
import tomllib
from pathlib import Path

import pytest

from archive.config import RemoteAe, Row, load_settings, settings_table
from scripts.settings import differing_pages, pages
from tests.kit import ROOT

NEW = Row("log", "colour", True, "", "Colours on a terminal.")


def test_pages_equal_the_table() -> None:
    assert differing_pages(settings_table()) == [], "run scripts/settings and commit what it writes"


def test_an_undocumented_setting_is_noticed() -> None:
    assert differing_pages([*settings_table(), NEW]) == ["docs/settings.md", "config/dicom-archive.toml"]


def test_a_setting_that_is_gone_is_noticed() -> None:
    assert differing_pages(list(settings_table())[:-2]) == ["docs/settings.md", "config/dicom-archive.toml"]


def test_a_setting_without_help_is_refused() -> None:
    with pytest.raises(ValueError, match="log.colour has no help"):
        pages([NEW._replace(help="")])


def test_every_setting_of_the_model_is_in_the_table() -> None:
    remote = {("peers.TITLE", key) for key in RemoteAe().model_dump()}
    named = {(row.section, row.key) for row in settings_table()}
    model = load_settings(environment={}).model_dump()
    assert {(section, key) for section, keys in model.items() for key in keys} | remote == named


def test_the_file_loads_as_it_is_and_with_every_line_uncommented(tmp_path: Path) -> None:
    text = (ROOT / "config/dicom-archive.toml").read_text()
    assert load_settings(ROOT / "config/dicom-archive.toml", environment={}) == load_settings(environment={})
    uncommented = re.sub(r"(?m)^#([a-z_]+ = |\[)", r"\1", text).replace("the host's name", load_settings(environment={}).node.name)
    assert len(tomllib.loads(uncommented)["node"]) > 1
    file = tmp_path / "all.toml"
    file.write_text(uncommented)
    one_peer = {"peers": {"TITLE": RemoteAe()}}
    assert load_settings(file, environment={}) == load_settings(environment={}).model_copy(update=one_peer)
