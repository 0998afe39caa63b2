"""What `/ready` looks at, and the figures of the node for `/metrics`."""

from collections.abc import Callable
from pathlib import Path

from archive.dicom.json import loads
from archive.errors import ArchiveError, Unavailable
from archive.flow.derived import counters_folder
from archive.flow.home import Home
from archive.web.services import Check, Figure


def checks_of(home: Home) -> list[Check]:
    """Whether the index can be read, the journal and its disk have room, and the tier answers."""
    return [
        _check("index", lambda: _index(home)),
        _check("journal", lambda: _room(home)),
        _check("tier", lambda: _tier(home)),
        _check("packing", lambda: _packing(home)),
    ]


def figures_of(home: Home) -> list[Figure]:
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
    journal_free = home.disk.free_bytes(home.journal.folder)
    figures = [
        Figure("journal_instances", "Instances accepted and not packed yet.", instances, {}),
        Figure("journal_bytes", "Bytes accepted and not packed yet.", waiting, {}),
        Figure("journal_bytes_max", "Bytes at which nothing more is accepted.", home.settings.journal.bytes_max, {}),
        Figure("journal_set_aside_instances", "Instances that cannot be packed and wait for somebody to look.", aside, {}),
        Figure("journal_free_bytes", "Free space on the disk of the journal.", journal_free, {}),
        Figure("packed_bytes", "Length of all packs.", packed, {}),
        Figure("index_bytes", "Size of the index file.", home.index.packed.environment.size_bytes(), {}),
    ]
    figures += [Figure(f"packed_{kind}", f"Number of {kind} in the index of packs.", count, {}) for kind, count in counts.items()]
    return figures + _dimse_figures(counters_folder(home.settings))


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
    instances, waiting = home.waiting()
    return f"{instances} instances, {waiting} bytes wait to be packed"


def _tier(home: Home) -> str:
    home.tier.check()
    return home.tier.url


def _packing(home: Home) -> str:
    with home.index.pending.environment.reading() as t:
        problem = home.index.pending.problem(t)
    if problem:
        raise Unavailable(problem)
    return "goes on"
