"""`import`: files in, by themselves or beside a running node, and what is said about each."""

import json
import os
import shutil
from pathlib import Path

import pydicom
from pydicom.uid import UID

from tests.cli.archives import packs, verb, write_study
from tests.kit import Node, part10_bytes, part10_data_set, retrieve_part10


def status(data: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(verb(data, "status", "--json").stdout)
    return found


def test_files_and_folders_come_in_and_are_packed(tmp_path: Path) -> None:
    a, b = write_study(tmp_path / "a" / "deep"), write_study(tmp_path / "b", 2)
    data = tmp_path / "data"
    done = verb(data, "import", tmp_path / "a", b.folder / "1.dcm")
    assert done.stdout == "4 new, 0 same, 0 revision, 0 refused, 0 skipped\n"
    found = status(data)
    assert (found["studies"], found["instances"], found["waiting_instances"], found["packs"]) == (2, 4, 0, 1)
    verb(data, "export", a.study_instance_uid, tmp_path / "out")
    for data_set in a.data_sets:
        (file,) = (tmp_path / "out").rglob(f"{data_set.SOPInstanceUID}.dcm")
        assert part10_data_set(file.read_bytes()) == part10_data_set(part10_bytes(data_set))


def test_the_same_again_is_nothing_new_and_another_is_a_revision(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 2)
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    assert verb(data, "import", study.folder).stdout.startswith("0 new, 2 same, 0 revision")
    study.data_sets[0].PatientName = "Another^One"
    (study.folder / "1.dcm").write_bytes(part10_bytes(study.data_sets[0]))
    assert verb(data, "import", study.folder).stdout.startswith("0 new, 1 same, 1 revision")


def test_what_is_not_dicom_is_named_and_skipped(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    (study.folder / "notes.txt").write_text("hello")
    (study.folder / "empty").touch()
    os.mkfifo(study.folder / "pipe")
    directory = pydicom.Dataset()
    directory.file_meta = pydicom.dataset.FileMetaDataset()
    directory.file_meta.MediaStorageSOPClassUID = UID("1.2.840.10008.1.3.10")
    directory.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")
    directory.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1")
    (study.folder / "DICOMDIR").write_bytes(part10_bytes(directory))
    done = verb(tmp_path / "data", "import", study.folder)
    assert done.stdout == "1 new, 0 same, 0 revision, 0 refused, 4 skipped\n"
    for name, reason in (
        ("notes.txt", "not a DICOM Part 10 file"),
        ("empty", "not a DICOM"),
        ("pipe", "not a file"),
        ("DICOMDIR", "a DICOMDIR"),
    ):
        assert f"skipped {study.folder / name}: {reason}" in done.stderr


def test_what_is_refused_is_named_with_the_reason_and_the_rest_comes_in(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 3)
    del study.data_sets[1].StudyInstanceUID
    (study.folder / "2.dcm").write_bytes(part10_bytes(study.data_sets[1]))
    study.data_sets[2].file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4")
    study.data_sets[2].SOPInstanceUID = "1.2.3.5"
    (study.folder / "3.dcm").write_bytes(part10_bytes(study.data_sets[2]).replace(b"1.2.3.5\0", b"1.2.3.6\0", 1))
    done = verb(tmp_path / "data", "import", study.folder, exit_code=1)
    assert done.stdout == "1 new, 0 same, 0 revision, 2 refused, 0 skipped\n"
    assert f"refused {study.folder / '2.dcm'}: the data set has no StudyInstanceUID" in done.stderr
    assert f"refused {study.folder / '3.dcm'}: " in done.stderr
    assert done.stderr.splitlines()[-1] == "dicom-archive: 2 of 3 files were refused"


def test_beside_a_running_node_it_is_one_more_writer(node: Node, tmp_path: Path) -> None:
    study = write_study(tmp_path / "in")
    assert node.cli("import", str(study.folder)).stdout.startswith("3 new")
    for data_set in study.data_sets:
        url = f"{node.dicomweb_url}/studies/{data_set.StudyInstanceUID}/series/{data_set.SeriesInstanceUID}"
        (found,) = retrieve_part10(f"{url}/instances/{data_set.SOPInstanceUID}")
        assert part10_data_set(found) == part10_data_set(part10_bytes(data_set))
    node.cli("pack", "--now")
    assert len(list(packs(node.data))) == 1


def test_objects_larger_than_memory_pieces_come_in_whole(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    data_set = study.data_sets[0]
    data_set.Rows, data_set.Columns, data_set.NumberOfFrames = 1024, 1024, 5
    data_set.PixelData = os.urandom(2 * 5 * 1024 * 1024)
    (study.folder / "1.dcm").write_bytes(part10_bytes(data_set))
    verb(tmp_path / "data", "import", study.folder)
    verb(tmp_path / "data", "export", study.study_instance_uid, tmp_path / "out")
    (file,) = (tmp_path / "out").rglob("*.dcm")
    assert part10_data_set(file.read_bytes()) == part10_data_set(part10_bytes(data_set))


def test_a_full_journal_is_packed_and_the_import_goes_on(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    for number in range(2, 30):
        data_set = pydicom.dcmread(study.folder / "1.dcm")
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = UID(f"1.2.3.{number}")
        data_set.Rows, data_set.Columns, data_set.PixelData = 1024, 2048, bytes(4 << 20)
        (study.folder / f"{number}.dcm").write_bytes(part10_bytes(data_set))
    settings = {"DICOM_ARCHIVE_JOURNAL_BYTES_MAX": str(64 << 20)}
    node = Node(tmp_path / "data", settings=settings)
    assert node.cli("import", str(study.folder)).stdout.startswith("29 new")
    assert len(list(packs(node.data))) > 1
    shutil.rmtree(study.folder)
