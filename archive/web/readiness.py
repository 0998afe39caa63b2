"""What `/ready` looks at, and the figures of the node for `/metrics`."""

from collections.abc import Callable
from pathlib import Path

from archive.dicom.json import loads
from archive.errors import ArchiveError, Unavailable
from archive.flow.derived import counters_folder
from archive.flow.home import Home
from archive.flow.mirroring import journal_disk
from archive.tier.probe import TierProbe
from archive.web.services import Check, Figure

TIER_SECONDS_MAX = 3.0
"""A tier that has not answered by then does not work."""


def checks_of(home: Home, probe: TierProbe) -> list[Check]:
    """Whether the index can be read, the journal and its disk have room, the tier answers, and packing goes on."""
    return [
        _check("index", lambda: _index(home)),
        _check("journal", lambda: _room(home)),
        _tier(home, probe),
        _check("packing", lambda: _packing(home)),
    ]


def figures_of(home: Home, probe: TierProbe) -> list[Figure]:
    """Numbers that lie in the index and on the disk.

    Raises
    ------
    ArchiveError
        The index cannot be read.
    """
    instances, waiting = home.waiting()
    with home.index.packed.environment.reading() as t:
        counts = home.index.packed.counts(t)
        packed = home.index.packed.bytes_packed(t)
    with home.index.pending.environment.reading() as t:
        aside = len(home.index.pending.aside(t))
        packs = not home.index.pending.problem(t)
    journal_free = home.disk.free_bytes(home.journal.folder)
    figures = [
        Figure("journal_instances", "Instances accepted and not packed yet.", instances, {}),
        Figure("journal_bytes", "Bytes accepted and not packed yet.", waiting, {}),
        Figure("journal_bytes_max", "Bytes at which nothing more is accepted.", home.settings.journal.bytes_max, {}),
        Figure("journal_set_aside_instances", "Instances that cannot be packed and wait for somebody to look.", aside, {}),
        Figure("journal_free_bytes", "Free space on the disk of the journal.", journal_free, {}),
        Figure("packing_works", "1 while packs are written as they should be.", packs, {}),
        Figure("tier_works", "1 while packs could be read and written.", _tier(home, probe).ok, {}),
        Figure("packed_bytes", "Length of all packs.", packed, {}),
        Figure("index_bytes", "Size of the index file.", home.index.packed.environment.size_bytes(), {}),
    ]
    figures += [Figure(f"packed_{kind}", f"Number of {kind} in the index of packs.", count, {}) for kind, count in counts.items()]
    return figures + _pool_figures(home) + _dimse_figures(counters_folder(home.settings))


def _pool_figures(home: Home) -> list[Figure]:
    """Of all processes of the node, since `DIR/pool` was made; zeros where packs lie on this machine."""
    counted = home.pool.totals()
    return [
        Figure("pool_bytes", "Bytes of packs that lie near.", home.pool.used_bytes, {}),
        Figure("pool_bytes_max", "Bound of the pool.", home.settings.pool.bytes_max, {}),
        Figure("pool_hits_total", "Reads of packs whose bytes were near.", counted.hits, {}),
        Figure("pool_misses_total", "Reads of packs that waited for the tier.", counted.misses, {}),
        Figure("pool_refused_total", "Reads that were told at once that the tier does not answer.", counted.refused, {}),
        Figure("pool_tier_reads_total", "Ranged reads of the tier.", counted.reads, {}),
        Figure("pool_tier_bytes_total", "Bytes read from the tier.", counted.read_bytes, {}),
        Figure("pool_ahead_bytes_total", "Bytes that came ahead of a reader.", counted.ahead_bytes, {}),
        Figure("pool_adopted_bytes_total", "Bytes kept while packs were written.", counted.adopted_bytes, {}),
        Figure("pool_evictions_total", "Extents given up for others.", counted.evictions, {}),
        Figure("pool_evicted_bytes_total", "Bytes given up for others.", counted.evicted_bytes, {}),
        Figure("pool_unkept_bytes_total", "Bytes served without being kept, as the disk had no room.", counted.unkept_bytes, {}),
        Figure("pool_bad_extents_total", "Extents that did not match their CRCs and were fetched again.", counted.bad_extents, {}),
    ]


def _dimse_figures(folder: Path) -> list[Figure]:
    """What the DIMSE workers count, as each of them leaves it in `dimse-<n>.json`."""
    figures = []
    for path in sorted(folder.glob("dimse-*.json")):
        counts = loads(path.read_bytes())
        for name, value in counts.items():
            kind = name if name.endswith("_open") else f"{name}_total"
            figures.append(Figure(f"dimse_{kind}", f"DIMSE: {name.replace('_', ' ')}, by worker.", float(value), {"worker": path.stem}))
    return figures


def _check(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except (ArchiveError, OSError) as error:
        return Check(name, False, str(error))


def _index(home: Home) -> str:
    with home.index.packed.environment.reading() as t:
        counts = home.index.packed.counts(t)
    return f"{counts['instances']} instances in {counts['packs']} packs"


def _room(home: Home) -> str:
    home.check_room()
    journal_disk(home.settings, home.disk)
    instances, waiting = home.waiting()
    return f"{instances} instances, {waiting} bytes wait to be packed"


def _tier(home: Home, probe: TierProbe) -> Check:
    def look() -> str:
        probe.check(TIER_SECONDS_MAX)
        return home.tier.url

    return _check("tier", look)


def _packing(home: Home) -> str:
    with home.index.pending.environment.reading() as t:
        problem = home.index.pending.problem(t)
    if problem:
        raise Unavailable(problem)
    return "goes on"
