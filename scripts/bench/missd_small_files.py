"""The small-files problem: what images cost the NameNode, one file each and packed by this node, and what 10^9 would."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pydicom.uid import generate_uid

from scripts.bench.common import Missing
from scripts.bench.missd_namenode import Held, held_by, objects_of
from scripts.bench.missd_places import Packed
from scripts.bench.missd_sets import Setting, make_set, make_warm_up
from scripts.hdfs_cluster import Cluster
from tests.hdfs import Hdfs

IMAGES, FILES = 500, 50_000
IMAGES_MODELLED = 10**9
FILES_MIN = 1000
"""Fewer do not show in the heap, which is not looked at then."""
FOLDER_FILES, FOLDERS_AT_ONCE = 1000, 10
SHELL, SHELL_THREADS, SHELL_SECONDS = "org.apache.hadoop.fs.FsShell", 32, 900
BODY = b"An image of a block of its own; how long it is, the NameNode keeps in one number.\n"
STAND_IN_BLOCK_BYTES = 1 << 20
"""The least that HDFS allows: a pack's stand-in has as many blocks as the pack, each so long."""


@dataclass(frozen=True)
class SmallFiles:
    """What the NameNode held more.

    Attributes
    ----------
    images, each, packed : int
        So many real images; objects for them, one file each and packed by this node.
    files : int
        As many images as the heap was measured for, too.
    files_each, files_packed : Held
    unsteady_bytes : int
        So much the heap moved with nothing written.
    """

    images: int
    each: int
    packed: int
    files: int
    files_each: Held
    files_packed: Held
    unsteady_bytes: int

    def lines(self) -> Iterator[list[str]]:
        """Images, objects and heap, each of them one file each and packed; the model where there were enough files for it."""
        yield [f"{self.images:,}", *_cells(Held(self.each, 0), Held(self.packed, 0))]
        yield [f"{self.files:,}", *_cells(self.files_each, self.files_packed)]
        if self.has_heap:
            yield [f"{IMAGES_MODELLED:,} (model)", *_cells(self.modelled(self.files_each), self.modelled(self.files_packed))]

    @property
    def has_heap(self) -> bool:
        return self.files >= FILES_MIN

    @property
    def heap_bytes_per_object(self) -> float:
        """Where there are most of them."""
        return self.files_each.heap_bytes / self.files_each.objects

    def modelled(self, held: Held) -> Held:
        """Objects grow with the images, the heap with the objects."""
        objects = round(held.objects * IMAGES_MODELLED / self.files)
        return Held(objects, round(objects * self.heap_bytes_per_object))


def _cells(each: Held, packed: Held) -> list[str]:
    heaps = [_size(held.heap_bytes) if each.heap_bytes else "" for held in (each, packed)]
    return [f"{each.objects:,}", f"{packed.objects:,}", f"{each.objects / packed.objects:,.0f}", *heaps]


def _size(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.2f} MB"


