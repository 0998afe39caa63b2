"""`compact`: beside the node and alone."""

import json
from collections.abc import Callable
from pathlib import Path

from tests.cli.archives import FEW_WORKERS, packs, write_study
from tests.kit import Node, part10_data_set, retrieve_part10

SETTINGS = FEW_WORKERS | {
    "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600",
    "DICOM_ARCHIVE_PACKER_FOLLOW_SECONDS": "0.5",
    "DICOM_ARCHIVE_COMPACTION_GRACE_SECONDS": "0",
}


def test_beside_the_running_node_and_alone(start_node: Callable[..., Node], tmp_path: Path) -> None:
    node = start_node(settings=SETTINGS)
    studies = [write_study(tmp_path / str(number)) for number in range(4)]

    def served() -> list[bytes]:
        urls = [f"{node.dicomweb_url}/studies/{study.study_instance_uid}" for study in studies]
        return [part10_data_set(file) for url in urls for file in retrieve_part10(url)]

    for study in studies[:3]:
        node.cli("import", str(study.folder))
        node.cli("pack", "--now")
    node.cli("import", str(studies[3].folder))
    before = served()
    assert len(before) == 12
    report = json.loads(node.cli("compact", "--json").stdout)
    assert (report["packs_read"], report["packs_written"], report["packs_waiting"], report["kept"]) == (3, 1, 0, [])
    assert len(list(packs(node.data))) == 1
    assert served() == before
    node.cli("pack", "--now")
    assert node.stop() == 0
    assert node.cli("compact").stdout.startswith("2 packs went on in 1 pack, ")
    assert node.cli("compact").stdout.startswith("0 packs went on in 0 packs")
    assert len(list(packs(node.data))) == 1
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    node.start()
    assert served() == before


def test_erase(start_node: Callable[..., Node], tmp_path: Path) -> None:
    node = start_node(settings=SETTINGS | {"DICOM_ARCHIVE_DELETION_ALLOWED": "true"})
    secret, other = write_study(tmp_path / "secret", PatientName="QXSECRET^NAME"), write_study(tmp_path / "other")
    node.cli("import", str(secret.folder), str(other.folder))
    node.cli("pack", "--now")
    node.cli("delete", "--yes", secret.study_instance_uid)
    assert "wants the node stopped" in node.cli("compact", "--erase", exit_code=1).stderr
    assert node.stop() == 0
    assert any(b"QXSECRET" in path.read_bytes() for path in packs(node.data))
    (node.data / "packs/strange").write_bytes(b"?")
    assert "left file strange of the tier" in node.cli("compact", "--erase", exit_code=1).stdout
    (node.data / "packs/strange").unlink()
    assert node.cli("compact", "--erase").stdout == "3 deleted objects: no byte of them is left\n"
    assert not [path for path in node.data.rglob("*") if path.is_file() and b"QXSECRET" in path.read_bytes()]
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    node.start()
    assert len(retrieve_part10(f"{node.dicomweb_url}/studies/{other.study_instance_uid}")) == 3
