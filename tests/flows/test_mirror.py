"""A whole node whose journal is on two disks: the second goes, everybody is told, nothing is lost, and a start with another one goes on."""

import json
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archive.flow.home import ROOM_SECONDS
from tests.dimse.peer import Peer, c_store
from tests.flow.mirrors import contents
from tests.flow.objects import Object, make_object
from tests.kit import Node

OBJECTS = [make_object(1, 1, number) for number in range(1, 6)]


def store(node: Node, *objects: Object) -> list[int]:
    with Peer(node.dimse_port) as peer:
        peer.socket.settimeout(60)
        peer.associate()
        statuses = [int(peer.send(c_store(one.data_set, one.sop_instance_uid)).status()) for one in objects]
        peer.release()
    return statuses


def get(node: Node, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"{node.http_url}{path}", timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error as answer:
            return answer.code, json.load(answer)


def found(node: Node) -> list[str]:
    rows = get(node, "/dicomweb/studies/1.2.1/instances")[1]
    return sorted(row["00080018"]["Value"][0] for row in rows)


def test_the_second_disk_goes(start_node: Callable[..., Node], tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    mirror.mkdir()
    settings = {
        "DICOM_ARCHIVE_JOURNAL_MIRROR": str(mirror),
        "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600",
        "DICOM_ARCHIVE_DIMSE_WORKERS": "1",
        "DICOM_ARCHIVE_WEB_WORKERS": "1",
        "DICOM_ARCHIVE_JOURNAL_SEGMENT_BYTES": str(1 << 20),
    }
    node = start_node(settings=settings)
    uids = [one.sop_instance_uid for one in OBJECTS]
    assert store(node, *OBJECTS[:3]) == [0, 0, 0]
    assert get(node, "/ready")[0] == 200
    shutil.rmtree(mirror)
    time.sleep(2 * ROOM_SECONDS)  # What is open goes on for so long.
    assert store(node, OBJECTS[3]) == [0xA700]
    status, ready = get(node, "/ready")
    assert status == 503 and "mirror" in ready["checks"]["journal"]["detail"]
    assert found(node) == uids[:3]  # Reading goes on.
    node.kill()
    mirror.mkdir()
    node.start()
    assert store(node, *OBJECTS) == [0] * 5
    assert found(node) == uids
    assert node.stop() == 0
    assert contents(node.data) == contents(mirror)
    assert node.cli("verify").stdout == "nothing is damaged\n"
