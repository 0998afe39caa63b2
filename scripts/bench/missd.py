"""MISS-D's measurements on a real HDFS: the small-files problem and the latency problem, with packs and without, with the pool and without.

Sets A, B, C, D hold 100 MB, 250 MB, 500 MB, 1 GB of CT images, uncompressed and RLE. They are written to and read from a local directory,
HDFS with one file each (HdfsCLI over WebHDFS), one large file of HDFS by raw ranges, and this node: with packs in a local directory, and
with packs in HDFS without pool, with an empty pool (cold) and with a filled one (warm). Image by image the readers share out the set,
each a run of it; a whole volume is one series, and readers beyond the number of series read one that another reads too. The NameNode
says how many files and blocks it holds; what small files cost its heap gives a model of 10^9 images. A cluster of its own, three
DataNodes, is started and wiped unless --cluster names one, which is left as it was.
"""

import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from scripts.bench.common import CT, DATA_SETS, Case, Report, Sent, make_series, needs, parser_of, publish, run
from scripts.bench.conditions import Conditions
from scripts.bench.missd_chart import draw
from scripts.bench.missd_namenode import FILES_MIN, NameNode, Slope, measure_slope, model
from scripts.bench.missd_places import Folder, HdfsFiles, HdfsRanges, Packed, Place, Reader
from tests.hdfs import Hdfs
from tests.kit import ROOT

SETS = {"A": 100_000_000, "B": 250_000_000, "C": 500_000_000, "D": 1_000_000_000}
IMAGE_BYTES = 530_000
SERIES_IMAGES = 100
SYNTAXES = {"uncompressed": "application/octet-stream", "RLE": "image/dicom-rle"}
FOLDER, EACH, RANGES = "local directory", "HDFS, one file each", "HDFS, raw ranges"
PACKED_FOLDER, OFF, COLD, WARM = "node, local packs", "node, HDFS, no pool", "node, HDFS, cold pool", "node, HDFS, warm pool"
PLACES = (FOLDER, EACH, RANGES, PACKED_FOLDER, OFF, COLD, WARM)
FIFTH = 4
WARM_UP_IMAGES = 10
ROOT_FOLDER = "/missd"

Job = TypeVar("Job")
Done = TypeVar("Done")


class Setting(NamedTuple):
    """One set in one transfer syntax."""

    name: str
    syntax: str
    folder: Path
    series: list[list[Sent]]

    @property
    def images(self) -> list[Sent]:
        return list(chain.from_iterable(self.series))

    @property
    def megabytes(self) -> float:
        return sum(image.path.stat().st_size for image in self.images) / 1e6

    def __str__(self) -> str:
        return f"{self.name} {self.syntax}"


def make_set(work: Path, name: str, syntax: str, count: int) -> Setting:
    """So many images, in series of a hundred."""
    folder, series = work / "images", []
    for number, first in enumerate(range(0, count, SERIES_IMAGES)):
        images = min(SERIES_IMAGES, count - first)
        series.append(make_series(folder / str(number), CT, images, seed=number, rle=syntax == "RLE"))
    return Setting(name, syntax, folder, series)


# --- reading


def read_by_all(place: Place, shares: Sequence[Sequence[Job]], read: Callable[[Reader, Job], Done]) -> tuple[float, list[list[Done]]]:
    """Seconds until every reader, a thread each, has read its share; what `read` gives for each of it."""

    def one(share: Sequence[Job]) -> list[Done]:
        reader = place.reader()
        try:
            return [read(reader, job) for job in share]
        finally:
            reader.close()

    with ThreadPoolExecutor(len(shares)) as pool:
        started = time.perf_counter()
        done = list(pool.map(one, shares))
        return time.perf_counter() - started, done


def timed_image(reader: Reader, image: Sent) -> float:
    """Seconds of one image."""
    started = time.perf_counter()
    reader.image(image)
    return time.perf_counter() - started


# --- one set


