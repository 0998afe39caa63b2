"""What HDFS costs through the node, against raw WebHDFS on the same cluster in the same run; image by image, against local packs.

Packing: `dicom-archive pack --now`, its start included, against `curl -T` of as many bytes with sync_block. Frames and series: WADO-RS with
an empty pool against one OPEN of as many bytes by http.client, redirect included. Image by image: one reader goes through a series whose
packs lie in HDFS (empty pool), and through the same with packs in a local directory, from the fifth image on. A cluster of its own, three
DataNodes, is started and wiped unless --cluster names one. A ratio above 1: this node is faster.
"""

import http.client
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from getpass import getuser
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from scripts.bench.common import (
    CT,
    DATA_SETS,
    NODE,
    Case,
    Missing,
    Report,
    Sent,
    figures_of,
    make_series,
    needs,
    parser_of,
    publish,
    run,
    table_of,
)
from scripts.bench.conditions import Conditions
from scripts.bench.missd import cluster, new_folder
from scripts.bench.missd_places import TIMEOUT_SECONDS, Packed, Reader
from tests.hdfs import Hdfs

RAW, LOCAL = "raw WebHDFS", "node, local packs"
FRAME_KIND = "application/octet-stream"
FRAME_BYTES = 512 * 512 * 2
FIRST = 4
"""Images of a series that may take longer."""


class Raw:
    """Files in a folder of HDFS, by two requests each, as the protocol has it."""

    def __init__(self, hdfs: Hdfs, folder: str) -> None:
        self._address, self._folder = hdfs.address, folder

    def _redirect(self, method: str, name: str, **query: str | int) -> str:
        connection = http.client.HTTPConnection(self._address, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, f"/webhdfs/v1{self._folder}/{name}?{urlencode({'user.name': getuser(), **query})}")
            answer = connection.getresponse()
            answer.read()
            location = answer.getheader("Location")
        finally:
            connection.close()
        if answer.status != http.client.TEMPORARY_REDIRECT or not location:
            raise Missing(f"WebHDFS {query}: {answer.status}")
        return location

    def put(self, name: str, path: Path) -> float:
        """Seconds."""
        os.sync()
        started = time.monotonic()
        location = self._redirect("PUT", name, op="CREATE", overwrite="true", createflag="create,overwrite,sync_block")
        subprocess.run([needs("curl", "curl"), "-sf", "-o", "/dev/null", "-T", str(path), location], check=True, timeout=TIMEOUT_SECONDS)
        return time.monotonic() - started

    def open(self, name: str, offset: int, length: int) -> float:
        """Seconds."""
        started = time.monotonic()
        location = urlsplit(self._redirect("GET", name, op="OPEN", offset=offset, length=length))
        connection = http.client.HTTPConnection(location.netloc, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("GET", f"{location.path}?{location.query}")
            got = len(connection.getresponse().read())
        finally:
            connection.close()
        if got != length:
            raise Missing(f"WebHDFS gave {got} of {length} bytes")
        return time.monotonic() - started


def seconds_of(reader: Reader, images: Sequence[Sent]) -> list[float]:
    """Of each image."""
    out = []
    for image in images:
        started = time.monotonic()
        reader.image(image)
        out.append(time.monotonic() - started)
    return out


def cold_images(node: Packed, images: Sequence[Sent]) -> list[float]:
    """Seconds of each, the pool empty before."""
    node.start()
    reader = node.reader()
    try:
        return seconds_of(reader, images)
    finally:
        reader.close()


def measure_round(far: Packed, near: Packed, raw: Raw, work: Path, seed: int, series: int, images: int) -> dict[str, tuple[float, float]]:
    """Rates of the node and of whom it is measured against, by case."""
    few = [make_series(work / f"few-{n}", CT, 12, seed=seed + n) for n in range(series)]
    long = make_series(work / "long", CT, images, seed=seed + series)
    blob = work / "blob"
    with blob.open("wb") as out:
        for image in (one for each in few for one in each):
            out.write(image.path.read_bytes())
    size = blob.stat().st_size
    for n in range(series):
        far.accept(work / f"few-{n}", [])
    raw.put("warm", blob)
    theirs = raw.put("blob", blob)
    os.sync()
    started = time.monotonic()
    far.pack()
    found = {"pack": (size / 1e6 / (time.monotonic() - started), size / 1e6 / theirs)}
    for node in (far, near):
        node.accept(work / "long", [])
        node.pack()
    half = max(1, series // 2)
    opens = [raw.open("blob", random.randrange(size - FRAME_BYTES), FRAME_BYTES) for _ in range(half)]
    frames = cold_images(far, [each[0] for each in few[:half]])
    found["first frame"] = half / sum(frames), half / sum(opens)
    far.start()
    reader, ours, opens = far.reader(), 0.0, []
    for each in few[half:] or few:
        length = sum(image.path.stat().st_size for image in each)
        opens.append(raw.open("blob", random.randrange(size - length + 1), length))
        started = time.monotonic()
        reader.volume(each)
        ours += time.monotonic() - started
    reader.close()
    found["series"] = len(opens) * length / 1e6 / ours, len(opens) * length / 1e6 / sum(opens)
    there, here = (cold_images(node, long)[FIRST:] for node in (far, near))
    found["image by image"] = len(there) / sum(there), len(here) / sum(here)
    return found


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="how often each case is measured (default 3)")
    parser.add_argument("--series", type=int, default=20, help="series of 12 that are packed at once (default 20)")
    parser.add_argument("--count", type=int, default=100, help="images of the series that is read image by image (default 100)")
    parser.add_argument("--cluster", type=Path, metavar="DIR", help="folder of a cluster (scripts/hdfs --run DIR)")
    options = parser.parse_args(arguments)
    needs("storescu", "dcmtk")
    needs("curl", "curl")
    data_set = f"{DATA_SETS[CT]}; {options.series} series of 12, one of {options.count}; replication 3; {options.rounds} rounds"
    conditions = Conditions("webhdfs", data_set, options.patience)
    cases = {
        name: Case(name, unit)
        for name, unit in (("pack", "MB/s"), ("first frame", "/s"), ("series", "MB/s"), ("image by image", "images/s"))
    }
    with tempfile.TemporaryDirectory(prefix="bench-webhdfs-", dir=options.work) as kept, cluster(options.cluster, Path(kept)) as hdfs:
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory(dir=kept) as work, new_folder(hdfs) as folder, ExitStack() as stack:
                far = Packed(Path(work) / "far" / "data", hdfs.url(folder), FRAME_KIND)
                near = Packed(Path(work) / "near" / "data", "", FRAME_KIND)
                for node in (far, near):
                    stack.callback(node.stop)
                    node.start()
                found = measure_round(far, near, Raw(hdfs, f"{folder}-raw"), Path(work), 1000 * number, options.series, options.count)
                hdfs.ask("DELETE", f"{folder}-raw", op="DELETE", recursive="true")
            for name, (ours, theirs) in found.items():
                cases[name].add(NODE, ours)
                cases[name].add(LOCAL if name == "image by image" else RAW, theirs)
    header, lines = table_of(cases.values())
    publish(Report("webhdfs", header, lines, figures_of(cases.values()), conditions.told()), options)


if __name__ == "__main__":
    run(main)