def measure_small_files(hdfs: Hdfs, work: Path, folder: str, images: int = IMAGES, files: int = FILES) -> SmallFiles:
    """Write real images both ways, then what as many as `files`, a multiple of `images`, would be both ways.

    Parameters
    ----------
    work : Path
        An empty folder, removed.
    folder : str
        A new one of HDFS.
    """
    try:
        chosen = make_set(work / "images", "uncompressed", images)
        each = put_each(hdfs, chosen, f"{folder}/images")
        packed, packs = pack(hdfs, chosen, work, f"{folder}/packed")
        print(f"{images} images: {each} objects one file each, {packed} packed", file=sys.stderr, flush=True)
        look = held_by if files >= FILES_MIN else objects_held_by
        first, before = look(hdfs), look(hdfs)
        put_stand_ins(hdfs, packs, files // images, work / "packs", f"{folder}/packs")
        with_packs = look(hdfs)
        put_small_files(hdfs, files, work / "files", f"{folder}/files")
        with_files = look(hdfs)
    finally:
        shutil.rmtree(work)
    unsteady = abs(before.heap_bytes - first.heap_bytes)
    return SmallFiles(images, each, packed, files, with_files.more_than(with_packs), with_packs.more_than(before), unsteady)


def objects_held_by(hdfs: Hdfs) -> Held:
    return Held(objects_of(hdfs), 0)


def put_each(hdfs: Hdfs, chosen: Setting, folder: str) -> int:
    """Real images, one file each in one folder that is there; how many objects they are."""
    flat = chosen.folder.parent / "each"
    flat.mkdir()
    paths = [flat / image.sop_instance_uid for image in chosen.images]
    for path, image in zip(paths, chosen.images, strict=True):
        path.hardlink_to(image.path)
    hdfs.ask("PUT", folder, op="MKDIRS")
    before = objects_of(hdfs)
    put(hdfs, paths, folder)
    return objects_of(hdfs) - before


class Pack(NamedTuple):
    """A file of HDFS."""

    name: str
    blocks: int


def pack(hdfs: Hdfs, chosen: Setting, work: Path, folder: str) -> tuple[int, list[Pack]]:
    """Real images, packed by a node whose folders are there; how many objects they are, and the packs."""
    make_warm_up(work / "warm-up", chosen.syntax)
    node = Packed(work / "node" / "data", hdfs.url(folder), chosen.kind)
    try:
        node.start()
        node.accept(work / "warm-up", chosen.sender_options)
        node.pack()
        before, earlier = objects_of(hdfs), hdfs.files(folder)
        node.accept(chosen.folder, chosen.sender_options)
        node.pack()
        names = [name for name in hdfs.files(folder) if name not in earlier]
        node.stop()
        return objects_of(hdfs) - before, [Pack(Path(name).name, blocks_of(hdfs, f"{folder}/{name}")) for name in names]
    finally:
        node.node.kill()


def blocks_of(hdfs: Hdfs, path: str) -> int:
    status = hdfs.ask("GET", path, op="GETFILESTATUS")["FileStatus"]
    return -(-int(status["length"]) // int(status["blockSize"]))


def put_stand_ins(hdfs: Hdfs, packs: Sequence[Pack], times: int, here: Path, folder: str) -> None:
    """So many times these packs in one folder: names as long, blocks as many."""
    here.mkdir()
    for number in range(times):
        for one in packs:
            with (here / f"{number:06d}{one.name[6:]}").open("wb") as file:
                file.truncate(one.blocks * STAND_IN_BLOCK_BYTES)
    put(hdfs, [here], folder, f"-Ddfs.blocksize={STAND_IN_BLOCK_BYTES}")


def put_small_files(hdfs: Hdfs, count: int, here: Path, folder: str) -> None:
    """Files of one small block each, named as images are, a thousand to a folder."""
    hdfs.ask("PUT", folder, op="MKDIRS")
    for first in range(0, count, FOLDER_FILES * FOLDERS_AT_ONCE):
        numbers = range(first, min(count, first + FOLDER_FILES * FOLDERS_AT_ONCE))
        for number in numbers:
            path = here / str(first) / str(number // FOLDER_FILES) / generate_uid(entropy_srcs=[str(number)])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(BODY)
        put(hdfs, sorted((here / str(first)).iterdir()), folder)
        print(f"{numbers[-1] + 1:,} of {count:,} files written", file=sys.stderr, flush=True)


def put(hdfs: Hdfs, paths: Sequence[Path], folder: str, *options: str) -> None:
    """Files or folders, by Hadoop's own shell: several times as fast as WebHDFS with small ones.

    Raises
    ------
    Missing
        HDFS does not take them.
    """
    command = [*Cluster(hdfs.run).java(SHELL), *options, "-put", "-d", "-t", str(SHELL_THREADS), *map(str, paths), folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SHELL_SECONDS)
    if done.returncode:
        raise Missing(f"HDFS does not take {folder}: {done.stderr[-1000:]}")
