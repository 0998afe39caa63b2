"""Real processes are killed under load, a few times each; often, by `python -m tests.crash.kills`."""

import random
from collections.abc import Callable

import pytest

from tests.crash.kills import SETTINGS, kill_each
from tests.kit import Node


@pytest.mark.slow
@pytest.mark.parametrize("what", [("dimse-0", "packer-0", "web-0"), ("supervisor", "node")])
def test_killed_under_load(start_node: Callable[..., Node], what: tuple[str, ...]) -> None:
    kill_each(start_node(settings=SETTINGS), what, 2, random.Random(1))
