"""rebuild-index over synthetic packs: how many instances a minute, in how much memory, and how many bytes of index an instance takes; then
how long a lookup takes in that index, and how long it takes to put one more pack into it.

The packs are called synthetic: their tails are written by the pack writer from real headers (pydicom's CT_small.dcm and MR_small.dcm, with
UIDs, numbers and positions of their own), each as large as its objects would be; where the pixels would lie the files have holes, since
rebuild-index reads no pixel. What 10^8 instances take is computed from the figures of this run.
"""

import argparse
import hashlib
import resource
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random, randrange
from statistics import median
from typing import Any

import lmdb
from pydicom.data import get_testdata_file

from archive.config import Settings
from archive.dicom.attributes import ATTRIBUTES_VERSION
from archive.dicom.describe import describe
from archive.dicom.json import dumps, loads
from archive.dicom.metadata import METADATA_VERSION
from archive.dicom.part10 import read_file_meta
from archive.flow.home import Home
from archive.flow.recovery import rebuild_index
from archive.index.environment import Transaction
from archive.index.located import SeriesKey
from archive.index.packed import PackedIndex
from archive.index.packed_writer import PackedWriter
from archive.node.layout import make_layout
from archive.pack.checksum import crc32
from archive.pack.descriptor import InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_writer import PackHeader, PackWriter, SeriesContent, compress, tail_of
from archive.tier.directory import DirectoryTier
from archive.tier.tails import read_pack_tail
from scripts.bench.common import Missing, Report, parser_of, publish, run
from scripts.bench.conditions import Conditions

NODE_NAME, NODE = "bench", bytes(range(16)).hex()
INSTANCES_OF_A_SERIES = 150
SERIES_OF_A_STUDY = 3
PACK_BYTES = 256 << 20
LENGTHS = {"CT_small.dcm": 526_000, "MR_small.dcm": 137_000}
PLANNED = 10**8
LOOKUPS, LATER_PACKS, TABLES_TOLD = 2000, 20, 5


@dataclass(frozen=True)
class Source:
    """A real object: what the archive says of it."""

    descriptor: InstanceDescriptor
    length: int


def source_of(name: str) -> Source:
    path = Path(str(get_testdata_file(name)))
    data = path.read_bytes()
    meta = read_file_meta(data)
    start, syntax = meta.length, meta.transfer_syntax_uid
    found = describe(data[start:], syntax, 1 << 30)
    revision = Revision(NODE, 1)
    d = InstanceDescriptor(
        revision,
        found.study_instance_uid,
        found.series_instance_uid,
        found.sop_instance_uid,
        found.sop_class_uid,
        syntax,
        start,
        LENGTHS[name],
        0,
        "",
        0,
        "dimse:CT1@192.0.2.17",
        found.attributes,
        found.pixel_data.to_json() if found.pixel_data else None,
        None,
    )
    return Source(d, LENGTHS[name])


def series_of(source: Source, number: int, first: int, count: int, received_us: int) -> list[InstanceDescriptor]:
    """A series of its own, of a study that it shares with others."""
    study = number // SERIES_OF_A_STUDY
    began = 20_240_101_080_000 + study
    uids = [f"1.2.840.113619.2.55.3.{began}.{study}", f"1.2.840.113619.2.55.3.{began}.{study}.{number}.{began % 9973}"]
    base = deepcopy(source.descriptor.attributes)
    said: dict[str, tuple[str, Any]] = {
        "0020000D": ("UI", uids[0]),
        "0020000E": ("UI", uids[1]),
        "00100020": ("LO", f"PID{study:08d}"),
        "00100010": ("PN", {"Alphabetic": f"FAMILY{study % 5000}^GIVEN{study % 300}"}),
        "00080050": ("SH", f"ACC{study:010d}"),
        "00200011": ("IS", number % SERIES_OF_A_STUDY + 1),
    }
    base |= {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in said.items()}
    out = []
    for line in range(count):
        received_us += randrange(5_000, 40_000)
        uid = f"{uids[1]}.{line + 1}"
        attributes = base | {
            "00080018": {"vr": "UI", "Value": [uid]},
            "00200013": {"vr": "IS", "Value": [line + 1]},
        }
        out.append(
            replace(
                source.descriptor,
                revision=Revision(NODE, first + line),
                study_instance_uid=uids[0],
                series_instance_uid=uids[1],
                sop_instance_uid=uid,
                digest=secrets.token_hex(32),
                crc=secrets.randbits(32),
                received_us=received_us,
                attributes=attributes,
            )
        )
    return out


