"""What the benchmarks share: objects to send, the machine, and one report as text, JSON or a section of docs/benchmarks.md."""

import argparse
import json
import signal
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.pixels.encoders.base import RLELosslessEncoder
from pydicom.uid import RLELossless, generate_uid
from pydicom.valuerep import VR

from tests.kit import ROOT, find_program

PAGE = ROOT / "docs" / "benchmarks.md"
NODE = "this node"

CT, MR = "CT", "MR"
_SOURCES = {CT: ("CT_small.dcm", 512), MR: ("MR_small.dcm", 100)}
DATA_SETS = {
    CT: "CT of 512 x 512 x 16 bit (525 KB), from pydicom's CT_small.dcm",
    MR: "MR of 100 x 100 x 16 bit (21 KB), from pydicom's MR_small.dcm",
}
RLE_PICTURES = 10
_PIXELS = {
    "rows": "Rows",
    "columns": "Columns",
    "samples_per_pixel": "SamplesPerPixel",
    "bits_allocated": "BitsAllocated",
    "bits_stored": "BitsStored",
    "pixel_representation": "PixelRepresentation",
    "photometric_interpretation": "PhotometricInterpretation",
}


class Missing(Exception):
    """Something that the benchmark needs is not here, or did not do as it should."""


def needs(program: str, package: str) -> str:
    """Path of a program.

    Raises
    ------
    Missing
        It is not installed.
    """
    found = find_program(program)
    if found is None:
        raise Missing(f"{program} is not installed (Debian: {package})")
    return found


@dataclass(frozen=True)
class Sent:
    """One object of a benchmark."""

    path: Path
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str


def make_series(folder: Path, kind: str, count: int, seed: int, *, rle: bool = False) -> list[Sent]:
    """A series of its own study in a new folder; another seed gives other objects, of the same length unless they are compressed.

    Parameters
    ----------
    kind : str
        CT or MR.
    rle : bool
        Compress by RLE Lossless (PS3.5 8.2.2); the pictures then repeat after the first few, since pydicom takes its time for each.
    """
    name, pixels = _SOURCES[kind]
    folder.mkdir(parents=True)
    noise = np.random.default_rng(seed)
    rows, columns = np.mgrid[:pixels, :pixels]
    body = (np.hypot(columns - pixels / 2, rows - pixels / 2) < pixels * 0.4) * 1000
    data_set = pydicom.dcmread(str(get_testdata_file(name)))
    data_set.Rows = data_set.Columns = pixels
    if "DataSetTrailingPadding" in data_set:
        del data_set.DataSetTrailingPadding
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID = (
        generate_uid(entropy_srcs=[kind, str(seed), level]) for level in ("study", "series")
    )
    data_set.PatientID = f"BENCH{seed:06d}"
    if rle:
        data_set.file_meta.TransferSyntaxUID = RLELossless
        data_set["PixelData"].VR, data_set["PixelData"].is_undefined_length = VR.OB, True
    made: list[Sent] = []
    frames: list[bytes] = []
    for number in range(1, count + 1):
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[kind, str(seed), str(number)])
        data_set.InstanceNumber = number
        if not rle or number <= RLE_PICTURES:
            frames.append((body + noise.integers(0, 60, body.shape)).astype("<i2").tobytes())
            if rle:
                frames[-1] = _rle_of(frames[-1], data_set)
        data_set["PixelData"].value = encapsulate([frames[(number - 1) % RLE_PICTURES]]) if rle else frames.pop()
        path = folder / f"{number:06d}.dcm"
        data_set.save_as(path, enforce_file_format=True)
        made.append(Sent(path, data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.SOPInstanceUID))
    return made


def _rle_of(frame: bytes, data_set: pydicom.Dataset) -> bytes:
    """A native frame, compressed."""
    pixels = {name: data_set[keyword].value for name, keyword in _PIXELS.items()}
    return RLELosslessEncoder.encode(frame, number_of_frames=1, **pixels)


