"""What files and blocks cost the NameNode's memory, by its own word, and what 10^9 images would."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from hdfs import InsecureClient
from requests import RequestException

from archive.config import PackerSection
from scripts.bench.common import Missing, needs
from scripts.bench.missd_places import client_of
from scripts.hdfs_cluster import Daemon
from tests.hdfs import Hdfs

IMAGES_MODELLED = 10**9
BLOCK_BYTES = 128 << 20
"""Of HDFS as it comes."""
FILES_MIN = 1000
"""Fewer do not show in the heap: it moves by half a megabyte on its own."""
WRITERS = 4
TRIES, SMALL_SECONDS = 3, 30.0
SMALL = b"An image of a block of its own; how long it is, the NameNode keeps in one number.\n"


class Held(NamedTuple):
    """What the NameNode holds."""

    objects: int
    heap_bytes: int = 0

    def more_than(self, before: "Held") -> "Held":
        return Held(self.objects - before.objects, self.heap_bytes - before.heap_bytes)


class NameNode:
    """Asked by JMX."""

    def __init__(self, hdfs: Hdfs) -> None:
        self._hdfs = hdfs

    def objects(self) -> Held:
        """Files (folders among them) and blocks, as they are now; the bean FSNamesystem says the same some seconds late."""
        state = self._bean("Hadoop:service=NameNode,name=FSNamesystemState")
        return Held(int(state["FilesTotal"]) + int(state["BlocksTotal"]))

    def objects_and_heap(self) -> Held:
        """With the heap that is in use after garbage was collected twice."""
        pid = Daemon(self._hdfs.run, "namenode").pid()
        for _ in range(2):
            subprocess.run([needs("jcmd", "default-jdk-headless"), str(pid), "GC.run"], check=True, capture_output=True, timeout=60)
            time.sleep(0.5)
        return Held(self.objects().objects, int(self._bean("java.lang:type=Memory")["HeapMemoryUsage"]["used"]))

    def _bean(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://{self._hdfs.address}/jmx?qry={name}", timeout=30) as answer:
            bean: dict[str, Any] = json.load(answer)["beans"][0]
        return bean


def write_small_files(hdfs: Hdfs, folder: str, count: int) -> None:
    """Files of one small block each, a thousand to a folder as a series might have a folder."""

    def write(numbers: range) -> None:
        client = client_of(hdfs.address, SMALL_SECONDS)
        for number in numbers:
            write_one(client, f"{folder}/{number // 1000}/{number}")

    def write_one(client: InsecureClient, path: str) -> None:
        for left in reversed(range(TRIES)):  # Nothing is timed here, and DataNodes on a busy machine keep a writer waiting now and then.
            try:
                client.write(path, data=SMALL, blocksize=1 << 20, overwrite=True)
                return
            except RequestException as error:
                if not left:
                    raise Missing(f"HDFS does not take {path}: {error}") from error

    with ThreadPoolExecutor(WRITERS) as pool:
        for _ in pool.map(write, [range(count * n // WRITERS, count * (n + 1) // WRITERS) for n in range(WRITERS)]):
            pass


class Slope(NamedTuple):
    """What so many files of one block each took."""

    files: int
    held: Held

    @property
    def heap_bytes_per_object(self) -> float:
        return self.held.heap_bytes / self.held.objects


def measure_slope(hdfs: Hdfs, folder: str, count: int) -> Slope:
    namenode = NameNode(hdfs)
    write_small_files(hdfs, f"{folder}/before", 100)  # What the NameNode makes once for all is there then.
    before = namenode.objects_and_heap()
    write_small_files(hdfs, f"{folder}/files", count)
    return Slope(count, namenode.objects_and_heap().more_than(before))


class Modelled(NamedTuple):
    """Of so many images: objects, and bytes of heap."""

    images: int
    one_file_each: Held
    packed: Held

    def lines(self) -> Iterator[list[str]]:
        for name, held in (("one file each", self.one_file_each), ("packed", self.packed)):
            yield [f"{self.images:,} images, {name}", f"{held.objects:,}", f"{held.heap_bytes / 1e9:,.2f} GB"]


def model(slope: Slope, image_bytes: int, images: int = IMAGES_MODELLED) -> Modelled:
    """A file and a block for each image, against full packs: a file and as many blocks as its length begins, and one for its tail."""
    pack_bytes = PackerSection().pack_bytes_target
    objects_per_pack = 1 + -(-pack_bytes // BLOCK_BYTES) + 1
    packs = -(-images * image_bytes // pack_bytes)
    per_object = slope.heap_bytes_per_object

    def held(objects: int) -> Held:
        return Held(objects, round(objects * per_object))

    return Modelled(images, held(2 * images), held(packs * objects_per_pack))
