"""A running node whose packs rest in the test run's HDFS, and what an operator, a modality and a viewer see of it."""

import itertools
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from archive.pack.naming import PackName
from tests.dimse.peer import Peer, c_store
from tests.flow.objects import Object, make_object
from tests.hdfs import Hdfs
from tests.kit import Node, multipart_parts, part10_data_set
from tests.tier.fault_proxy import Fault, FaultProxy

WAIT_SECONDS = 3.0
PIXEL_BYTES = 120_000
IMPATIENT = {
    "DICOM_ARCHIVE_DIMSE_WORKERS": "1",
    "DICOM_ARCHIVE_WEB_WORKERS": "1",
    "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "0.2",
    "DICOM_ARCHIVE_PACKER_PACK_BYTES_TARGET": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_SEGMENT_BYTES": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_BYTES_MAX": str(64 << 20),
    "DICOM_ARCHIVE_POOL_BYTES_MAX": str(256 << 20),
    "DICOM_ARCHIVE_POOL_EXTENT_BYTES": str(1 << 18),
    "DICOM_ARCHIVE_POOL_FREE_BYTES_MIN": "0",
    "DICOM_ARCHIVE_POOL_WAIT_SECONDS_MAX": str(WAIT_SECONDS),
    "DICOM_ARCHIVE_WEBHDFS_ANSWER_SECONDS": "2",
    "DICOM_ARCHIVE_WEBHDFS_COMMIT_SECONDS": "15",
    "DICOM_ARCHIVE_WEBHDFS_READ_PATIENCE_SECONDS": "1",
    "DICOM_ARCHIVE_WEBHDFS_WRITE_PATIENCE_SECONDS": "2",
}
numbers = itertools.count(1)


