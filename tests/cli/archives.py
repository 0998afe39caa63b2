"""Offline archives for tests of verbs: files to import, and the verbs over one data folder."""

import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom

from tests.kit import Node, make_series, part10_bytes

FEW_WORKERS = {"DICOM_ARCHIVE_DIMSE_WORKERS": "1", "DICOM_ARCHIVE_WEB_WORKERS": "1"}
"""A node that starts sooner."""


@dataclass(frozen=True)
class Study:
    """A study of one series, as files in a folder of its own."""

    folder: Path
    data_sets: list[pydicom.Dataset]

    @property
    def study_instance_uid(self) -> str:
        return str(self.data_sets[0].StudyInstanceUID)


def write_study(folder: Path, count: int = 3, **attributes: object) -> Study:
    """A new study, its instances as files `1.dcm` and so on."""
    study = Study(folder, make_series(count, **attributes))
    folder.mkdir(parents=True)
    for number, data_set in enumerate(study.data_sets, 1):
        (folder / f"{number}.dcm").write_bytes(part10_bytes(data_set))
    return study


def verb(data: Path, name: str, *arguments: object, exit_code: int = 0) -> "subprocess.CompletedProcess[str]":
    """Run a verb over a data folder where no node runs."""
    return Node(data).cli(name, *map(str, arguments), exit_code=exit_code)


def packs(data: Path) -> Iterable[Path]:
    """The packs of the embedded tier."""
    return sorted((data / "packs").rglob("*.zip"))
