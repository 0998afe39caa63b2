"""/health, /ready and /metrics."""

import json
import re
import time
from collections.abc import Callable

from archive.errors import Unavailable
from archive.web.counters import Counters
from archive.web.services import Check, Figure
from tests.web.conftest import SERIES, STUDY, Site

FRAME = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1/frames/1"


def figure(text: str, name: str) -> float:
    found = re.search(rf"^{re.escape(name)} ([0-9.e+]+)$", text, re.MULTILINE)
    assert found is not None, f"{name} is missing in\n{text}"
    return float(found[1])


def test_alive(site: Site) -> None:
    assert site.get("/health").status == 200


def test_ready_tells_each_check(site: Site) -> None:
    answer = site.get("/ready")
    assert (answer.status, json.loads(answer.body)["checks"]) == (200, {"index": {"ok": True, "detail": "readable"}})
    site.checks.append(Check("journal", False, "full"))
    answer = site.get("/ready")
    assert answer.status == 503
    assert json.loads(answer.body) == {
        "status": "not ready",
        "checks": {"index": {"ok": True, "detail": "readable"}, "journal": {"ok": False, "detail": "full"}},
    }
    assert answer.headers["retry-after"] == "10"


def test_metrics_count_by_transaction(site: Site) -> None:
    for _ in range(3):
        site.get(FRAME)
    site.get("/dicomweb/studies/9.9")
    site.get("/dicomweb/nowhere")
    text = site.get("/metrics").body.decode()
    assert figure(text, 'dicom_archive_http_requests_total{outcome="2xx",transaction="retrieve_instance_frames",worker="web-0"}') == 3
    assert figure(text, 'dicom_archive_http_requests_total{outcome="4xx",transaction="retrieve_study",worker="web-0"}') == 1
    assert figure(text, 'dicom_archive_http_request_seconds_count{transaction="retrieve_instance_frames",worker="web-0"}') == 3
    assert figure(text, 'dicom_archive_http_request_seconds_bucket{le="30.0",transaction="retrieve_instance_frames",worker="web-0"}') == 3
    assert figure(text, 'dicom_archive_http_requests_open{worker="web-0"}') == 1
    assert figure(text, "dicom_archive_journal_bytes") == 42
    assert figure(text, "dicom_archive_figures_readable") == 1


def test_metrics_hold_every_worker(site: Site) -> None:
    other = Counters(site.settings.node.data / "derived" / "counters", "web-7")
    other.observe("retrieve_study", 200, 0.2)
    text = site.get("/metrics").body.decode()
    assert figure(text, 'dicom_archive_http_requests_total{outcome="2xx",transaction="retrieve_study",worker="web-7"}') == 1
    other.close()


def test_labelled_figures_and_totals(site: Site) -> None:
    site.figures = [Figure("associations_total", "Associations accepted.", n, {"worker": f"dimse-{n}"}) for n in (1, 2)]
    text = site.get("/metrics").body.decode()
    assert figure(text, 'dicom_archive_associations_total{worker="dimse-2"}') == 2
    assert "# TYPE dicom_archive_associations_total counter" in text


def test_a_node_that_cannot_be_read_still_tells_its_own(site: Site) -> None:
    class Broken(list[Figure]):
        def __iter__(self):  # type: ignore[no-untyped-def]
            raise Unavailable("no index")

    site.figures = Broken()
    text = site.get("/metrics").body.decode()
    assert figure(text, "dicom_archive_figures_readable") == 0


def test_counters_outlive_their_worker(site: Site) -> None:
    folder = site.settings.node.data / "other"
    first = Counters(folder, "web-1")
    first.add("answers_cut_total", 2)
    first.add("requests_open", 5)
    first.close()
    second = Counters(folder, "web-1")
    second.add("answers_cut_total")
    values = second.read_all()["web-1"]
    assert (values["answers_cut_total"], values["requests_open"]) == (3, 0)
    second.close()
    (folder / "web-1.counters").write_bytes(b"of another version")
    assert Counters(folder, "web-2").read_all().keys() == {"web-2"}
    third = Counters(folder, "web-1")
    assert third.read_all()["web-1"]["answers_cut_total"] == 0
    third.close()


def test_too_many_requests_are_refused_but_health_is_not(start_site: Callable[..., Site]) -> None:
    import threading

    site = start_site(requests_max=2)
    release = threading.Event()
    site.search.wait = lambda: release.wait(10)
    busy = [threading.Thread(target=site.get, args=("/dicomweb/studies",)) for _ in range(2)]
    for thread in busy:
        thread.start()
    deadline = time.monotonic() + 5
    while len(site.search.asked) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        answer = site.get(FRAME)
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert answer.headers["access-control-allow-origin"] == "*"
        [(event, instances)] = site.noted.events
        assert (event.action, event.outcome, event.status, instances) == ("retrieve_instance_frames", "failure", "503", 0)
        assert site.get("/health").status == 200
        assert site.get("/metrics").status == 200
    finally:
        release.set()
        for thread in busy:
            thread.join()
    assert site.get(FRAME).status == 200