@dataclass
class Answer:
    """What a viewer got: status, headers, body; how long it took."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class FarNode:
    """One node over one folder of an HDFS.

    Attributes
    ----------
    proxies : dict of str to FaultProxy
        By the daemon that each stands before, `namenode`, `datanode-1`; empty where the node speaks to the cluster itself.
    sent : list of Object
        Everything that was answered with success.
    """

    hdfs: Hdfs
    folder: str
    node: Node
    proxies: dict[str, FaultProxy] = field(default_factory=dict)
    sent: list[Object] = field(default_factory=list)

    @property
    def node_name(self) -> str:
        return str(json.loads((self.node.data / "node.json").read_text())["name"])

    # --- the modality

    def store(self, objects: Sequence[Object]) -> list[int]:
        """Send over one association; the status of each."""
        statuses = []
        with Peer(self.node.dimse_port) as peer:
            peer.socket.settimeout(30)
            peer.associate()
            for one in objects:
                statuses.append(peer.send(c_store(one.data_set, one.sop_instance_uid)).status())
                if not statuses[-1]:
                    self.sent.append(one)
            peer.release()
        return statuses

    def store_all(self, objects: Sequence[Object]) -> None:
        assert set(self.store(objects)) == {0x0000}, self.node.log()

    # --- the viewer

    def get(self, path: str, accept: str = "*/*", wait_seconds: float = 30.0) -> Answer:
        request = urllib.request.Request(f"{self.node.http_url}{path}", headers={"Accept": accept})
        started = time.monotonic()
        try:
            with urllib.request.urlopen(request, timeout=wait_seconds) as answer:
                body = answer.read()
        except urllib.error.HTTPError as refusal:
            with refusal as answer:
                body = answer.read()
        return Answer(answer.status, dict(answer.headers), body, time.monotonic() - started)

    def frame(self, one: Object) -> Answer:
        return self.get(f"{path_of(one)}/instances/{one.sop_instance_uid}/frames/1", "application/octet-stream; transfer-syntax=*")

    def metadata(self, one: Object) -> Answer:
        return self.get(f"{path_of(one)}/metadata", "application/dicom+json")

    def series(self, one: Object) -> Answer:
        return self.get(path_of(one), 'multipart/related; type="application/dicom"; transfer-syntax=*')

    def assert_served(self, objects: Sequence[Object]) -> None:
        """Whole series, metadata and search: everything of these, byte for byte, nothing twice."""
        by_series: dict[str, list[Object]] = {}
        for one in objects:
            by_series.setdefault(path_of(one), []).append(one)
        for members in by_series.values():
            answer = self.series(members[0])
            assert answer.status == 200, (answer, self.node.log())
            served = [part10_data_set(file) for file in multipart_parts(answer.headers["Content-Type"], answer.body)]
            assert sorted(served) == sorted(one.data_set for one in members)
            metadata = self.metadata(members[0])
            assert metadata.status == 200, (metadata, self.node.log())
            wanted = sorted(one.sop_instance_uid for one in members)
            assert sorted(document["00080018"]["Value"][0] for document in metadata.json()) == wanted
            found = self.get(f"{path_of(members[0])}/instances")
            assert sorted(row["00080018"]["Value"][0] for row in found.json()) == wanted

    def assert_frames(self, objects: Sequence[Object], seconds_max: float = 30.0) -> None:
        for one in objects:
            answer = self.frame(one)
            assert answer.status == 200, (answer, self.node.log())
            assert answer.body == one.data_set[-PIXEL_BYTES:]
            assert answer.seconds < seconds_max

    # --- the operator

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether it is, and what is wrong by check; told soon."""
        answer = self.get("/ready")
        assert answer.seconds < 6, answer
        checks = answer.json()["checks"]
        assert answer.status == (200 if all(check["ok"] for check in checks.values()) else 503)
        assert answer.status == 200 or answer.headers["Retry-After"]
        return answer.status == 200, {name: check["detail"] for name, check in checks.items() if not check["ok"]}

    def figure(self, name: str) -> float:
        text = self.get("/metrics").body.decode()
        found = re.search(rf"^dicom_archive_{name} ([0-9.e+-]+)$", text, re.MULTILINE)
        assert found, text
        return float(found[1])

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.node.cli("status", "--json").stdout)
        return found

    def packs(self) -> list[PackName]:
        """Names of all packs, in order; nothing else may be there."""
        return [PackName.parse(name) for name in self.hdfs.files(self.folder)]

    def pack_rows(self) -> list[dict[str, Any]]:
        """What HDFS says of each pack."""
        return [self.hdfs.ask("GET", f"{self.folder}/{pack}", op="GETFILESTATUS")["FileStatus"] for pack in self.packs()]

    def wait_until_packed(self, wait_seconds: float = 60.0) -> None:
        """Until nothing waits any more: everything is COMMITTED."""
        wait_until(lambda: not self.figure("journal_instances"), wait_seconds, self.node)

    def wait_until_ready(self, wait_seconds: float = 60.0) -> None:
        wait_until(lambda: self.ready()[0], wait_seconds, self.node)

    def assert_whole(self) -> None:
        """Everything that was acknowledged rests once and is served; nothing is left behind."""
        self.wait_until_packed()
        self.wait_until_ready()
        packs = self.packs()
        assert [pack.sequence for pack in packs] == list(range(1, len(packs) + 1)), packs
        self.assert_served(self.sent)
        status = self.status()
        wanted = {"instances": len(self.sent), "packs": len(packs), "set_aside": {}, "packing_problem": "", "tier_problem": ""}
        assert {name: status[name] for name in wanted} == wanted, status
        assert [path.name for path in (self.node.data / "pool" / "filling").glob("*/*") if path.name != "owner"] == []

    # --- what happens to it

    def go_cold(self) -> None:
        """Stop it, empty its pool, start it."""
        assert self.node.stop() == 0
        shutil.rmtree(self.node.data / "pool")
        self.node.start()

    def at_data_nodes(self, fault: Fault) -> Fault:
        """The same fault at every DataNode, its count in common."""
        for name, proxy in self.proxies.items():
            if name != "namenode":
                proxy.faults.append(fault)
        return fault


def path_of(one: Object) -> str:
    return f"/dicomweb/studies/{one.study_instance_uid}/series/{one.series_instance_uid}"


def make_study(study: int, count: int = 6) -> list[Object]:
    return [make_object(study, 1, number, pixel_bytes=PIXEL_BYTES) for number in range(1, count + 1)]


def wait_until(done: Callable[[], object], wait_seconds: float, node: Node, what: Callable[[], object] = lambda: "") -> None:
    """Poll; where it does not come true, fail with `what` and the node's log."""
    until = time.monotonic() + wait_seconds
    while not done():
        assert time.monotonic() < until, (what(), node.log())
        time.sleep(0.2)
