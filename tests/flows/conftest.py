"""Nodes whose packs rest in HDFS."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.flows.far import IMPATIENT, FarNode, numbers
from tests.hdfs import Hdfs
from tests.kit import Node
from tests.tier.fault_proxy import FaultProxy


@pytest.fixture
def start_far(hdfs: Hdfs, start_node: Callable[..., Node]) -> Iterator[Callable[..., FarNode]]:
    """Start a node over a folder of its own; what a test does to the cluster is undone at the end."""

    def start(name: str = "data", folder: str = "", **settings: Any) -> FarNode:
        folder = folder or f"/flows/{next(numbers)}"
        changed = {f"DICOM_ARCHIVE_{key.upper()}": str(value) for key, value in settings.items()}
        node = start_node(name, settings=IMPATIENT | {"DICOM_ARCHIVE_NODE_TIER": hdfs.url(folder)} | changed)
        return FarNode(hdfs, folder, node)

    yield start
    hdfs.command("up")


@pytest.fixture
def start_behind(hdfs: Hdfs, start_far: Callable[..., FarNode]) -> Iterator[Callable[..., FarNode]]:
    """Start a node that reaches NameNode and DataNodes only through fault proxies."""
    standing: list[FaultProxy] = []

    def start(**settings: Any) -> FarNode:
        ports = hdfs.ports()
        proxies = {name: FaultProxy(("127.0.0.1", ports[name]["http"])) for name in sorted(ports)}
        standing.extend(proxies.values())
        folder = f"/flows/{next(numbers)}"
        mapped = [f"127.0.0.1:{ports[name]['http']}={proxy.address}" for name, proxy in proxies.items() if name != "namenode"]
        tier = f"webhdfs://{proxies['namenode'].address}{folder}"
        far = start_far(folder=folder, node_tier=tier, webhdfs_data_nodes=",".join(mapped), **settings)
        far.proxies = proxies
        return far

    yield start
    for proxy in standing:
        proxy.close()


@pytest.fixture
def far(start_far: Callable[..., FarNode]) -> FarNode:
    """A running node, impatient."""
    return start_far()
