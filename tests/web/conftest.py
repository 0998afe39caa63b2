"""A web worker in a thread of its own, on a real socket, over what a test gives it."""

import asyncio
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from archive.config import Settings
from archive.dicom.frames import PixelData
from archive.flow.derived import counters_folder
from archive.web.application import application_of
from archive.web.counters import Counters
from archive.web.services import Check, Figure, Services
from archive.web.threads import Threads
from archive.web.worker import serve
from tests.dicom.build import UNDEFINED, delimited, element, identity, item
from tests.kit import Noted
from tests.web.fakes import JPEG_2000, FakeInstance, FakeRetrieval, FakeSearch

STUDY, SERIES = "1.2.3", "1.2.3.4"


@dataclass
class Answer:
    """What came back: status, headers by name in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Site:
    """One worker over fakes; `get` speaks to it as a client would."""

    def __init__(self, data: Path, web: dict[str, Any]) -> None:
        self.settings = Settings.model_validate({"node": {"data": data, "name": "test"}, "web": web})
        self.retrieval = FakeRetrieval(example_instances())
        self.search = FakeSearch()
        self.checks = [Check("index", True, "readable")]
        self.figures = [Figure("journal_bytes", "Bytes waiting in the journal.", 42.0, {})]
        self.noted = Noted()
        services = Services(
            settings=self.settings,
            retrieval=cast(Any, self.retrieval),
            search=cast(Any, self.search),
            checks=lambda: self.checks,
            figures=lambda: list(self.figures),
            threads=Threads(),
            counters=Counters(counters_folder(self.settings), "web-0"),
            audit=self.noted,
        )
        self.counters = services.counters
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        ready = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(services, ready))
        self._thread.start()
        assert ready.wait(10)

    def _run(self, services: Services, ready: threading.Event) -> None:
        async def main() -> None:
            self._loop = asyncio.get_running_loop()
            self._stop = asyncio.Event()
            await serve(self.listener, application_of(services), ready=ready.set, stop=self._stop)

        asyncio.run(main())

    def assert_nothing_open(self) -> None:
        """What was opened for an answer is closed soon after its last byte."""
        deadline = time.monotonic() + 5
        while self.retrieval.open_now and time.monotonic() < deadline:
            time.sleep(0.01)
        assert self.retrieval.open_now == 0

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        assert not self._thread.is_alive()
        self.listener.close()

    def get(self, path: str, accept: str | None = None, *, method: str = "GET", headers: dict[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, headers=({"Accept": accept} if accept else {}) | (headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()


def example_instances() -> list[FakeInstance]:
    """Two native images of four frames in one series, and a compressed one in another."""
    found = []
    for n in (1, 2):
        frames = b"".join(bytes([n * 16 + f]) * 1000 for f in range(4))
        data_set = identity() + element(0x00420011, "OB", b"%PDF" + b"-" * 2000) + element(0x7FE00010, "OB", frames)
        pixel_data = PixelData("7FE00010", 4, len(data_set) - 4000, 4000, 8000)
        found.append(FakeInstance(STUDY, SERIES, f"1.2.3.4.{n}", data_set, pixel_data=pixel_data, revision=n))
    fragments = item(b"") + item(b"\xaa" * 700) + item(b"\xbb" * 800) + item(b"\xbb" * 100)
    data_set = identity() + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
    pixel_data = PixelData("7FE00010", 2, len(data_set) - len(fragments) - 8 + 16, 1616, 0, (700, 800, 100), (0, 1))
    found.append(FakeInstance(STUDY, "1.2.3.5", "1.2.3.5.1", data_set, JPEG_2000, pixel_data=pixel_data, revision=3))
    for instance in found:
        instance.attributes = {"00080018": {"vr": "UI", "Value": [instance.sop_instance_uid]}}
    return found


def parts_of(answer: Answer) -> list[tuple[dict[str, str], bytes]]:
    """Headers and payload of each part, by the rules of RFC 2046, every length checked."""
    kind, _, rest = answer.headers["content-type"].partition(";")
    assert kind == "multipart/related"
    boundary = rest.partition("boundary=")[2].strip('"').encode()
    body = answer.body
    assert body.endswith(b"\r\n--" + boundary + b"--\r\n")
    found = []
    for section in (b"\r\n" + body).split(b"\r\n--" + boundary)[1:-1]:
        head, _, payload = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = {k.lower(): v for k, v in (line.split(": ", 1) for line in head.decode().split("\r\n"))}
        assert int(headers["content-length"]) == len(payload)
        found.append((headers, payload))
    return found


@pytest.fixture
def start_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Start workers over `tmp_path`, with settings of the section `web` by name."""
    started: list[Site] = []

    def start(**web: Any) -> Site:
        started.append(Site(tmp_path, web))
        return started[-1]

    yield start
    for site in started:
        site.stop()


@pytest.fixture
def site(start_site: Callable[..., Site]) -> Site:
    """A worker with the default settings."""
    return start_site()
