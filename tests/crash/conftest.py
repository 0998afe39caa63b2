"""Where hundreds of lives of a node are lived."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where there is such a folder: a cut needs no real disk."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(prefix="cuts-", dir=memory if memory.is_dir() else None))
    yield made
    shutil.rmtree(made)
