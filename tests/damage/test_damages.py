"""Bytes at rest rot, go, or come from elsewhere: `verify` finds exactly that, nothing wrong is served, undone all is well."""

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from archive.errors import Damaged, NotFound
from archive.flow.check import verify
from archive.flow.recovery import rebuild_index, recover
from tests.damage.damages import DAMAGES
from tests.damage.ways import ALL, BIG, OTHER, SMALL, STREAMED, WAITING, Place
from tests.flow.objects import Life, Object, living, settings_of


@pytest.fixture
def place(tmp_path: Path) -> Place:
    data = tmp_path / "data"
    recover(settings_of(data))
    with living(settings_of(data)) as life:
        life.send(BIG, *SMALL)
        life.packer.pack_now()
        life.send(OTHER)
        life.packer.pack_now()
        life.send(*WAITING, STREAMED)
    return Place(data)


def findings(data: Path) -> list[str]:
    return [f"{finding.severity} {finding.item}: {finding.detail}" for finding in verify(settings_of(data))]


def assert_found(data: Path, patterns: list[str]) -> None:
    """Each pattern matches a finding of its own, and no finding is left over."""
    left = findings(data)
    for pattern in patterns:
        (found, *_) = [text for text in left if re.match(pattern, text)] or pytest.fail(f"{pattern} is not among {left}")
        left.remove(found)
    assert left == []


def assert_served(life: Life, refused: list[Object], hidden: bool = False) -> None:
    """What is refused is refused, all else is whole; metadata are right or refused."""
    for one in ALL:
        if one in refused:
            with pytest.raises((Damaged, NotFound)):
                life.received(one)
        else:
            assert life.received(one) == one.data_set
    for one in (BIG, OTHER, WAITING[0], STREAMED):
        try:
            metadata = json.loads(gzip.decompress(life.retrieval.series_metadata(one.study_instance_uid, one.series_instance_uid)))
        except (Damaged, NotFound):
            assert refused or hidden
            continue
        for document in metadata:
            assert document["00100020"]["Value"] == [f"P{document['0020000D']['Value'][0].split('.')[2]}"]


@pytest.mark.parametrize("name", DAMAGES)
def test_damage(place: Place, name: str) -> None:
    damage, settings = DAMAGES[name], settings_of(place.data)
    assert findings(place.data) == []
    before = place.data.with_name("before")
    shutil.copytree(place.data, before)
    damage.do(place)
    assert_found(place.data, damage.findings)
    with living(settings) as life:
        assert_served(life, damage.refused, damage.hidden)
    assert_found(place.data, damage.findings)  # Looking and reading change nothing.
    shutil.rmtree(place.data)
    before.rename(place.data)
    assert findings(place.data) == []
    with living(settings) as life:
        assert_served(life, [])


@pytest.mark.parametrize("name", [name for name in DAMAGES if name.startswith("index: ")])
def test_a_damaged_index_is_made_again(place: Place, name: str) -> None:
    DAMAGES[name].do(place)
    report = rebuild_index(settings_of(place.data))
    assert report.damaged == []
    assert findings(place.data) == []
    with living(settings_of(place.data)) as life:
        assert_served(life, [])


@pytest.mark.parametrize(
    "name", [name for name in DAMAGES if name.startswith(("journal: payload", "journal: header", "journal: descriptor"))]
)
def test_a_start_keeps_what_is_damaged_in_the_journal(place: Place, name: str) -> None:
    """It is the only copy: reported, kept, and served again once it is undone."""
    damage = DAMAGES[name]
    before = {path: path.read_bytes() for path in (place.segment, place.large_segment)}
    damage.do(place)
    for _ in range(2):
        report = recover(settings_of(place.data))
        assert len(report.damaged) == 1
        with living(settings_of(place.data)) as life:
            life.packer.pack_now()
            life.assert_served([one for one in ALL if one not in damage.refused and "descriptor" not in name])
    for path, content in before.items():
        if path.exists():
            path.write_bytes(content)
    recover(settings_of(place.data))
    with living(settings_of(place.data)) as life:
        life.packer.pack_now()
        assert_served(life, [])
    assert findings(place.data) == []


def test_a_pack_that_shrinks_while_it_is_mapped_is_damage_and_no_crash(place: Place) -> None:
    with living(settings_of(place.data)) as life:
        (stored,) = life.retrieval.instances(BIG.study_instance_uid, None, BIG.sop_instance_uid)
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.view(0, 1000))
            with place.pack.open("r+b") as file:
                file.truncate(4096)
            with pytest.raises(Damaged):
                opened.view(stored.length - 1000, 1000)
