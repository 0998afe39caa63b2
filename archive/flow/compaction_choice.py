"""Which packs are worth writing again, and which of them together."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from archive.flow.home import Home
from archive.index.packed import PackedIndex, PackInfo
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX

SERIES_AT_ONCE = 1000
"""Looked at in one snapshot of the index."""
TOGETHER_PACKS_MAX = 2
"""Largest group that shared series make, in full packs: two in both of which a series lies. Each pack may share another series with its
neighbour, so without a bound all packs of a node may be one group, whose tails are held in memory.
"""


@dataclass(slots=True)
class Candidate:
    """One of this node's packs.

    Attributes
    ----------
    instances, length : int
        That are found in it, and their bytes.
    because : set of str
        'small'; 'deleted' bytes in it; 'split': series in it lie in other packs too; 'left': part of it was written again already.
    """

    info: PackInfo
    instances: int
    length: int
    superseded: bool
    because: set[str] = field(default_factory=set)


def choose(home: Home, *, every_deletion: bool) -> Iterator[list[PackInfo]]:
    """Groups of packs, by number; each becomes one pack, or a few where it is too large for one.

    Parameters
    ----------
    every_deletion : bool
        Whether one deleted object is enough.
    """
    limits = home.settings.compaction
    target = home.settings.packer.pack_bytes_target
    candidates = _candidates(home)
    for one in candidates.values():
        deleted = one.info.instances > one.instances
        share = (one.info.held - one.length) / one.info.held if one.info.held else 0.0
        if one.superseded:
            if one.instances:
                one.because.add("left")
            continue
        if deleted and (every_deletion or share >= limits.rewrite_ratio):
            one.because.add("deleted")
        if one.info.length < limits.small_ratio * target:
            one.because.add("small")
    together = _split(home, candidates)
    yield from _groups(candidates, together, target)


def _candidates(home: Home) -> dict[int, Candidate]:
    packed = home.index.packed
    with packed.environment.reading() as t:
        mine = [info for info in packed.packs(t) if info.name.node == home.identity.name]
        mine.sort(key=lambda i: i.name.sequence)
        return {i.pack_id: Candidate(i, *packed.live(t, i.pack_id), packed.is_superseded(t, i.pack_id)) for i in mine}


def _split(home: Home, candidates: dict[int, Candidate]) -> list[set[int]]:
    """Sets of packs that share a series which would fit into one; marks those packs of which such series are a good part."""
    found: list[tuple[set[int], dict[int, int]]] = []
    target = home.settings.packer.pack_bytes_target
    for lengths in _series_over_packs(home.index.packed):
        if sum(lengths.values()) <= target and all(pack_id in candidates for pack_id in lengths):
            found.append((set(lengths), lengths))
    shared: dict[int, int] = {}
    for _, lengths in found:
        for pack_id, length in lengths.items():
            shared[pack_id] = shared.get(pack_id, 0) + length
    for pack_id, length in shared.items():
        one = candidates[pack_id]
        if one.because or length >= home.settings.compaction.rewrite_ratio * one.length:
            one.because.add("split")
    return [packs for packs, _ in found if all(candidates[pack_id].because for pack_id in packs)]


def _series_over_packs(packed: PackedIndex) -> Iterator[dict[int, int]]:
    """For each series that lies in several packs, and has no more instances than one may have: bytes by pack."""
    start = b""
    while True:
        out = []
        with packed.environment.reading() as t:
            keys = packed.series_keys(t, start, SERIES_AT_ONCE)
            for key in keys:
                record = packed.series(t, key)
                if record is not None and len({e.pack_id for e in record.extents}) > 1:
                    lengths: dict[int, int] = {}
                    instances = 0
                    for extent in record.extents:
                        found = [i.length for _, i in packed.instances(t, extent)]
                        lengths[extent.pack_id] = lengths.get(extent.pack_id, 0) + sum(found)
                        instances += len(found)
                    if instances <= INSTANCES_PER_PACK_MAX:
                        out.append(lengths)
        yield from out
        if len(keys) < SERIES_AT_ONCE:
            return
        start = keys[-1].to_bytes() + b"\0"


def _groups(candidates: dict[int, Candidate], together: list[set[int]], target: int) -> Iterator[list[PackInfo]]:
    group: list[Candidate] = []
    for component in _components({i: one for i, one in candidates.items() if one.because}, together, target):
        more = [candidates[pack_id] for pack_id in component]
        too_long = sum(one.length for one in group + more) > target
        if group and (too_long or sum(one.info.instances for one in group + more) > INSTANCES_PER_PACK_MAX):
            yield from _worth(group)
            group = []
        group += more
    yield from _worth(group)


def _worth(group: list[Candidate]) -> Iterator[list[PackInfo]]:
    """One small pack alone would become the same again."""
    if len(group) > 1 or any(one.because & {"deleted", "left"} for one in group):
        yield sorted((one.info for one in group), key=lambda info: info.name.sequence)


def _components(wanted: dict[int, Candidate], together: list[set[int]], target: int) -> list[list[int]]:
    """Packs that are to be written at once, since a series lies in them; in order of their first.

    A series in packs that are too much together stays in fewer packs than before, and waits for the next run.
    """
    leader = {pack_id: pack_id for pack_id in wanted}
    sizes = {pack_id: (one.length, one.info.instances) for pack_id, one in wanted.items()}

    def find(pack_id: int) -> int:
        while leader[pack_id] != pack_id:
            pack_id = leader[pack_id]
        return pack_id

    for packs in together:
        joined, *others = sorted(packs)
        for pack_id in others:
            one, other = sorted((find(joined), find(pack_id)))
            if one == other:
                continue
            length, instances = (a + b for a, b in zip(sizes[one], sizes[other], strict=True))
            if length > TOGETHER_PACKS_MAX * target or instances > TOGETHER_PACKS_MAX * INSTANCES_PER_PACK_MAX:
                joined = pack_id
                continue
            leader[other], sizes[one] = one, (length, instances)
    out: dict[int, list[int]] = {}
    for pack_id in wanted:
        out.setdefault(find(pack_id), []).append(pack_id)
    return list(out.values())