class Bench:
    """All cases, in the order in which they were first measured."""

    def __init__(self, hdfs: Hdfs, work: Path, readers: list[int]) -> None:
        self._hdfs, self._work, self._readers = hdfs, work, readers
        self._namenode = NameNode(hdfs)
        self.cases: dict[str, Case] = {}
        self.objects: list[list[str]] = []

    def measure(self, chosen: Setting, url: str, folder: str) -> None:
        """Write and read the set everywhere.

        Parameters
        ----------
        url, folder : str
            A new folder of HDFS for it, with and without the cluster.
        """
        warm_up = make_series(self._work / "warm-up", CT, WARM_UP_IMAGES, seed=9999, rle=chosen.syntax == "RLE")
        each = HdfsFiles(self._hdfs, f"{folder}/each")
        each.write(warm_up)
        read_by_all(each, [warm_up], timed_image)
        before = self._namenode.objects()
        files = Folder(self._work / "files")
        for name, place in ((FOLDER, files), (EACH, each), (RANGES, HdfsRanges(self._hdfs, f"{folder}/all"))):
            started = time.perf_counter()
            place.write(chosen.images)
            self._add_write(chosen, name, *[time.perf_counter() - started] * 2)
            if name == EACH:
                objects_each = self._namenode.objects().more_than(before).objects
            self._read_all(chosen, name, place)
        local = Packed(self._work / "local" / "data", "", SYNTAXES[chosen.syntax])
        packed = Packed(self._work / "node" / "data", f"{url}/packed", SYNTAXES[chosen.syntax])
        try:
            self._write_packed(chosen, PACKED_FOLDER, local)
            self._read_all(chosen, PACKED_FOLDER, local)
            local.stop()
            objects_packed = self._write_packed(chosen, COLD, packed)
            self._read_with_pool(chosen, packed)
            packed.start(pool=False)
            self._read_all(chosen, OFF, packed)
        finally:
            local.node.kill()
            packed.node.kill()
        ratio = f"{objects_each / max(1, objects_packed):,.0f}"
        self.objects.append([str(chosen), f"{len(chosen.images):,}", f"{objects_each:,}", f"{objects_packed:,}", ratio])

    def _write_packed(self, chosen: Setting, name: str, packed: Packed) -> int:
        """Store and pack; how many objects more the NameNode holds then."""
        options = ["-xr"] if chosen.syntax == "RLE" else []
        packed.start()
        packed.accept(self._work / "warm-up", options)
        packed.pack()
        before = self._namenode.objects()
        accepted = packed.accept(chosen.folder, options)
        started = time.perf_counter()
        packed.pack()
        self._add_write(chosen, name, accepted, accepted + time.perf_counter() - started)
        packed.check(series[0] for series in chosen.series)
        return self._namenode.objects().more_than(before).objects

    def _read_with_pool(self, chosen: Setting, packed: Packed) -> None:
        """Everything twice: with a pool that is empty when it begins, and as that left it."""
        for read in (self._read_images, self._read_volumes):
            for readers in self._readers:
                packed.start()
                read(chosen, COLD, packed, readers)
                read(chosen, WARM, packed, readers)

    def _read_all(self, chosen: Setting, name: str, place: Place) -> None:
        for read in (self._read_images, self._read_volumes):
            for readers in self._readers:
                read(chosen, name, place, readers)

    def _read_images(self, chosen: Setting, name: str, place: Place, readers: int) -> None:
        images = chosen.images
        shares = [images[len(images) * n // readers : len(images) * (n + 1) // readers] for n in range(readers)]
        seconds, each = read_by_all(place, shares, timed_image)
        self._add(f"{chosen}: images, {counted(readers)}", "images/s", name, len(images) / seconds)
        if readers == 1:
            took = iter(chain.from_iterable(each))
            of_series = [[next(took) for _ in series] for series in chosen.series]
            self._add(f"{chosen}: first image", "ms", name, 1000 * median(series[0] for series in of_series))
            later = [one for series in of_series for one in series[FIFTH:]]
            if later:
                self._add(f"{chosen}: image, from the fifth on", "ms", name, 1000 * median(later))

    def _read_volumes(self, chosen: Setting, name: str, place: Place, readers: int) -> None:
        volumes = [chosen.series[n % len(chosen.series)] for n in range(max(readers, len(chosen.series)))]
        seconds, each = read_by_all(place, [volumes[n::readers] for n in range(readers)], lambda reader, volume: reader.volume(volume))
        self._add(f"{chosen}: volumes, {counted(readers)}", "MB/s", name, sum(map(sum, each)) / 1e6 / seconds)

    def _add_write(self, chosen: Setting, name: str, safe_seconds: float, rest_seconds: float) -> None:
        self._add(f"{chosen}: write, until safe", "MB/s", name, chosen.megabytes / safe_seconds)
        self._add(f"{chosen}: write, until at rest", "MB/s", name, chosen.megabytes / rest_seconds)

    def _add(self, case: str, unit: str, place: str, rate: float) -> None:
        self.cases.setdefault(case, Case(case, unit)).add(place, rate)
        print(f"{case}, {place}: {rate:,.1f} {unit}", file=sys.stderr, flush=True)


def counted(readers: int) -> str:
    return "1 reader" if readers == 1 else f"{readers} readers"


# --- the cluster


@contextmanager
def cluster(folder: Path | None, work: Path) -> Iterator[Hdfs]:
    """A real HDFS: the one of that folder, left up or down as it was, or one of our own that is wiped at the end."""
    needs("java", "default-jre-headless")
    needs("jcmd", "default-jdk-headless")
    if not list(ROOT.glob(".cache/hdfs/lib-*")):
        needs("mvn", "maven")
    hdfs = Hdfs(folder.absolute() if folder else work / "hdfs")
    status = [str(ROOT / "scripts" / "hdfs"), "--run", str(hdfs.run), "status"]
    was_up = folder is not None and subprocess.run(status, capture_output=True).returncode == 0
    try:
        yield hdfs.up()
    finally:
        if folder is None:
            hdfs.command("down", "--wipe")
        elif not was_up:
            hdfs.command("down")


@contextmanager
def new_folder(hdfs: Hdfs) -> Iterator[str]:
    """A folder of HDFS, removed with all that is in it."""
    folder = f"{ROOT_FOLDER}-{uuid.uuid4().hex[:8]}"
    try:
        yield folder
    finally:
        hdfs.ask("DELETE", folder, op="DELETE", recursive="true")


# --- the report


def table_of(cases: Sequence[Case]) -> tuple[list[str], list[list[str]]]:
    """A line for each case, a column for each place."""

    def cell(case: Case, place: str) -> str:
        if place not in case.rates:
            return ""
        rate = case.median(place)
        return f"{rate:,.0f}" if rate >= 100 else f"{rate:,.1f}" if rate >= 1 else f"{rate:.2f}"

    return ["", "unit", *PLACES], [[case.name, case.unit, *(cell(case, place) for place in PLACES)] for case in cases]


def markdown_table(header: list[str], lines: list[list[str]]) -> str:
    rows = [header, ["---", *["--:"] * (len(header) - 1)], *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def notes_of(bench: Bench, slope: Slope) -> list[str]:
    """The NameNode's side."""
    counted_objects = markdown_table(["objects of the NameNode (files and blocks)", "images", EACH, "packed", "ratio"], bench.objects)
    heap = slope.held.heap_bytes
    return [
        counted_objects,
        f"{slope.files:,} files of one small block each: {slope.held.objects:,} objects, {heap:,} bytes of heap after garbage collection; "
        f"{slope.heap_bytes_per_object:,.0f} bytes an object, {heap / slope.files:,.0f} bytes an image.",
        markdown_table(["modelled from that", "objects", "heap"], list(model(slope, IMAGE_BYTES).lines()))
        if slope.files >= FILES_MIN
        else f"That is too few for a model: {FILES_MIN} at least.",
    ]


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--sets", default="A,B,C,D", help="which of them, `A,C` (default: all)")
    parser.add_argument("--syntaxes", default=",".join(SYNTAXES), help="which of them (default: %(default)s)")
    parser.add_argument("--count", type=int, metavar="N", help="images of a set, whatever its size")
    parser.add_argument("--readers", default="1,4,16", help="how many read at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often everything is done (default 1)")
    parser.add_argument("--files", type=int, default=5000, help="small files for the NameNode's heap (default 5000)")
    parser.add_argument(
        "--cluster", type=Path, metavar="DIR", help="folder of a cluster (scripts/hdfs --run DIR; the usual one: .cache/hdfs/run)"
    )
    options = parser.parse_args(arguments)
    sets, syntaxes = options.sets.split(","), options.syntaxes.split(",")
    readers = [int(number) for number in options.readers.split(",")]
    if not set(sets) <= set(SETS) or not set(syntaxes) <= set(SYNTAXES):
        parser.error(f"--sets has some of {', '.join(SETS)}; --syntaxes some of {', '.join(SYNTAXES)}")
    counts = {name: options.count or SETS[name] // IMAGE_BYTES for name in sets}
    shape = ", ".join(f"set {name} {count} images" for name, count in counts.items())
    needs("storescu", "dcmtk")
    conditions = Conditions(
        "missd", f"{DATA_SETS[CT]}; {shape}, series of {SERIES_IMAGES}; {options.rounds} rounds; replication 3", options.patience
    )
    with tempfile.TemporaryDirectory(prefix="bench-missd-", dir=options.work) as kept, ExitStack() as stack:
        work = Path(kept)
        hdfs = stack.enter_context(cluster(options.cluster, work))
        bench = Bench(hdfs, work / "set", readers)
        for name in sets:
            for syntax in syntaxes:
                chosen = make_set(work / "set", name, syntax, counts[name])
                for _ in range(options.rounds):
                    with new_folder(hdfs) as folder:
                        bench.measure(chosen, hdfs.url(folder), folder)
                    for left in ("warm-up", "files", "local", "node"):
                        shutil.rmtree(work / "set" / left)
                shutil.rmtree(work / "set")
        with new_folder(hdfs) as folder:
            slope = measure_slope(hdfs, folder, options.files)
    cases = list(bench.cases.values())
    header, lines = table_of(cases)
    figures = {
        "cases": {case.name: {"unit": case.unit, "rates": case.rates} for case in cases},
        "objects": bench.objects,
        "heap": {"files": slope.files, "objects": slope.held.objects, "heap_bytes": slope.held.heap_bytes},
        "model": model(slope, IMAGE_BYTES)._asdict(),
    }
    publish(Report("missd", header, lines, figures, conditions.told(), notes_of(bench, slope)), options)
    if options.markdown:
        first = f"{sets[0]} {syntaxes[0]}"
        panels = {
            f"{what} (a second, higher is better)": [case for case in cases if case.name.startswith(f"{first}: {what}, ")]
            for what in ("images", "volumes")
        }
        title = f"Set {sets[0]}, {syntaxes[0]}: {counts[sets[0]]} CT images, read by 1 and more readers"
        draw(options.markdown.parent / "images" / "missd.svg", title, panels, PLACES)


if __name__ == "__main__":
    run(main)