@dataclass
class Case:
    """What was measured under the same conditions, turn about: rates by peer, one for each round.

    Attributes
    ----------
    unit : str
        Of the rates.
    rates : dict of str to list of float
        By name of the peer, in the order of rounds.
    """

    name: str
    unit: str
    rates: dict[str, list[float]] = field(default_factory=dict)

    def add(self, peer: str, rate: float) -> None:
        self.rates.setdefault(peer, []).append(rate)

    def median(self, peer: str) -> float:
        return statistics.median(self.rates[peer])

    def ratio(self, peer: str) -> float:
        """Median over the rounds of our rate by the peer's in the same round: above 1, this node is faster."""
        return statistics.median(ours / theirs for ours, theirs in zip(self.rates[NODE], self.rates[peer], strict=True))


@dataclass
class Report:
    """One table and how it came about.

    Attributes
    ----------
    header, lines : list
        The table as it is printed.
    figures : dict
        The measured numbers behind it, for `--json`.
    conditions : dict of str to str
        When, machine, load, data set, command, commit.
    """

    name: str
    header: list[str]
    lines: list[list[str]]
    figures: Mapping[str, object]
    conditions: dict[str, str]
    notes: list[str] = field(default_factory=list)

    def text(self) -> str:
        widths = [max(len(line[n]) for line in (self.header, *self.lines)) for n in range(len(self.header))]
        lines = [
            "  ".join(
                f"{cell:<{width}}" if n == 0 else f"{cell:>{width}}" for n, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
            for line in (self.header, *self.lines)
        ]
        return "\n".join([*lines, "", *self.notes, *(f"{name}: {value}" for name, value in self.conditions.items())])

    def markdown(self) -> str:
        conditions = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in self.conditions.items())]
        return "\n".join([markdown_table(self.header, self.lines), "", *(f"{note}\n" for note in self.notes), *conditions])


def markdown_table(header: list[str], lines: Iterable[list[str]]) -> str:
    """The first column to the left, numbers to the right."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---", *["--:"] * (len(header) - 1)], *lines))


def in_turn(peers: Iterable[str], round_number: int) -> list[str]:
    """The peers in an order that lets another one be first in each round."""
    names = list(peers)
    first = round_number % len(names)
    return names[first:] + names[:first]


def table_of(cases: Iterable[Case]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: medians of the rates, and behind each peer the ratio to it."""
    cases = list(cases)
    peers = list(dict.fromkeys(peer for case in cases for peer in case.rates if peer != NODE))
    header = ["median rate", NODE, *(cell for peer in peers for cell in (peer, "ratio"))]
    lines = []
    for case in cases:
        line = [case.name, f"{case.median(NODE):,.0f} {case.unit}"]
        for peer in peers:
            line += [f"{case.median(peer):,.0f} {case.unit}", f"{case.ratio(peer):.2f}"] if peer in case.rates else ["", ""]
        lines.append(line)
    return header, lines


def figures_of(cases: Iterable[Case]) -> dict[str, object]:
    """Rates and ratios by case."""
    return {
        case.name: {"unit": case.unit, "rates": case.rates, "ratios": {peer: case.ratio(peer) for peer in case.rates if peer != NODE}}
        for case in cases
    }


def parser_of(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, metavar="DIR", help="folder for data while it runs (default: the system's temporary one)")
    parser.add_argument(
        "--patience", type=float, default=0.0, metavar="SECONDS", help="wait so long at most for a quiet machine (default 0)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the figures there too")
    parser.add_argument(
        "--markdown", type=Path, nargs="?", const=PAGE, metavar="FILE", help=f"renew its section of a page ({PAGE.relative_to(ROOT)})"
    )
    return parser


def publish(report: Report, options: argparse.Namespace) -> None:
    """Print the report and write it where the options want it."""
    print(report.text())
    if options.json:
        keep(report, options.json)
    if options.markdown:
        options.markdown.write_text(with_section(options.markdown.read_text(), report.name, report.markdown()))


def keep(report: Report, path: Path) -> None:
    """All of it as JSON."""
    path.write_text(json.dumps(asdict(report), indent=2) + "\n")


def with_section(page: str, name: str, content: str) -> str:
    """The page with what stands between its marks of that name replaced.

    Raises
    ------
    Missing
        It has no such marks.
    """
    begin, end = f"<!-- scripts/bench/{name} -->", f"<!-- end of scripts/bench/{name} -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise Missing(f"the page has no marks {begin} and {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def run(main: Callable[[Sequence[str]], None]) -> None:
    """Run a benchmark; exit code 1 where it cannot be run. What it started is stopped when it is terminated, too."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        main(sys.argv[1:])
    except Missing as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")
