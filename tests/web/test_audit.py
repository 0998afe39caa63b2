"""What the audit log is told of requests: how they ended, about which study, and never what else stood in a URL."""

import http.client
import socket
import time
from collections.abc import Callable

import pytest

from archive.web.outlet import Outlet
from tests.web.conftest import SERIES, STUDY, Site
from tests.web.fakes import FakeInstance

Told = tuple[str, str, str, str, int]


def told(site: Site, count: int = 1) -> list[Told]:
    """Action, study, outcome, status and instances of each event."""
    deadline = time.monotonic() + 20
    while len(site.noted.events) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return [(event.action, event.study_instance_uid, event.outcome, event.status, instances) for event, instances in site.noted.events]


def test_an_answer_that_damage_cuts_is_a_failure(site: Site) -> None:
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(40 << 20), damaged_from=30 << 20))
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        site.get("/dicomweb/studies/1.9")
    assert told(site) == [("retrieve_study", "1.9", "failure", "200", 1)]


def test_a_client_that_left_is_told_as_499(site: Site) -> None:
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(200 << 20)))
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"GET /dicomweb/studies/1.9 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
    assert told(site) == [("retrieve_study", "1.9", "cancelled", "499", 1)]


def test_a_client_that_left_before_a_frame_in_memory_was_sent(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    began = Outlet.__init__

    def leave(outlet: Outlet, *arguments: object) -> None:
        arguments[0].transport.close()  # type: ignore[attr-defined]
        began(outlet, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Outlet, "__init__", leave)
    instance = site.retrieval.all[0]
    instance.attributes = {"00080018": {"vr": "UI", "Value": ["1" * 64] * 2000}}
    path = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1/metadata"
    with pytest.raises((http.client.HTTPException, ConnectionError)):
        site.get(path)
    assert told(site) == [("retrieve_instance_metadata", STUDY, "cancelled", "499", 1)]


def test_a_head_gives_no_instances(site: Site) -> None:
    assert site.get(f"/dicomweb/studies/{STUDY}", method="HEAD").status == 200
    assert site.get(f"/dicomweb/studies/{STUDY}").status == 200
    assert told(site, 2) == [("retrieve_study", STUDY, "success", "200", n) for n in (0, 3)]


@pytest.mark.parametrize(
    ("path", "status", "study"),
    [
        ("/studies/JOHN%5EDOE%20BORN%201970", "400", ""),
        ("/studies?StudyInstanceUID=JOHN%20DOE", "204", ""),
        ("/studies?StudyInstanceUID=" + ",".join(f"1.2.{n}" for n in range(20)), "204", ""),
        ("/studies?StudyInstanceUID=1.2.*", "204", ""),
        ("/studies?StudyInstanceUID=1.2.3", "204", "1.2.3"),
        ("/studies/1.2.3/series", "204", "1.2.3"),
    ],
)
def test_the_study_is_a_uid_or_empty(start_site: Callable[..., Site], path: str, status: str, study: str) -> None:
    site = start_site()
    assert str(site.get("/dicomweb" + path).status) == status
    [(_, named, _, answered, instances)] = told(site)
    assert (named, answered, instances) == (study, status, 0)
