"""Real processes are killed under load: `python -m tests.crash.kills --each 200 --seed 1`: the node and each of its processes so often.

Everything acknowledged is there afterwards, byte for byte, but for what was deleted, which is not: with the index that it has and with one
made anew. The run prints its figures with its seed.
"""

import argparse
import http.client
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.error import HTTPError, URLError

from archive.errors import NotFound, Unavailable
from archive.node.asking import ask
from tests.dimse.peer import Peer, c_store
from tests.flow.objects import Object, make_object
from tests.kit import Node, part10_data_set, retrieve_part10

SETTINGS = {
    "DICOM_ARCHIVE_DELETION_ALLOWED": "true",
    "DICOM_ARCHIVE_DIMSE_WORKERS": "1",
    "DICOM_ARCHIVE_WEB_WORKERS": "1",
    "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "0.1",
    "DICOM_ARCHIVE_PACKER_PACK_BYTES_TARGET": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_SEGMENT_BYTES": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_LARGE_BYTES": str(64 << 10),
}
LOAD_SECONDS = 0.4
"""At most, between what was acknowledged and the kill."""
DELETED_AFTER = (5, 60)
"""So many objects after it an object is deleted: some wait in the journal yet, others rest in packs."""


def object_of(number: int) -> Object:
    """Ten to a series; every fifth is large."""
    return make_object(1, number // 10, number, pixel_bytes=100_000 if number % 5 == 4 else 6000)


class Load:
    """One sender that tries each object until it is acknowledged, one reader of what was, one who deletes some of it."""

    def __init__(self, node: Node, seed: int) -> None:
        self._node, self._rng = node, random.Random(seed)
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.acknowledged: list[Object] = []
        self.deleted: set[Object] = set()
        self.doubtful: set[Object] = set()
        self.failed_reads = 0
        self._threads = [threading.Thread(target=self._watched, args=(run,)) for run in (self._send, self._read, self._delete)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
        assert not self._errors, self._errors

    def wait_for_more(self, count: int = 10) -> None:
        """Until so many more are acknowledged."""
        wanted, deadline = len(self.acknowledged) + count, time.monotonic() + 40
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < deadline and not self._errors, (self._errors, self._node.log())
            time.sleep(0.01)

    def _watched(self, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self._errors.append(error)

    def _send(self) -> None:
        while not self._stop.is_set():
            with suppress(OSError, ConnectionError, EOFError), Peer(self._node.dimse_port) as peer:
                if not self._associated(peer):
                    time.sleep(0.02)
                    continue
                while not self._stop.is_set():
                    one = object_of(len(self.acknowledged))
                    status = self._stored(peer, one)
                    if status is None:
                        break
                    assert status == 0x0000
                    self.acknowledged.append(one)
            time.sleep(0.02)

    @staticmethod
    def _associated(peer: Peer) -> bool:
        try:
            peer.associate()
        except AssertionError:
            return False  # The connection went into a worker that was killed.
        return True

    @staticmethod
    def _stored(peer: Peer, one: Object) -> int | None:
        """Status of a C-STORE; None where the worker is gone, with or without an abort."""
        try:
            return peer.send(c_store(one.data_set, one.sop_instance_uid)).status()
        except AssertionError:
            return None

    def _read(self) -> None:
        while not self._stop.is_set():
            if not self.acknowledged:
                time.sleep(0.01)
                continue
            one = self.acknowledged[-1]
            path = f"studies/{one.study_instance_uid}/series/{one.series_instance_uid}/instances/{one.sop_instance_uid}"
            try:
                (file,) = retrieve_part10(f"{self._node.dicomweb_url}/{path}")
            except (URLError, OSError, http.client.HTTPException):
                self.failed_reads += 1
                time.sleep(0.02)
                continue
            assert part10_data_set(file) == one.data_set

    def _delete(self) -> None:
        doomed = 0
        while not self._stop.wait(0.01):
            if len(self.acknowledged) - doomed < DELETED_AFTER[1]:
                continue
            one = self.acknowledged[len(self.acknowledged) - self._rng.randint(*DELETED_AFTER)]
            if one in self.deleted:
                continue
            doomed += 1
            self.doubtful.add(one)
            self._deleted(one)
            if one in self.deleted:
                self._assert_gone(one)

    def _deleted(self, one: Object) -> None:
        """Ask until somebody says that it is gone."""
        request = {"verb": "delete", "uids": [one.sop_instance_uid], "source": "kills", "look": False}
        asked = 0
        while not self._stop.is_set():
            try:
                asked += 1
                ask(self._node.data, request, lambda _: None)
            except (Unavailable, OSError):
                time.sleep(0.02)
                continue
            except NotFound:
                assert asked > 1, f"{one} was acknowledged and is not there"
            self.deleted.add(one)
            self.doubtful.discard(one)
            return

    def _assert_gone(self, one: Object) -> None:
        try:
            retrieve_part10(f"{self._node.dicomweb_url}/studies/{one.study_instance_uid}/instances/{one.sop_instance_uid}")
        except HTTPError as error:
            assert error.code in (404, 503), error
        except (URLError, OSError, http.client.HTTPException):
            return
        else:
            raise AssertionError(f"{one} is deleted and is served")


def pid_of(node: Node, worker: str) -> int:
    return int(re.findall(rf": {worker} is process (\d+)", node.log())[-1])


def kill_worker(node: Node, worker: str) -> None:
    pid = pid_of(node, worker)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while pid_of(node, worker) == pid:
        assert time.monotonic() < deadline, node.log()
        time.sleep(0.01)


def kill_supervisor(node: Node) -> None:
    """Its workers see that it is gone; the next start waits for them."""
    assert node.process is not None and node.process.stdout is not None
    node.process.kill()
    node.process.wait()
    node.process.stdout.close()
    node.process = None
    node.start()


def kill_everything(node: Node) -> None:
    node.kill()
    node.start()


def kill(node: Node, what: str) -> None:
    """One of `WHAT`, and wait until it is there again."""
    if what == "node":
        kill_everything(node)
    elif what == "supervisor":
        kill_supervisor(node)
    else:
        kill_worker(node, what)


WHAT = ("dimse-0", "packer-0", "web-0", "supervisor", "node")


def assert_nothing_is_lost_or_back(node: Node, load: Load) -> None:
    served = [part10_data_set(file) for file in retrieve_part10(f"{node.dicomweb_url}/studies/1.2.1")]
    assert len(served) == len(set(served)), "one object is there twice"
    sent = {object_of(number) for number in range(len(load.acknowledged) + 1)} - load.deleted
    kept = set(load.acknowledged) - load.deleted - load.doubtful
    assert {one.data_set for one in kept} <= set(served) <= {one.data_set for one in sent}


def assert_all_is_well(node: Node, load: Load) -> None:
    assert_nothing_is_lost_or_back(node, load)
    assert "set aside" not in node.log()
    node.cli("pack", "--now")
    assert_nothing_is_lost_or_back(node, load)
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    assert node.stop() == 0
    assert [path.name for folder in ("incoming", "open") for path in (node.data / "journal" / folder).iterdir()] == []
    node.cli("rebuild-index")
    node.start()
    assert_nothing_is_lost_or_back(node, load)
    assert node.stop() == 0


def kill_each(node: Node, what: tuple[str, ...], each: int, rng: random.Random, seconds: float = float("inf")) -> Counter[str]:
    """Kill each of these so often, by turns and under load; then everything acknowledged is there, packed and verified."""
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    with Load(node, rng.randrange(1 << 32)) as load:
        for one in what * each:
            if time.monotonic() > deadline:
                break
            load.wait_for_more()
            time.sleep(rng.uniform(0, LOAD_SECONDS))
            before = load.failed_reads
            kill(node, one)
            counts[f"kills of {one}"] += 1
            load.wait_for_more(3)
            assert load.failed_reads == before or one not in ("dimse-0", "packer-0"), node.log()
    assert_all_is_well(node, load)
    counts["acknowledged"], counts["deleted"] = len(load.acknowledged), len(load.deleted)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=200, help="kills of each")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop killing then")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    node = Node(data=folder / "data", settings=SETTINGS)
    try:
        counts = kill_each(node.start(), tuple(options.what), options.each, random.Random(options.seed), options.seconds)
    except BaseException:
        print(f"seed {options.seed} failed; the log is {node.log_file}", file=sys.stderr)
        raise
    finally:
        node.kill()
    shutil.rmtree(folder)
    print(f"seed {options.seed}: " + ", ".join(f"{count} {name}" for name, count in counts.items()) + "; 0 lost, 0 wrong, 0 twice, 0 back")
    return 0


if __name__ == "__main__":
    sys.exit(main())
