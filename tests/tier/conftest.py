"""A folder of the test run's HDFS, reached through fault proxies."""

import hashlib
import itertools
import os
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from archive.config import WebhdfsSection
from archive.disk import Bytes
from archive.pack.naming import PackName
from archive.tier.webhdfs import WebHdfsTier
from tests.hdfs import Hdfs
from tests.tier.fault_proxy import Fault, FaultProxy, standing

NODE = "node-a"
DATA = os.urandom(3_000_001)
QUICK: dict[str, Any] = {"answer_seconds": 2, "commit_seconds": 60, "read_patience_seconds": 4, "write_patience_seconds": 20}
numbers = itertools.count(1)


@dataclass
class Cluster:
    """One folder of a real HDFS.

    Attributes
    ----------
    name_node : FaultProxy
        Before the NameNode; `data_nodes` before the DataNodes.
    """

    hdfs: Hdfs
    folder: str
    name_node: FaultProxy
    data_nodes: list[FaultProxy] = field(default_factory=list)

    def tier(self, *addresses: str, **settings: Any) -> WebHdfsTier:
        """A tier over the folder, through the proxies, impatient."""
        ports = self.hdfs.ports()
        mapped = [f"127.0.0.1:{ports[f'datanode-{number}']['http']}={proxy.address}" for number, proxy in enumerate(self.data_nodes, 1)]
        section = WebhdfsSection(**(QUICK | {"data_nodes": mapped} | settings))
        return WebHdfsTier(list(addresses) or [self.name_node.address], self.folder, section)

    def direct(self, **settings: Any) -> WebHdfsTier:
        """A tier over the folder, past the proxies."""
        return WebHdfsTier([self.hdfs.address], self.folder, WebhdfsSection(**settings))

    def files(self) -> list[str]:
        return self.hdfs.files(self.folder)

    def at_data_nodes(self, fault: Fault) -> Fault:
        """The same fault at every DataNode, its count in common."""
        for proxy in self.data_nodes:
            proxy.faults.append(fault)
        return fault

    def at_name_node(self, fault: Fault) -> Fault:
        self.name_node.faults.append(fault)
        return fault


@pytest.fixture
def cluster(hdfs: Hdfs) -> Iterator[Cluster]:
    ports = hdfs.ports()
    name_node = FaultProxy(("127.0.0.1", ports["namenode"]["http"]))
    data_nodes = [FaultProxy(("127.0.0.1", ports[name]["http"])) for name in sorted(ports) if name != "namenode"]
    with standing(name_node, *data_nodes):
        yield Cluster(hdfs, f"/faults/{next(numbers)}", name_node, data_nodes)
    print(hdfs.last_words())  # pytest shows it where the test failed


@pytest.fixture(autouse=True)
def no_thread_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + 10
    while left := [t.name for t in threading.enumerate() if t not in before]:
        assert time.monotonic() < until, f"threads are left: {left}"
        time.sleep(0.05)


def name_of(data: bytes, sequence: int = 1) -> PackName:
    return PackName(NODE, sequence, hashlib.sha256(data).hexdigest())


def put(tier: WebHdfsTier, data: bytes = DATA, sequence: int = 1, chunks: Iterable[Bytes] | None = None) -> PackName:
    """Bytes as a pack, in chunks of 100,000."""
    view = memoryview(data)
    given = (view[at : at + 100_000] for at in range(0, len(data), 100_000)) if chunks is None else chunks
    return tier.put(NODE, sequence, len(data), given, lambda _: name_of(data, sequence))


def nowhere() -> Path:
    return Path("/nowhere")
