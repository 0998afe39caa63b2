"""The WebHDFS tier keeps the contract, against a real HDFS."""

import itertools
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from archive.pack.naming import PackName
from archive.tier.opening import open_tier
from archive.tier.protocol import Tier
from tests.contract.tier_contract import NODE, TierContract
from tests.hdfs import Hdfs

numbers = itertools.count(1)


class TestWebHdfs(TierContract):
    @pytest.fixture
    def folder(self) -> str:
        return f"/contract/{next(numbers)}"

    @pytest.fixture
    def tier(self, hdfs: Hdfs, folder: str) -> Tier:
        return open_tier(hdfs.url(folder), Path("/nowhere"))

    @pytest.fixture
    def left_behind(self, hdfs: Hdfs, folder: str) -> Callable[[], list[str]]:
        return lambda: hdfs.files(folder)

    @pytest.fixture
    def add_file(self, hdfs: Hdfs, folder: str) -> Callable[[str], None]:
        return lambda name: hdfs.write(f"{folder}/{name}", b"x")

    def put_by_another(self, tier: Tier, sequence: int) -> PackName:
        name = PackName(NODE, sequence, "f" * 64)
        parts = urlsplit(tier.url)
        Hdfs(Path(), parts.netloc).write(f"{parts.path}/{name}", b"another node's pack")
        return name
