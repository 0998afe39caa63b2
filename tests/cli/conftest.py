"""Fixtures for tests of verbs beside a running node."""

from collections.abc import Callable

import pytest

from tests.cli.archives import FEW_WORKERS
from tests.kit import Node


@pytest.fixture
def node(start_node: Callable[..., Node]) -> Node:
    """A running node with one worker of each kind."""
    return start_node(settings=FEW_WORKERS)
