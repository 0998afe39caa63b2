"""MISS-D's measurements on a real HDFS: the small-files problem and the latency problem, with packs and without, with the pool and without.

Sets A, B, C, D hold as many CT images as make 100 MB, 250 MB, 500 MB, 1 GB uncompressed; RLE has the same ones compressed. They are
written to and read from a local directory, HDFS with one file each (HdfsCLI over WebHDFS), and this node: with packs in a local
directory, and with packs in HDFS without pool (ranges of the packs, by HdfsCLI), with an empty pool (cold) and with a filled one
(warm). Image by image the readers share out the set, each a run of it; a whole volume is one series, and readers beyond the number of
series read one that another reads too. Then the NameNode says what images cost it one file each and packed. A cluster of its own, three
DataNodes, is started and wiped unless --cluster names one, which is left as it was.

A run may be divided (--sets A --files 0, then --sets B --files 0, …, then --sets '' for the NameNode alone): what it finds is put to what
--json has kept, and --markdown tells all of it. With --sets '' --files 0 nothing is measured.
"""

import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.common import CT, DATA_SETS, keep, needs, parser_of, publish, run
from scripts.bench.conditions import Conditions
from scripts.bench.missd_report import Figures, SetFigures
from scripts.bench.missd_sets import IMAGE_BYTES, SERIES_IMAGES, SETS, SYNTAXES, Bench, make_set
from scripts.bench.missd_small_files import FILES, IMAGES, measure_small_files
from tests.hdfs import Hdfs
from tests.kit import ROOT

ROOT_FOLDER = "/missd"
DATA_SET = f"{DATA_SETS[CT]}; series of {SERIES_IMAGES}; replication 3"


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


def measure_set(hdfs: Hdfs, work: Path, syntax: str, count: int, readers: list[int], rounds: int, conditions: Conditions) -> SetFigures:
    """One set in one syntax; `work` is an empty folder."""
    chosen = make_set(work / "images", syntax, count)
    bench = Bench(hdfs, work / "places", readers)
    for _ in range(rounds):
        with new_folder(hdfs) as folder:
            bench.round(chosen, folder)
    few = len(chosen.few().images)
    return SetFigures(len(chosen.images), chosen.megabytes, few, bench.objects, list(bench.cases.values()), conditions.told())


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--sets", default="A,B,C,D", help="which of them, `A,C` (default: all; empty: none)")
    parser.add_argument("--syntaxes", default=",".join(SYNTAXES), help="which of them (default: %(default)s)")
    parser.add_argument("--count", type=int, metavar="N", help="real images of each set and for the NameNode, whatever its size")
    parser.add_argument("--readers", default="1,4,16", help="how many read at once (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="how often each set is written and read (default 1)")
    parser.add_argument(
        "--files", type=int, default=FILES, help="files for the NameNode's heap (default %(default)s; 0: NameNode left out)"
    )
    parser.add_argument(
        "--cluster", type=Path, metavar="DIR", help="folder of a cluster (scripts/hdfs --run DIR; the usual one: .cache/hdfs/run)"
    )
    options = parser.parse_args(arguments)
    sets, syntaxes = [name for name in options.sets.split(",") if name], options.syntaxes.split(",")
    readers = [int(number) for number in options.readers.split(",")]
    if not set(sets) <= set(SETS) or not set(syntaxes) <= set(SYNTAXES):
        parser.error(f"--sets has some of {', '.join(SETS)}; --syntaxes some of {', '.join(SYNTAXES)}")
    if options.files % (options.count or IMAGES):
        parser.error(f"--files: a multiple of the real images, {options.count or IMAGES}")
    found = Figures.read(options.json) if options.json else Figures()
    if sets or options.files:
        needs("storescu", "dcmtk")
        conditions = Conditions("missd", f"{DATA_SET}; {options.rounds} rounds", options.patience)
        with tempfile.TemporaryDirectory(prefix="bench-missd-", dir=options.work) as kept, cluster(options.cluster, Path(kept)) as hdfs:
            for name, syntax in ((name, syntax) for name in sets for syntax in syntaxes):
                with tempfile.TemporaryDirectory(dir=kept) as work:
                    count = options.count or SETS[name] // IMAGE_BYTES
                    found.sets[f"{name} {syntax}"] = measure_set(hdfs, Path(work), syntax, count, readers, options.rounds, conditions)
                if options.json:
                    keep(found.report(), options.json)
            if options.files:
                with new_folder(hdfs) as folder:
                    found.small_files = measure_small_files(
                        hdfs, Path(kept) / "small-files", folder, options.count or IMAGES, options.files
                    )
                found.small_files_conditions = conditions.told()
    publish(found.report(), options)
    if options.markdown:
        found.draw(options.markdown.parent / "images" / "missd.svg")


if __name__ == "__main__":
    run(main)
