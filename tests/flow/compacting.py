"""What tests of compaction have in common."""

from pathlib import Path
from typing import Any

from archive.config import Settings
from archive.flow.compaction import CompactionReport, Compactor
from archive.flow.deletion import Deleter
from archive.flow.query import Query, Search
from archive.pack.pack_reader import PackTail
from archive.tier.tails import read_pack_tail
from tests.flow.objects import NAME, Life, Object, settings_of


def allowed(data: Path, **sections: dict[str, Any]) -> Settings:
    return settings_of(data, deletion={"allowed": True}, **sections)


def compact(life: Life, grace_seconds: float | None = 0.0, *, every_deletion: bool = False) -> CompactionReport:
    return Compactor(life.home, life.packer).compact(grace_seconds=grace_seconds, every_deletion=every_deletion)


def delete(life: Life, *uids: str) -> None:
    Deleter(life.home).delete(uids, "test")


def pack_each(life: Life, *objects: Object) -> list[Object]:
    """A pack for each."""
    for one in objects:
        life.send(one)
        life.packer.pack_now()
    return list(objects)


def tails(life: Life) -> list[PackTail]:
    return [read_pack_tail(life.home.tier, entry.name) for entry in life.home.tier.list_packs(NAME)]


def uids(tail: PackTail) -> list[list[str]]:
    return [[d.sop_instance_uid for _, d in series.instances] for series in tail.series]


def all_rows(life: Life) -> list[list[dict[str, Any]]]:
    return [Search(life.home).search(Query(level, {}, "all", 1000, 0)).rows for level in ("study", "series", "instance")]


def revisions(life: Life, objects: list[Object]) -> list[Any]:
    return [[(i.revision, i.digest, i.received_us) for i in life.home.index.revisions(one.sop_instance_uid)] for one in objects]
