"""`export`: a study as a folder or a ZIP file, whole or not at all."""

import zipfile
from pathlib import Path

from tests.cli.archives import packs, verb, write_study
from tests.kit import Node, part10_bytes, part10_data_set


def test_a_study_as_a_folder(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in")
    verb(tmp_path / "data", "import", study.folder)
    out = tmp_path / "out"
    assert verb(tmp_path / "data", "export", study.study_instance_uid, out).stdout == f"3 instances in {out}\n"
    files = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.dcm")}
    wanted = {
        f"{d.StudyInstanceUID}/{d.SeriesInstanceUID}/{d.SOPInstanceUID}.dcm": part10_data_set(part10_bytes(d)) for d in study.data_sets
    }
    assert {name: part10_data_set(content) for name, content in files.items()} == wanted
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in", "out"]


def test_a_study_as_a_zip_file_is_the_same_each_time(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in")
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    for name in ("a.zip", "b.zip"):
        verb(data, "export", "--zip", study.study_instance_uid, tmp_path / name)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as found:
        assert found.testzip() is None
        assert {info.compress_type for info in found.infolist()} == {zipfile.ZIP_STORED}
        contents = {part10_data_set(found.read(name)) for name in found.namelist()}
    assert contents == {part10_data_set(part10_bytes(d)) for d in study.data_sets}


def test_while_the_node_runs_and_before_it_is_packed(node: Node, tmp_path: Path) -> None:
    study = write_study(tmp_path / "in")
    node.cli("import", str(study.folder))
    node.cli("export", study.study_instance_uid, str(tmp_path / "out"))
    assert len(list((tmp_path / "out").rglob("*.dcm"))) == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    there = tmp_path / "there"
    there.mkdir()
    file = tmp_path / "file"
    file.write_text("mine")
    for arguments in ([there], ["--zip", file], ["--zip", there]):
        done = verb(data, "export", study.study_instance_uid, *arguments, exit_code=1)
        assert "exists and is not overwritten" in done.stderr
    assert file.read_text() == "mine" and list(there.iterdir()) == []


def test_a_study_that_is_not_there_and_a_uid_that_is_none(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in", 1)
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    assert "1.2.3" in verb(data, "export", "1.2.3", tmp_path / "out", exit_code=1).stderr
    done = verb(data, "export", "../../etc", tmp_path / "out", exit_code=1)
    assert "STUDY_UID" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_damaged_instance_leaves_no_half_export(tmp_path: Path) -> None:
    study = write_study(tmp_path / "in")
    data = tmp_path / "data"
    verb(data, "import", study.folder)
    (pack,) = packs(data)
    content = bytearray(pack.read_bytes())
    content[content.index(study.data_sets[2].PixelData)] ^= 1
    pack.chmod(0o640)
    pack.write_bytes(content)
    for arguments in ([tmp_path / "out"], ["--zip", tmp_path / "out.zip"]):
        done = verb(data, "export", study.study_instance_uid, *arguments, exit_code=1)
        assert done.stderr.splitlines()[-1].startswith("dicom-archive: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in"]
