"""`compact --erase`: a deleted object is in no byte of any file, compressed ones included."""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from archive.config import Settings
from archive.flow.check import verify
from archive.flow.deletion import Deleter
from archive.flow.erasing import erase
from archive.flow.recovery import recover
from archive.tier.directory import DirectoryTier
from tests.flow.compacting import allowed, delete, pack_each
from tests.flow.objects import NAME, Life, living, make_object

MARK = "QXMARKERZ"
SECRET = make_object(1, 1, 1, PatientName=f"{MARK}^ONE", pixels=MARK.encode() * 3500)
LARGE_SECRET = make_object(1, 1, 2, PatientComments=MARK, pixels=MARK.encode() * 20_000)
OTHERS = [make_object(1, 1, 3), make_object(2, 1, 1), make_object(2, 1, 2, pixel_bytes=100_000)]


def inflated(content: bytes) -> Iterator[bytes]:
    """Whatever in it is a zlib or gzip stream."""
    for start, window in ((b"\x1f\x8b\x08", zlib.MAX_WBITS | 16), (b"\x78\x9c", zlib.MAX_WBITS)):
        at = content.find(start)
        while at >= 0:
            with suppress(zlib.error):
                yield zlib.decompressobj(window).decompress(content[at : at + (1 << 20)])
            at = content.find(start, at + 1)


def holding(*folders: Path) -> set[str]:
    """First folder below `folders` of every file that has the mark in it."""
    mark = MARK.encode()
    out = set()
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                content = path.read_bytes()
                if mark in content or any(mark in piece for piece in inflated(content)):
                    out.add(path.relative_to(folder).parts[0])
    return out


def use(life: Life) -> None:
    """So that derived data and pool hold something."""
    life.retrieval.study_metadata("1.2.1")
    for stored in life.retrieval.instances("1.2.1"):
        with life.retrieval.open(stored) as opened:
            for _ in opened.chunks(0, stored.length):
                pass


