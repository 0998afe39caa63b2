"""A process over a new data folder."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.flow.objects import Life, living, settings_of


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def life(data: Path) -> Iterator[Life]:
    with living(settings_of(data)) as one:
        yield one
