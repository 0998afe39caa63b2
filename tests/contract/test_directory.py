"""The directory tier keeps the contract; and its order of steps, seen through the disk."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from archive.errors import Damaged, Exhausted, NotFound, Unavailable
from archive.pack.naming import PackName
from archive.tier.directory import READ_BYTES, DirectoryTier
from archive.tier.opening import open_tier
from archive.tier.protocol import Tier
from tests.contract.tier_contract import NODE, TierContract, put
from tests.pack.build import RecordingDisk, without_repeats

PART = f"{NODE}-000000000001.zip"


class TestDirectory(TierContract):
    @pytest.fixture
    def tier(self, tmp_path: Path) -> Tier:
        return DirectoryTier(tmp_path / "packs")

    @pytest.fixture
    def left_behind(self, tmp_path: Path) -> Callable[[], list[str]]:
        root = tmp_path / "packs"
        return lambda: [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]

    @pytest.fixture
    def add_file(self, tmp_path: Path) -> Callable[[str], None]:
        def add(name: str) -> None:
            path = tmp_path / "packs" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")

        return add

    def put_by_another(self, tier: Tier, sequence: int) -> PackName:
        assert isinstance(tier, DirectoryTier)
        name = PackName(NODE, sequence, "f" * 64)
        path = tier.local_path(name)
        assert path is not None
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another node's pack")
        return name


def test_reading_back_gives_way_between_two_pieces(tmp_path: Path) -> None:
    tier, calls = DirectoryTier(tmp_path / "packs"), 0

    def between() -> None:
        nonlocal calls
        calls += 1

    content = bytes(READ_BYTES + 1)
    tier.put(NODE, 1, len(content), [content], lambda digest: PackName(NODE, 1, digest), between)
    assert calls == 2


def test_a_pack_is_synced_and_read_back_before_it_gets_its_name(tmp_path: Path) -> None:
    disk = RecordingDisk()
    tier = DirectoryTier(tmp_path / "packs", disk)
    name = put(tier)
    file = Path(str(name)).name
    calls = without_repeats(disk.calls)
    assert calls == [
        f"sync_folder {tmp_path.name}",
        "sync_folder packs",
        f"unlink {PART}",
        f"create {PART}",
        f"write {PART}",
        f"sync {PART}",
        f"drop_cached {PART}",
        f"read {PART}",
        "sync_folder packs",
        f"sync_folder {NODE}",
        f"rename {PART} to {file}",
        "sync_folder 000000000",
    ]


@pytest.mark.parametrize("step", ["create", "write", "sync", "drop_cached", "read", "rename"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_whatever_fails_nothing_is_left_behind(tmp_path: Path, step: str, error: int) -> None:
    disk = RecordingDisk(fail=f"{step} {PART}", error=error)
    tier = DirectoryTier(tmp_path / "packs", disk)
    with pytest.raises(Exhausted if error == errno.ENOSPC else OSError):
        put(tier)
    assert disk.fail == ""
    assert [path for path in (tmp_path / "packs").rglob("*") if path.is_file()] == []
    assert put(tier).sequence == 1


@pytest.mark.parametrize("at", [0, 100_000, -1])
def test_what_rests_otherwise_than_it_was_written_is_refused(tmp_path: Path, at: int) -> None:
    """A disk that turns a bit over on the way."""

    class Flipping(RecordingDisk):
        def read(self, fd: int, length: int, offset: int) -> bytes:
            data = bytearray(super().read(fd, length, offset))
            data[at] ^= 1
            return bytes(data)

    tier = DirectoryTier(tmp_path / "packs", Flipping())
    with pytest.raises(Damaged, match="not at rest what was written"):
        put(tier)
    assert [path for path in (tmp_path / "packs").rglob("*") if path.is_file()] == []


def test_a_pack_that_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    tier = DirectoryTier(tmp_path / "packs")
    name = put(tier)
    path = tier.local_path(name)
    assert path is not None
    path.unlink()
    path.symlink_to(path.name)
    with pytest.raises(Unavailable, match="Too many levels"):
        tier.length(name)


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    tier = DirectoryTier(tmp_path / "packs")
    with pytest.raises(Unavailable, match="cannot be read and written"):
        tier.check()
    assert (tier.nodes(), list(tier.list_packs(NODE)), list(tier.strangers()), tier.delete_in_flight(NODE)) == ([], [], [], [])
    with pytest.raises(NotFound):
        tier.length(PackName(NODE, 1, "0" * 64))


def test_urls(tmp_path: Path) -> None:
    assert open_tier("", tmp_path / "embedded").url == f"file://{tmp_path}/embedded"
    assert open_tier(f"file://{tmp_path}/with%20space", tmp_path).local_path(PackName("n", 1, "0" * 64)) == (
        tmp_path / "with space" / str(PackName("n", 1, "0" * 64))
    )


def test_a_folder_that_cannot_be_listed_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tier = DirectoryTier(tmp_path / "file")
    for look in (tier.nodes, lambda: list(tier.list_packs("node")), lambda: tier.delete_in_flight("node")):
        with pytest.raises(Unavailable, match="Not a directory"):
            look()
