"""What a row of a search holds besides its own level (DICOM PS3.18 10.6.3.3.1 to 10.6.3.3.3)."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom.data import get_charset_files

from archive.config import load_settings
from archive.dicom.part10 import read_file_meta
from archive.flow.home import Home
from archive.flow.ingest import Ingest
from archive.flow.packing import Packer
from archive.flow.query import Level, Query, Search

STUDY, SERIES = "0020000D", "0020000E"
STUDY_DATE, PATIENT_NAME, MODALITY, CHARACTER_SET = "00080020", "00100010", "00080060", "00080005"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """One object in ISO_IR 100, accepted and not packed."""
    data = Path(str(get_charset_files("chrGerm.dcm")[0])).read_bytes()
    meta = read_file_meta(data)
    with Home(load_settings(overrides={"node": {"data": tmp_path}}, environment={}), "test") as home:
        reception = Ingest(home).begin(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            source="test",
        )
        reception.write(data[meta.length :])
        reception.commit()
        yield home


def tags(home: Home, level: Level, *named: str) -> set[str]:
    """Attributes of the only row, where the search names its study or series as a path does."""
    [row] = Search(home).search(Query(level, {}, frozenset(), 10, 0)).rows
    keys: dict[tuple[str, ...], str] = {(tag,): row[tag]["Value"][0] for tag in named}
    [row] = Search(home).search(Query(level, keys, frozenset(), 10, 0)).rows
    return set(row)


def test_a_row_holds_the_levels_above_that_the_search_does_not_name(home: Home) -> None:
    assert {STUDY_DATE, PATIENT_NAME, MODALITY} <= tags(home, "series")
    assert tags(home, "series", STUDY).isdisjoint({STUDY_DATE, PATIENT_NAME})
    assert {STUDY_DATE, PATIENT_NAME, MODALITY} <= tags(home, "instance")
    assert tags(home, "instance", STUDY).isdisjoint({STUDY_DATE, PATIENT_NAME})
    assert MODALITY in tags(home, "instance", STUDY)
    assert MODALITY not in tags(home, "instance", STUDY, SERIES)


def test_rows_are_the_same_before_and_after_packing(home: Home) -> None:
    levels: tuple[Level, ...] = ("study", "series", "instance")
    before = [tags(home, level) for level in levels]
    Packer(home).pack_now()
    assert [tags(home, level) for level in levels] == before
    assert all(CHARACTER_SET not in row for row in before)