@pytest.fixture(params=["near", "far"])
def settings(request: pytest.FixtureRequest, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Packs in the data folder; or elsewhere, so that they come near through the pool."""
    if request.param == "near":
        return allowed(data)
    monkeypatch.setattr(DirectoryTier, "local_path", lambda self, name: None)
    return allowed(data, node={"data": data, "name": NAME, "tier": f"file://{tmp_path}/tier"})


def fill(settings: Settings) -> None:
    """The secrets in a pack and in the journal, spare segments and caches, and then they are deleted."""
    with living(settings) as life:
        pack_each(life, SECRET, OTHERS[0])
        use(life)
        life.send(LARGE_SECRET, *OTHERS[1:])
        delete(life, SECRET.sop_instance_uid, LARGE_SECRET.sop_instance_uid)


def assert_erased(settings: Settings, folders: list[Path]) -> None:
    assert holding(*folders) == set()
    assert verify(settings) == []
    with living(settings) as life:
        life.assert_served(OTHERS)
        assert {i.sop_instance_uid for study in ("1.2.1", "1.2.2") for i in life.retrieval.instances(study)} == {
            one.sop_instance_uid for one in OTHERS
        }
        assert [a.outcome for a in life.send(SECRET, LARGE_SECRET)] == ["new", "new"]


def test_no_byte_of_it_is_left(settings: Settings, data: Path, tmp_path: Path) -> None:
    folders = [data, tmp_path / "tier"]
    fill(settings)
    far = bool(settings.node.tier)
    before = holding(*folders)
    assert before >= {"journal", "index", "derived", *((NAME, "pool") if far else ("packs",))}, "this test would prove nothing"
    recover(settings)
    report = erase(settings)
    assert (report.left, report.deleted) == ([], 2)
    assert_erased(settings, folders)


def test_what_was_compacted_and_forgotten_before_is_gone_too(data: Path) -> None:
    settings = allowed(data)
    fill(settings)
    recover(settings)
    assert erase(settings).left == []
    report = erase(settings)
    assert (report.packs_read, report.left) == (0, [])
    assert holding(data) == set()


def test_a_spare_segment_is_not_used_again_before_it_is_removed(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        pack_each(life, SECRET)
        delete(life, SECRET.sop_instance_uid)
        life.packer.pack_now()
    recover(settings)
    with living(settings) as life:
        life.send(OTHERS[2])  # It has a segment of its own, and waits to be packed.
    assert len(list((data / "journal/spare").iterdir())) == 1
    assert erase(settings).left == []
    assert holding(data) == set()


def test_one_small_object_in_a_large_pack_is_enough(data: Path) -> None:
    settings = allowed(data, packer={"pack_bytes_target": 1 << 20})
    with living(settings) as life:
        life.send(SECRET, *(make_object(1, 1, number, pixel_bytes=200_000) for number in range(10, 14)))
        life.packer.pack_now()
        delete(life, SECRET.sop_instance_uid)
    recover(settings)
    assert erase(settings).left == []
    assert holding(data) == set()


def damage(path: Path, needle: bytes) -> None:
    path.chmod(0o640)
    content = bytearray(path.read_bytes())
    content[content.index(needle) + len(needle) // 2] ^= 1
    path.write_bytes(content)


def test_a_segment_that_a_record_set_aside_holds_up_goes_too(data: Path) -> None:
    settings = allowed(data)
    with living(settings) as life:
        life.send(SECRET, OTHERS[0], *OTHERS[1:])
    (segment,) = [path for path in (data / "journal/sealed").iterdir() if OTHERS[0].data_set in path.read_bytes()]
    damage(segment, OTHERS[0].data_set)
    recover(settings)
    with living(settings) as life:
        Deleter(life.home).delete([SECRET.sop_instance_uid], "test")
    recover(settings)
    assert erase(settings).left == []
    assert holding(data) == set()
    recover(settings)
    with living(settings) as life:
        with life.home.index.pending.environment.reading() as t:
            assert [OTHERS[0].sop_instance_uid in reason for reason in life.home.index.pending.aside(t).values()] == [True]
        life.assert_served(OTHERS[1:])
        assert life.send(OTHERS[0])[0].outcome in ("new", "revision")
        life.assert_served(OTHERS)


def in_quarantine(data: Path) -> None:
    (data / "quarantine").mkdir()
    (data / "quarantine/000000000001-1.seg").write_bytes(MARK.encode())


def in_the_tiers_quarantine(data: Path) -> None:
    (data / "packs/.quarantine").mkdir()
    (data / f"packs/.quarantine/{NAME}-000000000009-{'0' * 64}.zip").write_bytes(MARK.encode())


def in_the_quarantine_of_another_node(data: Path) -> None:
    (data / "packs/.quarantine").mkdir()
    (data / f"packs/.quarantine/x-{NAME}-000000000009-{'0' * 64}.zip").write_bytes(MARK.encode())


def in_a_strange_file(data: Path) -> None:
    (data / "packs" / NAME / "copy.zip").write_bytes(MARK.encode())


def in_a_damaged_pack(data: Path) -> None:
    first = sorted((data / "packs").rglob("*.zip"))[0]
    damage(first, OTHERS[0].data_set)


@pytest.mark.parametrize("where", [in_the_quarantine_of_another_node, in_a_strange_file, in_a_damaged_pack])
def test_what_may_still_hold_it_is_named(data: Path, where: Callable[[Path], None]) -> None:
    settings = allowed(data)
    with living(settings) as life:
        life.send(SECRET, OTHERS[0])
        life.packer.pack_now()
        delete(life, SECRET.sop_instance_uid)
    where(data)
    recover(settings)
    left = erase(settings).left
    assert left
    assert holding(data) != set()


@pytest.mark.parametrize("where", [in_quarantine, in_the_tiers_quarantine])
def test_what_repair_put_away_goes_too(data: Path, where: Callable[[Path], None]) -> None:
    settings = allowed(data)
    with living(settings) as life:
        life.send(SECRET, OTHERS[0])
        life.packer.pack_now()
        delete(life, SECRET.sop_instance_uid)
    where(data)
    recover(settings)
    assert erase(settings).left == []
    assert holding(data) == set()


def test_a_pack_of_another_node_is_named(tmp_path: Path) -> None:
    tier = f"file://{tmp_path}/tier"
    one, two = (allowed(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": tier}) for name in ("one", "two"))
    with living(one) as life:
        life.send(SECRET, OTHERS[0])
        life.packer.pack_now()
    recover(two)
    with living(two) as life:
        delete(life, SECRET.sop_instance_uid)
        life.packer.pack_now()
    left = erase(two).left
    assert ["node one: erase there" in text for text in left] == [True]
    recover(one)
    assert erase(one).left == []
    recover(two)
    assert erase(two).left == []
    assert holding(tmp_path) == set()
