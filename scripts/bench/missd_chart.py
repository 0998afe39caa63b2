"""The chart of MISS-D's measurements: readers against images or megabytes a second."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from scripts.bench.common import Case

COLOURS = ("#999999", "#d95f02", "#e7a83e", "#a6cee3", "#7570b3", "#1b9e77")


def draw(path: Path, title: str, panels: Mapping[str, Sequence[Case]], places: Sequence[str]) -> None:
    """Grouped bars on a logarithmic scale, a panel for each kind of reading.

    Parameters
    ----------
    panels : mapping of str to sequence of Case
        Cases by the panel's title; each case is one group of bars.
    """
    # Text stays text, and the same figures give the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "missd", "font.size": 9}):
        figure = Figure(figsize=(10, 4.6), layout="constrained")
        figure.suptitle(title)
        width = 0.84 / len(places)
        for axes, (name, cases) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
            for number, place in enumerate(places):
                heights = [case.median(place) if place in case.rates else float("nan") for case in cases]
                at = [group + (number - (len(places) - 1) / 2) * width for group in range(len(cases))]
                axes.bar(at, heights, width, label=place, color=COLOURS[number])
            axes.set_yscale("log")
            axes.set_title(name)
            axes.set_ylabel(cases[0].unit)
            axes.set_xticks(range(len(cases)), [case.name.rpartition(", ")[2] for case in cases])
            axes.grid(axis="y", alpha=0.3)
            axes.set_axisbelow(True)
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None})
