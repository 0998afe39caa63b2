"""rebuild-index over synthetic packs: how many instances a minute, in how much memory, and how many bytes of index an instance takes.

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
from pathlib import Path
from typing import Any

from pydicom.data import get_testdata_file

from archive.config import Settings
from archive.dicom.attributes import ATTRIBUTES_VERSION
from archive.dicom.describe import describe
from archive.dicom.json import dumps, loads
from archive.dicom.metadata import METADATA_VERSION
from archive.dicom.part10 import read_file_meta
from archive.flow.home import Home
from archive.flow.recovery import rebuild_index
from archive.node.layout import make_layout
from archive.pack.checksum import crc32
from archive.pack.descriptor import InstanceDescriptor, Revision
from archive.pack.naming import PackName
from archive.pack.pack_writer import PackHeader, PackWriter, SeriesContent, compress, tail_of
from scripts.bench.common import Missing, Report, parser_of, publish, run
from scripts.bench.conditions import Conditions

NODE_NAME, NODE = "bench", bytes(range(16)).hex()
INSTANCES_OF_A_SERIES = 150
SERIES_OF_A_STUDY = 3
PACK_BYTES = 256 << 20
LENGTHS = {"CT_small.dcm": 526_000, "MR_small.dcm": 137_000}
PLANNED = 10**8


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
                received_us=received_us + line * 1000,
                attributes=attributes,
            )
        )
    return out


def packs(instances: int) -> Iterator[list[SeriesContent]]:
    """Contents of packs, until there are so many instances."""
    sources = [source_of(name) for name in LENGTHS]
    metadata = compress(b"[" + dumps(sources[0].descriptor.attributes) * 20 + b"]")
    content: list[SeriesContent] = []
    length = made = number = 0
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
    with Home(settings) as home, home.index.packed.environment.reading() as t:
        counts, size = home.index.packed.counts(t), home.index.packed.environment.size_bytes()
    print(
        dumps(
            {
                "seconds": took,
                "processor": processor,
                "peak": peak,
                "anonymous": anonymous,
                "size": size,
                "damaged": report.damaged,
                **counts,
            }
        ).decode()
    )


def peak_anonymous_bytes() -> int:
    """Of this process now: the index is mapped, and its pages are the kernel's to take back."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


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
    parser.add_argument("--rebuild", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.rebuild:
        rebuild(options.rebuild)
        return
    shape = f"{options.instances:,} instances in synthetic packs, {INSTANCES_OF_A_SERIES} a series, {SERIES_OF_A_STUDY} series a study"
    conditions = Conditions("rebuild_index", shape, options.patience)
    with tempfile.TemporaryDirectory(dir=options.work, prefix="rebuild-") as work:
        data = Path(work) / "data"
        for sequence, content in enumerate(packs(options.instances), start=1):
            write_pack(data / "packs", sequence, content)
        print(f"{sequence} packs of {options.instances} instances are written", file=sys.stderr)
        rounds = [measure(data) for _ in range(options.rounds)]
    if any(r["instances"] != options.instances or r["damaged"] for r in rounds):
        raise Missing(f"the index is not whole: {rounds}")
    publish(report_of(rounds, options.instances, conditions), options)


def report_of(rounds: list[dict[str, Any]], instances: int, conditions: Conditions) -> Report:
    best = min(rounds, key=lambda r: r["seconds"])
    rate = instances / best["seconds"] * 60
    each = best["size"] / instances
    lines = [
        ["instances a minute", f"{rate:,.0f}"],
        ["microseconds of processor an instance", f"{best['processor'] / instances * 1e6:.1f}"],
        ["peak of memory, mapped index included", f"{best['peak'] / 2**20:,.0f} MiB"],
        ["memory of its own at the end", f"{best['anonymous'] / 2**20:,.0f} MiB"],
        ["bytes of index an instance", f"{each:.1f}"],
        [f"computed for {PLANNED:,}: index", f"{each * PLANNED / 2**30:.1f} GiB"],
        [f"computed for {PLANNED:,}: time", f"{PLANNED / rate / 60:.1f} h"],
    ]
    return Report("rebuild_index", ["rebuild-index", "figure"], lines, {"rounds": rounds}, conditions.told())


if __name__ == "__main__":
    run(main)
