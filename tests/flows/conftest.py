"""Nodes whose packs rest in HDFS."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.flows.far import IMPATIENT, FarNode, numbers
from tests.hdfs import Hdfs
from tests.kit import Node


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
def far(start_far: Callable[..., FarNode]) -> FarNode:
    """A running node, impatient."""
    return start_far()