def packs(instances: int, number: int = 0, made: int = 0) -> Iterator[list[SeriesContent]]:
    """Contents of packs, from a series on, until there are so many instances."""
    sources = [source_of(name) for name in LENGTHS]
    metadata = compress(b"[" + dumps(sources[0].descriptor.attributes) * 20 + b"]")
    content: list[SeriesContent] = []
    length = 0
    while made < instances:
        source = sources[number % len(sources)]
        count = min(INSTANCES_OF_A_SERIES, instances - made)
        series = series_of(source, number, made + 1, count, 1_700_000_000_000_000 + made * 20_000)
        content.append(SeriesContent(series[0].study_instance_uid, series[0].series_instance_uid, [(d, False) for d in series], metadata))
        length, made, number = length + count * source.length, made + count, number + 1
        if length >= PACK_BYTES:
            yield content
            content, length = [], 0
    if content:
        yield content


def write_pack(folder: Path, sequence: int, content: list[SeriesContent]) -> None:
    """A pack whose instances are holes; all else is as the writer lays it out."""
    header = PackHeader(NODE_NAME, NODE, sequence, secrets.token_hex(16), time.time_ns() // 1000, METADATA_VERSION, ATTRIBUTES_VERSION)
    writer = PackWriter(header, content, [])
    crcs = list(memoryview(secrets.token_bytes(4 * (-(-writer._blocks.header_offset // (256 << 10))))).cast("I"))
    small = [(entry, crc32(data)) for entry, data in writer._small]
    tail = b"".join(tail_of([(e, d.crc) for e, d in writer._instances] + small, writer._blocks, crcs))
    name = PackName(NODE_NAME, sequence, hashlib.sha256(tail).hexdigest())
    path = folder / str(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for entry, data in writer._small:
            file.seek(entry.header_offset)
            file.write(entry.local_header(crc32(data)) + data)
        file.seek(writer._blocks.header_offset)
        file.write(tail)


def write_packs(data: Path, instances: int) -> None:
    """Those to be taken in, and some to be put into the index later."""
    sequence = 0
    for sequence, content in enumerate(packs(instances), start=1):
        write_pack(data / "packs", sequence, content)
    for number, content in enumerate(islice(packs(2 * PLANNED, PLANNED, instances), LATER_PACKS), start=sequence + 1):
        write_pack(data / "later", number, content)
    print(f"{sequence} packs of {instances} instances are written", file=sys.stderr)


def settings_of(data: Path) -> Settings:
    return Settings.model_validate({"node": {"data": data, "name": NODE_NAME}})


def rebuild(data: Path) -> None:
    """In a process of its own: what it took, on stdout."""
    settings = settings_of(data)
    make_layout(settings)
    started, processor = time.monotonic(), time.process_time()
    report = rebuild_index(settings)
    took, processor = time.monotonic() - started, time.process_time() - processor
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    anonymous = peak_anonymous_bytes()
    pages = pages_of(data / "index" / "packed")
    with Home(settings) as home:
        packed = home.index.packed
        with packed.environment.reading() as t:
            counts, size = packed.counts(t), packed.environment.size_bytes()
        lookups, publishing = look_up(packed), publish_packs(packed, data / "later")
    print(
        dumps(
            {
                "seconds": took,
                "processor": processor,
                "peak": peak,
                "anonymous": anonymous,
                "size": size,
                "pages": pages,
                "lookups": lookups,
                "publishing": publishing,
                "damaged": report.damaged,
                **counts,
            }
        ).decode()
    )


def peak_anonymous_bytes() -> int:
    """Of this process now: the index is mapped, and its pages are the kernel's to take back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def look_up(packed: PackedIndex) -> list[float]:
    """Seconds that each lookup of an instance took, its transaction included, of instances anywhere."""
    with packed.environment.reading() as t:
        found = [i for key in packed.series_keys(t, b"", 10**6) for i in uids_of(packed, t, key)]
    out = []
    for uid in Random(1).sample(found, min(LOOKUPS, len(found))):
        began = time.perf_counter()
        with packed.environment.reading() as t:
            (one,) = packed.find(t, uid)
        out.append(time.perf_counter() - began)
        if one.sop_instance_uid != uid:
            raise Missing(f"{uid} is looked up and {one.sop_instance_uid} found")
    return sorted(out)


def uids_of(packed: PackedIndex, t: Transaction, key: SeriesKey) -> list[str]:
    """UIDs of a series as they were made."""
    record = packed.series(t, key)
    return [f"{key.series_instance_uid}.{line + 1}" for line in range(record.instances)] if record else []


def publish_packs(packed: PackedIndex, folder: Path) -> list[float]:
    """Seconds that each pack took to be put into the index, the synced commit included, as the packer does it."""
    tier, writer, out = DirectoryTier(folder), PackedWriter(packed), []
    for entry in tier.list_packs(NODE_NAME):
        tail = read_pack_tail(tier, entry.name)
        began = time.perf_counter()
        with packed.environment.writing() as t:
            writer.add_pack(t, entry.name, tail)
        out.append(time.perf_counter() - began)
    return sorted(out)


def pages_of(folder: Path) -> dict[str, int]:
    """Bytes of each table's pages."""
    with lmdb.open(str(folder), readonly=True, lock=False, max_dbs=64) as environment, environment.begin() as t:
        stats = {bytes(key).decode(): t.stat(environment.open_db(bytes(key), txn=t, create=False)) for key, _ in t.cursor()}
    return {name: s["psize"] * (s["branch_pages"] + s["leaf_pages"] + s["overflow_pages"]) for name, s in stats.items()}


def measure(data: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "scripts.bench.rebuild_index", "--rebuild", str(data)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Missing(f"rebuild-index failed: {done.stderr}")
    return dict(loads(done.stdout.splitlines()[-1]))


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--instances", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--packs", type=Path, metavar="DIR", help="make the packs there and leave them, or take those of an earlier run")
    parser.add_argument("--rebuild", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rebuild:
        rebuild(options.rebuild)
        return
    shape = f"{options.instances:,} instances in synthetic packs, {INSTANCES_OF_A_SERIES} a series, {SERIES_OF_A_STUDY} series a study"
    conditions = Conditions("rebuild_index", shape, options.patience)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="rebuild-") as work:
        data = options.packs or Path(work) / "data"
        if not (data / "packs").exists():
            write_packs(data, options.instances)
        rounds = [measure(data) for _ in range(options.rounds)]
    if any(r["instances"] != options.instances or r["damaged"] for r in rounds):
        raise Missing(f"the index is not whole: {rounds}")
    publish(report_of(rounds, options.instances, conditions), options)


def report_of(rounds: list[dict[str, Any]], instances: int, conditions: Conditions) -> Report:
    best = min(rounds, key=lambda r: r["seconds"])
    rate = instances / best["seconds"] * 60
    each = best["size"] / instances
    largest = sorted(best["pages"].items(), key=lambda item: -item[1])
    lines = [
        ["instances a minute", f"{rate:,.0f}"],
        ["microseconds of processor an instance", f"{best['processor'] / instances * 1e6:.1f}"],
        ["peak of memory, mapped index included", f"{best['peak'] / 2**20:,.0f} MiB"],
        ["memory of its own at the end", f"{best['anonymous'] / 2**20:,.0f} MiB"],
        ["bytes of index an instance", f"{each:.1f}"],
        *([f"of them table `{name}`", f"{size / instances:.1f}"] for name, size in largest[:TABLES_TOLD]),
        ["a lookup by SOP Instance UID, median", f"{median(best['lookups']) * 1e6:.0f} us"],
        ["99 of 100 lookups, at most", f"{best['lookups'][len(best['lookups']) * 99 // 100] * 1e6:.0f} us"],
        ["one more pack into the index, synced, median", f"{median(best['publishing']) * 1e3:.1f} ms"],
        [f"computed for {PLANNED:,}: index", f"{each * PLANNED / 2**30:.1f} GiB"],
        [f"computed for {PLANNED:,}: time", f"{PLANNED / rate / 60:.1f} h"],
    ]
    return Report("rebuild_index", ["rebuild-index", "figure"], lines, {"rounds": rounds}, conditions.told())


if __name__ == "__main__":
    run(main)
