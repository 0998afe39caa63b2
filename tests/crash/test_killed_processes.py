"""Real processes are killed under load, one after the other: everything acknowledged is there afterwards, byte for byte."""

import http.client
import os
import re
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from urllib.error import URLError

import pytest

from tests.dimse.peer import Peer, c_store
from tests.flow.objects import Object, make_object
from tests.kit import Node, part10_data_set, retrieve_part10

SETTINGS = {
    "DICOM_ARCHIVE_DIMSE_WORKERS": "1",
    "DICOM_ARCHIVE_WEB_WORKERS": "1",
    "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "0.1",
    "DICOM_ARCHIVE_PACKER_PACK_BYTES_TARGET": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_SEGMENT_BYTES": str(1 << 20),
    "DICOM_ARCHIVE_JOURNAL_LARGE_BYTES": str(64 << 10),
}
KILLS = 2
LOAD_SECONDS = 0.2


def object_of(number: int) -> Object:
    """Ten to a series; every fifth is large."""
    return make_object(1, number // 10, number, pixel_bytes=100_000 if number % 5 == 4 else 6000)


class Load:
    """One sender that tries each object until it is acknowledged, and one reader of what was."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.acknowledged: list[Object] = []
        self.failed_reads = 0
        self._threads = [threading.Thread(target=self._watched, args=(run,)) for run in (self._send, self._read)]

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


def assert_nothing_is_lost(node: Node, acknowledged: list[Object]) -> None:
    served = [part10_data_set(file) for file in retrieve_part10(f"{node.dicomweb_url}/studies/1.2.1")]
    assert len(served) == len(set(served)), "one object is there twice"
    sent = {object_of(number).data_set for number in range(len(acknowledged) + 1)}
    assert {one.data_set for one in acknowledged} <= set(served) <= sent


def assert_all_is_well(node: Node, acknowledged: list[Object]) -> None:
    assert_nothing_is_lost(node, acknowledged)
    assert "set aside" not in node.log()
    node.cli("pack", "--now")
    assert_nothing_is_lost(node, acknowledged)
    assert node.cli("verify").stdout.startswith("nothing is damaged")
    assert node.stop() == 0
    assert [path.name for folder in ("incoming", "open") for path in (node.data / "journal" / folder).iterdir()] == []


@pytest.mark.slow
def test_workers_killed_under_load(start_node: Callable[..., Node]) -> None:
    node = start_node(settings=SETTINGS)
    with Load(node) as load:
        for worker in ("dimse-0", "packer-0", "web-0"):
            for _ in range(KILLS):
                load.wait_for_more()
                time.sleep(LOAD_SECONDS)
                kill_worker(node, worker)
                load.wait_for_more()
            assert worker == "web-0" or load.failed_reads == 0, node.log()
    assert_all_is_well(node, load.acknowledged)


@pytest.mark.slow
def test_nodes_killed_under_load(start_node: Callable[..., Node]) -> None:
    node = start_node(settings=SETTINGS)
    with Load(node) as load:
        for kill in (kill_supervisor, kill_everything) * KILLS:
            load.wait_for_more()
            time.sleep(LOAD_SECONDS)
            kill(node)
            load.wait_for_more()
    assert_all_is_well(node, load.acknowledged)
