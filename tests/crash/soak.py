"""A node under mixed work: `python -m tests.crash.soak --minutes 20 --seed 1`. Nothing is lost or wrong, and what it takes stays flat.

Studies come, some objects twice and some changed, and are read as a viewer and as DCMTK's programs do; the oldest are deleted, packs are
compacted, senders stall and die. So the archive is always of about the same size, and so should be all that the node takes.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError

from tests.crash.soak_watch import Watch, draw, growing, table
from tests.dimse.peer import Peer, c_store, c_store_rq, p_data, pdv
from tests.flow.objects import Object, make_object
from tests.kit import Node, part10_data_set, retrieve_part10
from tests.peers.dcmtk import get, received_data_sets

SETTINGS = {
    "DICOM_ARCHIVE_DELETION_ALLOWED": "true",
    "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "2",
    "DICOM_ARCHIVE_PACKER_PACK_BYTES_TARGET": str(16 << 20),
    "DICOM_ARCHIVE_COMPACTION_GRACE_SECONDS": "5",
    "DICOM_ARCHIVE_JOURNAL_SEGMENT_BYTES": str(8 << 20),
    "DICOM_ARCHIVE_POOL_BYTES_MAX": str(64 << 20),
    "DICOM_ARCHIVE_LIMITS_DERIVED_BYTES_MAX": str(16 << 20),
}
LIVE_STUDIES = 12
LENGTHS = (20_000, 20_000, 20_000, 20_000, 520_000, 20_000, 20_000, 520_000, 20_000, 2_500_000)
"""Of the pictures of one series."""


@dataclass
class Study:
    """What was acknowledged of one study."""

    number: int
    objects: list[Object] = field(default_factory=list)
    revised: list[Object] = field(default_factory=list)

    @property
    def uid(self) -> str:
        return f"1.2.{self.number}"


class Soak:
    """The work; whatever a thread of it finds wrong ends the run."""

    def __init__(self, node: Node, folder: Path, seed: int) -> None:
        self._node, self._folder, self._seed = node, folder, seed
        self._lock = threading.Lock()
        self._live: deque[Study] = deque()
        self._number = 0
        self._over = threading.Event()
        self.errors: list[BaseException] = []
        self.counts: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        kinds = (self._send, self._send, self._read, self._read, self._ask, self._be_rude, self._tidy)
        threads = [threading.Thread(target=self._watched, args=(kind, random.Random(f"{self._seed}/{n}"))) for n, kind in enumerate(kinds)]
        for thread in threads:
            thread.start()
        self._over.wait(seconds)
        self._over.set()
        for thread in threads:
            thread.join()

    def _watched(self, kind: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            while not self._over.is_set():
                kind(rng)
        except BaseException as error:
            self.errors.append(error)
            self._over.set()

    def _count(self, what: str, more: int = 1) -> None:
        with self._lock:
            self.counts[what] += more

    # --- who works

    def _send(self, rng: random.Random) -> None:
        """One study, as one association; every fifth object twice, now and then one that was changed meanwhile."""
        if len(self._live) > LIVE_STUDIES + 3:
            self._over.wait(0.2)
            return
        with self._lock:
            self._number += 1
            study = Study(self._number)
        with Peer(self._node.dimse_port) as peer:
            peer.associate()
            for number, length in enumerate(LENGTHS):
                one = make_object(study.number, 1 + number % 2, number, pixel_bytes=length)
                for _ in range(2 if number % 5 == 4 else 1):
                    self._store(peer, one)
                study.objects.append(one)
            if rng.random() < 0.2:
                study.revised.append(make_object(study.number, 1, 0, pixels=bytes(range(256)) * rng.randrange(1, 9)))
                self._store(peer, study.revised[0])
            peer.release()
        with self._lock:
            self._live.append(study)
        self._over.wait(rng.uniform(0, 0.5))

    def _store(self, peer: Peer, one: Object) -> None:
        status = peer.send(c_store(one.data_set, one.sop_instance_uid)).status()
        assert status == 0x0000, f"{status:04X}"
        self._count("objects acknowledged")

    def _any(self, rng: random.Random) -> Study | None:
        with self._lock:
            return rng.choice(self._live) if self._live else None

    def _read(self, rng: random.Random) -> None:
        """As a viewer: the list, metadata, frames; or a whole study, compared byte for byte."""
        study = self._any(rng)
        if study is None:
            self._over.wait(0.1)
            return
        one = rng.choice([o for o in study.objects if not any(o.sop_instance_uid == r.sop_instance_uid for r in study.revised)])
        series = f"{self._node.dicomweb_url}/studies/{study.uid}/series/{one.series_instance_uid}"
        try:
            if rng.random() < 0.3:
                served = {part10_data_set(file) for file in retrieve_part10(f"{self._node.dicomweb_url}/studies/{study.uid}")}
                assert {o.data_set for o in [*study.objects, *study.revised]} >= served, "other bytes than were sent"
                assert len(served) == len(study.objects), f"{len(served)} of {len(study.objects)} objects"
                self._count("studies read")
            else:
                for path in (f"{self._node.dicomweb_url}/studies?PatientID=P{study.number}", f"{series}/metadata"):
                    with urllib.request.urlopen(path, timeout=60) as answer:
                        answer.read()
                (file,) = retrieve_part10(f"{series}/instances/{one.sop_instance_uid}")
                assert part10_data_set(file) == one.data_set, "other bytes than were sent"
                self._count("images read")
        except HTTPError as error:
            assert error.code == 404 and study not in self._live, f"{error.code} {error.url}"  # Deleted meanwhile.
        self._over.wait(rng.uniform(0, 0.1))

    def _ask(self, rng: random.Random) -> None:
        """As an older PACS: a study by C-GET."""
        study = self._any(rng)
        if study is not None:
            folder = self._folder / "got"
            get(self._node.dimse_port, folder, "QueryRetrieveLevel=STUDY", f"StudyInstanceUID={study.uid}")
            got = set(received_data_sets(folder).values())
            shutil.rmtree(folder)
            assert study not in self._live or len(got) == len(study.objects), f"C-GET gave {len(got)} of {len(study.objects)} objects"
            assert got <= {o.data_set for o in [*study.objects, *study.revised]}, "other bytes than were sent"
            self._count("studies by C-GET")
        self._over.wait(rng.uniform(0.5, 2))

    def _be_rude(self, rng: random.Random) -> None:
        """Stall inside of an object and go; send what is no DICOM; go without a word."""
        with suppress(OSError), Peer(self._node.dimse_port) as peer:
            if rng.random() < 0.3:
                peer.send(rng.randbytes(rng.randrange(1, 200)))
            else:
                peer.associate()
                peer.send(p_data(pdv(3, 3, c_store_rq("1.2.999"))), p_data(pdv(3, 0, rng.randbytes(rng.randrange(2, 200_000)))))
                self._over.wait(rng.uniform(0, 3))
        self._count("rude peers")
        self._over.wait(rng.uniform(0, 1))

    def _tidy(self, rng: random.Random) -> None:
        """Delete the oldest study, now and then compact."""
        with self._lock:
            old = self._live.popleft() if len(self._live) > LIVE_STUDIES else None
        if old is not None:
            self._node.cli("delete", "--yes", old.uid, timeout_seconds=120)
            self._count("studies deleted")
            if self.counts["studies deleted"] % 10 == 0:
                self._node.cli("compact", timeout_seconds=240)
                self._count("compactions")
        self._over.wait(0.2)

    # --- at the end

    def check(self) -> None:
        """What is left is served whole, what was deleted is not, and nothing is damaged."""
        for study in self._live:
            served = {part10_data_set(file) for file in retrieve_part10(f"{self._node.dicomweb_url}/studies/{study.uid}")}
            assert len(served) == len(study.objects), study.uid
            assert served <= {o.data_set for o in [*study.objects, *study.revised]}, study.uid
        with urllib.request.urlopen(f"{self._node.dicomweb_url}/studies?limit=1000", timeout=60) as answer:
            assert answer.status == 200 and answer.read().count(b'"0020000D"') == len(self._live), "other studies than are alive"
        self._node.cli("pack", "--now")
        said = self._node.cli("verify", timeout_seconds=240).stdout
        assert said.startswith("nothing is damaged"), said


def soak(node: Node, folder: Path, seed: int, seconds: float, every_seconds: float) -> tuple[Soak, Watch]:
    """Work and watch; raises what was found wrong. The node is stopped in order."""
    work, watch = Soak(node.start(), folder, seed), Watch(node, every_seconds)
    try:
        work.run(seconds)
    finally:
        watch.end()
    if work.errors:
        raise work.errors[0]
    work.check()
    assert node.stop() == 0, node.log()
    return work, watch


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--tier", default="", metavar="URL", help="where packs rest; by default a local folder")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw what was counted there (SVG)")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    node = Node(folder / "data", SETTINGS, ["--tier", options.tier] if options.tier else [])
    started = time.monotonic()
    try:
        work, watch = soak(node, folder, options.seed, options.minutes * 60, max(0.5, options.minutes / 4))
    except BaseException:
        print(f"seed {options.seed} failed after {time.monotonic() - started:.0f} s; the log is {node.log_file}", file=sys.stderr)
        raise
    finally:
        node.kill()
    shutil.rmtree(folder)
    print("\n".join(table(watch.found)))
    if options.chart:
        draw(options.chart, f"{options.minutes:g} minutes of mixed work", watch.found)
    grown = growing(watch.found, work.counts["studies deleted"] * len(LENGTHS) // 2)
    print(f"seed {options.seed}: " + ", ".join(f"{count} {name}" for name, count in work.counts.items()) + "; 0 lost, 0 wrong")
    print("\n".join(grown) or "everything stays flat, but for what is remembered of deleted objects")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
