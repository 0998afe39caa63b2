"""Fixtures for every room. What needs no set-up or clean-up is a plain function of `tests.kit`."""

import ipaddress
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hdfs import Hdfs
from tests.kit import Node


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Tests speak to this machine alone."""
    connect = socket.socket.connect

    def connect_on_this_machine(self: socket.socket, address: Any) -> None:
        internet = self.family in (socket.AF_INET, socket.AF_INET6)
        if internet and address[0] != "localhost" and not ipaddress.ip_address(address[0]).is_loopback:
            raise AssertionError(f"a test tried to reach {address}: tests stay on this machine")
        connect(self, address)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_on_this_machine)
        yield


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    """Start nodes over data directories inside `tmp_path`; all are killed at the end.

    `start_node()`, `start_node("other", settings={"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "0"}, arguments=["--ae-title", "X"])`.
    """
    started: list[Node] = []

    def start(name: str = "data", **options: Any) -> Node:
        node = Node(data=tmp_path / name, **options)
        started.append(node)
        return node.start()

    yield start
    for node in started:
        node.kill()
        print(f"--- log of the node over {node.data} ---\n{node.log()}")  # pytest shows it where the test failed


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    """A running node over an empty data directory."""
    return start_node()


@pytest.fixture(scope="session")
def hdfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hdfs]:
    """A real HDFS that all tests of this run share; each takes a folder of its own. Whoever stops one of its daemons starts it again."""
    cluster = Hdfs(tmp_path_factory.mktemp("hdfs"))
    try:
        yield cluster.up()
    finally:
        cluster.command("down", "--wipe")
