"""One of MISS-D's sets: written to and read from every place."""

import shutil
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from statistics import median
from typing import NamedTuple, TypeVar

from scripts.bench.common import CT, Case, Sent, make_series
from scripts.bench.missd_namenode import objects_of
from scripts.bench.missd_places import Folder, HdfsFiles, HdfsPacks, Packed, Place, Reader
from tests.hdfs import Hdfs

SETS = {"A": 100_000_000, "B": 250_000_000, "C": 500_000_000, "D": 1_000_000_000}
IMAGE_BYTES = 530_000
SERIES_IMAGES = 100
SYNTAXES = {"uncompressed": "application/octet-stream", "RLE": "image/dicom-rle"}
FOLDER, EACH, RANGES = "local directory", "HDFS, one file each", "HDFS, packed, no pool"
LOCAL, COLD, WARM = "node, local packs", "node, HDFS, cold pool", "node, HDFS, warm pool"
PLACES = (FOLDER, EACH, RANGES, LOCAL, COLD, WARM)
FEW_SERIES = 2
"""So many series, not all, are written to and read from HDFS one file each and read from it without a pool."""
FIFTH = 4
WARM_UP, WARM_UP_IMAGES = "warm-up", 10

Job = TypeVar("Job")
Done = TypeVar("Done")


class Setting(NamedTuple):
    """One set, or the beginning of it, in one transfer syntax."""

    syntax: str
    folder: Path
    series: list[list[Sent]]

    @property
    def images(self) -> list[Sent]:
        return list(chain.from_iterable(self.series))

    @property
    def megabytes(self) -> float:
        return sum(image.path.stat().st_size for image in self.images) / 1e6

    @property
    def kind(self) -> str:
        """Media type of its frames."""
        return SYNTAXES[self.syntax]

    @property
    def sender_options(self) -> list[str]:
        return ["-xr"] if self.syntax == "RLE" else []

    def few(self) -> "Setting":
        return self._replace(series=self.series[:FEW_SERIES])


def make_set(folder: Path, syntax: str, count: int) -> Setting:
    """So many images, in series of a hundred."""
    series = []
    for number, first in enumerate(range(0, count, SERIES_IMAGES)):
        images = min(SERIES_IMAGES, count - first)
        series.append(make_series(folder / str(number), CT, images, seed=number, rle=syntax == "RLE"))
    return Setting(syntax, folder, series)


def make_warm_up(folder: Path, syntax: str) -> list[Sent]:
    """Images that go everywhere before anything is timed."""
    return make_series(folder, CT, WARM_UP_IMAGES, seed=9999, rle=syntax == "RLE")


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
    """One set, everywhere.

    Parameters
    ----------
    work : Path
        An empty folder, removed by each round.
    readers : list of int
        How many read at once.

    Attributes
    ----------
    cases : dict of str to Case
        In the order in which they were first measured.
    objects : int
        Of the NameNode for all packs of the set.
    """

    def __init__(self, hdfs: Hdfs, work: Path, readers: list[int]) -> None:
        self._hdfs, self._work, self._readers = hdfs, work, readers
        self.cases: dict[str, Case] = {}
        self.objects = 0

    def round(self, chosen: Setting, folder: str) -> None:
        """Write and read it everywhere; `folder` is a new one of HDFS."""
        try:
            warm_up = make_warm_up(self._work / WARM_UP, chosen.syntax)
            self._without_node(chosen, folder, warm_up)
            self._with_node(chosen, folder)
        finally:
            shutil.rmtree(self._work)

    def _without_node(self, chosen: Setting, folder: str, warm_up: list[Sent]) -> None:
        files, each = Folder(self._work / "files"), HdfsFiles(self._hdfs, f"{folder}/each")
        each.write(warm_up)
        read_by_all(each, [warm_up], timed_image)
        for name, place, part in ((FOLDER, files, chosen), (EACH, each, chosen.few())):
            started = time.perf_counter()
            place.write(part.images)
            seconds = time.perf_counter() - started
            self._add_write(part, name, seconds, seconds)
            self._read_all(part, name, place)

    def _with_node(self, chosen: Setting, folder: str) -> None:
        local = Packed(self._work / "local" / "data", "", chosen.kind)
        packed = Packed(self._work / "node" / "data", self._hdfs.url(f"{folder}/packed"), chosen.kind)
        try:
            self._write_packed(chosen, LOCAL, local)
            self._read_all(chosen, LOCAL, local)
            local.stop()
            self.objects = self._write_packed(chosen, COLD, packed)
            for read in (self._read_images, self._read_volumes):
                for readers in self._readers:
                    packed.start()
                    read(chosen, COLD, packed, readers)
                    read(chosen, WARM, packed, readers)
            packed.stop()
            packs = HdfsPacks(self._hdfs, f"{folder}/packed")
            packs.check(series[0] for series in chosen.few().series)
            self._read_all(chosen.few(), RANGES, packs)
        finally:
            local.node.kill()
            packed.node.kill()

    def _write_packed(self, chosen: Setting, name: str, packed: Packed) -> int:
        """Store and pack; how many objects more the NameNode holds then."""
        packed.start()
        packed.accept(self._work / WARM_UP, chosen.sender_options)
        packed.pack()
        before = objects_of(self._hdfs)
        accepted = packed.accept(chosen.folder, chosen.sender_options)
        started = time.perf_counter()
        packed.pack()
        self._add_write(chosen, name, accepted, accepted + time.perf_counter() - started)
        packed.check(series[0] for series in chosen.series)
        return objects_of(self._hdfs) - before

    def _read_all(self, chosen: Setting, name: str, place: Place) -> None:
        for read in (self._read_images, self._read_volumes):
            for readers in self._readers:
                read(chosen, name, place, readers)

    def _read_images(self, chosen: Setting, name: str, place: Place, readers: int) -> None:
        images = chosen.images
        shares = [images[len(images) * n // readers : len(images) * (n + 1) // readers] for n in range(readers)]
        seconds, each = read_by_all(place, shares, timed_image)
        self._add(f"images, {counted(readers)}", "images/s", name, len(images) / seconds)
        if readers == 1:
            took = iter(chain.from_iterable(each))
            of_series = [[next(took) for _ in series] for series in chosen.series]
            self._add("first image", "ms", name, 1000 * median(series[0] for series in of_series))
            later = [one for series in of_series for one in series[FIFTH:]]
            if later:
                self._add("image, from the fifth on", "ms", name, 1000 * median(later))

    def _read_volumes(self, chosen: Setting, name: str, place: Place, readers: int) -> None:
        volumes = [chosen.series[n % len(chosen.series)] for n in range(max(readers, len(chosen.series)))]
        seconds, each = read_by_all(place, [volumes[n::readers] for n in range(readers)], lambda reader, volume: reader.volume(volume))
        self._add(f"volumes, {counted(readers)}", "MB/s", name, sum(map(sum, each)) / 1e6 / seconds)

    def _add_write(self, chosen: Setting, name: str, safe_seconds: float, rest_seconds: float) -> None:
        self._add("write, until safe", "MB/s", name, chosen.megabytes / safe_seconds)
        self._add("write, until at rest", "MB/s", name, chosen.megabytes / rest_seconds)

    def _add(self, case: str, unit: str, place: str, rate: float) -> None:
        self.cases.setdefault(case, Case(case, unit)).add(place, rate)
        print(f"{case}, {place}: {rate:,.1f} {unit}", file=sys.stderr, flush=True)


def counted(readers: int) -> str:
    return "1 reader" if readers == 1 else f"{readers} readers"
