"""Workers that share a listening socket."""

import http.client
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import pytest

from tests.web.conftest import SERIES, STUDY, Site

FRAME = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1/frames/1"


def test_connections_are_bounded(start_site: Callable[..., Site]) -> None:
    site = start_site(connections_max=3)
    held = [http.client.HTTPConnection("127.0.0.1", site.port, timeout=10) for _ in range(3)]
    for connection in held:
        connection.request("GET", "/health")
        assert connection.getresponse().read()
    answer = site.get("/health")
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    held.pop().close()
    deadline = time.monotonic() + 5
    while site.get("/health").status != 200:
        assert time.monotonic() < deadline
    for connection in held:
        connection.close()


def test_silent_connections_are_closed(start_site: Callable[..., Site]) -> None:
    site = start_site(idle_seconds_max=0.3)
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=10) as silent,
        socket.create_connection(("127.0.0.1", site.port), timeout=10) as slow,
    ):
        slow.sendall(b"GET /health HTTP/1.1\r\nHost:")
        assert silent.recv(10) == b""
        assert slow.recv(10) == b""


def test_garbage_is_refused(site: Site) -> None:
    for text in (
        b"\x16\x03\x01\x02\x00\x01garbage\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", site.port), timeout=10) as client:
            client.sendall(text)
            assert b" 400 " in client.recv(100)
    assert site.get("/health").status == 200


def _work(listener: socket.socket, data: Path, number: int, ready: "multiprocessing.synchronize.Event") -> None:
    import asyncio
    from typing import Any, cast

    from archive.config import Settings
    from archive.flow.derived import counters_folder
    from archive.web.application import application_of
    from archive.web.counters import Counters
    from archive.web.services import Services
    from archive.web.threads import Threads
    from archive.web.worker import serve
    from tests.web.conftest import example_instances
    from tests.web.fakes import FakeRetrieval, FakeSearch

    settings = Settings.model_validate({"node": {"data": data}})
    services = Services(
        settings,
        cast(Any, FakeRetrieval(example_instances())),
        cast(Any, FakeSearch()),
        list,
        list,
        Threads(),
        Counters(counters_folder(settings), f"web-{number}"),
    )
    asyncio.run(serve(listener, application_of(services), ready=ready.set))


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[tuple[int, list[SpawnProcess]]]:
    """Two worker processes over one listening socket: its port and the processes."""
    context = multiprocessing.get_context("spawn")
    listener = socket.create_server(("127.0.0.1", 0))
    events = [context.Event() for _ in range(2)]
    processes = [context.Process(target=_work, args=(listener, tmp_path, n, events[n])) for n in range(2)]
    for process in processes:
        process.start()
    assert all(event.wait(30) for event in events)
    yield listener.getsockname()[1], processes
    for process in processes:
        process.kill()
        process.join()
        process.close()
    listener.close()


def test_connections_do_not_all_land_in_one_worker(workers: tuple[int, list[SpawnProcess]], tmp_path: Path) -> None:
    from archive.web.counters import Counters

    port, _ = workers
    for _ in range(3):
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(16)]
        for connection in connections:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        for connection in connections:
            assert connection.recv(12) == b"HTTP/1.1 200"
            connection.close()
    reader = Counters(tmp_path / "derived" / "counters", "reader")
    taken = [values["connections_total"] for name, values in reader.read_all().items() if name != "reader"]
    reader.close()
    assert sum(taken) == 48
    assert min(taken) >= 4, f"one worker took {max(taken)} of 48 connections"


def test_a_stopped_worker_finishes_what_it_began_and_the_other_goes_on(workers: tuple[int, list[SpawnProcess]]) -> None:
    port, (first, _) = workers
    failures: list[str] = []

    def ask() -> None:
        for _ in range(60):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", FRAME)
                if connection.getresponse().status != 200:
                    failures.append("status")
            except OSError as error:
                failures.append(repr(error))
            finally:
                connection.close()

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()
    time.sleep(0.1)
    assert first.pid is not None
    os.kill(first.pid, signal.SIGTERM)
    first.join(15)
    assert first.exitcode == 0
    for asker in askers:
        asker.join()
    assert failures == []
