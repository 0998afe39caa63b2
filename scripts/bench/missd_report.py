"""What runs of missd found, kept together as JSON and told as one report."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from scripts.bench.common import Case, Report, markdown_table
from scripts.bench.missd_chart import draw
from scripts.bench.missd_namenode import Held
from scripts.bench.missd_sets import COLD, EACH, LOCAL, PLACES, RANGES, SETS, SYNTAXES
from scripts.bench.missd_small_files import SmallFiles

SMALL_FILES = "small files"
AGAINST = (
    ("images, 1 reader", EACH),
    ("image, from the fifth on", EACH),
    ("image, from the fifth on", LOCAL),
    ("first image", RANGES),
    ("volumes, 1 reader", RANGES),
)
"""What a cold pool is compared with in which case."""


@dataclass
class SetFigures:
    """One set in one syntax.

    Attributes
    ----------
    few_images : int
        As many of them were written one file each, and read without a pool.
    objects : int
        Of the NameNode for all packs.
    """

    images: int
    megabytes: float
    few_images: int
    objects: int
    cases: list[Case]
    conditions: dict[str, str]

    def times_as_fast(self) -> Iterable[str]:
        """Reading with a cold pool against what it is compared with; empty where that was not measured."""
        cases = {case.name: case for case in self.cases}
        for name, other in AGAINST:
            if name in cases:
                cold, theirs = cases[name].median(COLD), cases[name].median(other)
                yield f"{theirs / cold if cases[name].unit == 'ms' else cold / theirs:.2f}"
            else:
                yield ""


@dataclass
class Figures:
    """All that was found; what is measured again takes the place of what was."""

    sets: dict[str, SetFigures] = field(default_factory=dict)
    small_files: SmallFiles | None = None
    small_files_conditions: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Figures":
        """Those of earlier runs; none where there is no such file."""
        if not path.exists():
            return cls()
        kept: dict[str, Any] = json.loads(path.read_text())["figures"]
        sets = {name: SetFigures(**row | {"cases": [Case(**case) for case in row["cases"]]}) for name, row in kept["sets"].items()}
        small = kept["small_files"]
        if small:
            small = SmallFiles(**small | {name: Held(*small[name]) for name in ("files_each", "files_packed")})
        return cls(sets, small, kept["small_files_conditions"])

    def in_order(self) -> dict[str, SetFigures]:
        names = [f"{name} {syntax}" for name in SETS for syntax in SYNTAXES]
        return {name: self.sets[name] for name in names if name in self.sets}

    def report(self) -> Report:
        conditions = {name: found.conditions for name, found in self.in_order().items()}
        if self.small_files:
            conditions[SMALL_FILES] = self.small_files_conditions
        lines = [line for name, found in self.in_order().items() for line in _lines(name, found.cases)]
        return Report("missd", ["", "unit", *PLACES], lines, asdict(self), joined(conditions), list(self._notes()))

    def _notes(self) -> Iterable[str]:
        if self.sets:
            yield markdown_table(
                ["set", "images", "MB", "images one file each, and without pool", "objects of the NameNode, packed"],
                [
                    [name, f"{found.images:,}", f"{found.megabytes:,.0f}", f"{found.few_images:,}", f"{found.objects:,}"]
                    for name, found in self.in_order().items()
                ],
            )
            yield markdown_table(
                ["a cold pool, times as fast as", *(f"{other}: {name}" for name, other in AGAINST)],
                [[name, *found.times_as_fast()] for name, found in self.in_order().items()],
            )
        if self.small_files:
            header = ["images", "objects, one file each", "objects, packed", "ratio", "heap, one file each", "heap, packed"]
            yield markdown_table(header, self.small_files.lines())
        if self.small_files and self.small_files.has_heap:
            yield (
                f"The heap of {self.small_files.files:,} files: {self.small_files.heap_bytes_per_object:,.0f} bytes an object. "
                f"With nothing written it moved by {self.small_files.unsteady_bytes:,} bytes."
            )

    def draw(self, path: Path) -> None:
        """Reading the largest set, uncompressed where it was measured so."""
        sets = self.in_order()
        if not sets:
            return
        first = next(iter(SYNTAXES))
        name = max(sets, key=lambda name: (name.endswith(first), sets[name].images))
        panels = {
            f"{what} (logarithmic; higher is better)": [case for case in sets[name].cases if case.name.startswith(f"{what}, ")]
            for what in ("images", "volumes")
        }
        draw(path, f"Set {name}: {sets[name].images:,} CT images, read by 1 and more readers", panels, PLACES)


def _lines(name: str, cases: Iterable[Case]) -> Iterable[list[str]]:
    """A line for each case, a column for each place."""

    def cell(case: Case, place: str) -> str:
        if place not in case.rates:
            return ""
        rate = case.median(place)
        return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:.2f}"

    for case in cases:
        yield [f"{name}: {case.name}", case.unit, *(cell(case, place) for place in PLACES)]


def joined(conditions: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """Conditions of several parts as one: what differs is told for each."""
    told: dict[str, str] = {}
    for name in dict.fromkeys(name for part in conditions.values() for name in part):
        parts: dict[str, list[str]] = {}
        for part, values in conditions.items():
            parts.setdefault(values[name], []).append(part)
        told[name] = next(iter(parts)) if len(parts) == 1 else "; ".join(f"{', '.join(names)}: {value}" for value, names in parts.items())
    return told
