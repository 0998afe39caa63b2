"""WADO-RS for instances: what comes back is what lies there, or the client notices."""

import contextlib
import errno
import http.client
import socket
from collections.abc import Callable, Sequence

import pytest

from archive.dicom.frames import PixelData
from archive.dicom.scan import Buffer
from archive.errors import Damaged, Exhausted, Unavailable
from archive.web.outlet import Outlet
from tests.web.conftest import SERIES, STUDY, Site, parts_of
from tests.web.fakes import FakeInstance

ONE = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1"
ANY = 'multipart/related; type="application/dicom"; transfer-syntax=*'


def test_an_instance_as_multipart(site: Site) -> None:
    answer = site.get(ONE, ANY)
    assert answer.status == 200
    assert answer.headers["content-type"].startswith('multipart/related; type="application/dicom"; boundary=')
    assert int(answer.headers["content-length"]) == len(answer.body)
    ((headers, payload),) = parts_of(answer)
    assert payload == site.retrieval.all[0].part10
    assert headers["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
    assert headers["content-location"] == ONE


def test_an_instance_bare(site: Site) -> None:
    answer = site.get(ONE, "application/dicom")
    assert (answer.status, answer.body) == (200, site.retrieval.all[0].part10)
    assert answer.headers["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"


def test_the_accept_parameter_takes_the_place_of_the_header(site: Site) -> None:
    assert site.get(f"{ONE}?accept=application/dicom", "image/png").body == site.retrieval.all[0].part10
    assert site.get(f"{ONE}?accept=image/png", "application/dicom").status == 406


@pytest.mark.parametrize(
    ("path", "which"), [(f"/dicomweb/studies/{STUDY}", [0, 1, 2]), (f"/dicomweb/studies/{STUDY}/series/{SERIES}", [0, 1])]
)
def test_studies_and_series(site: Site, path: str, which: list[int]) -> None:
    for accept in (ANY, "*/*"):
        answer = site.get(path, accept)
        assert answer.status == 200
        assert [payload for _, payload in parts_of(answer)] == [site.retrieval.all[n].part10 for n in which]
    site.assert_nothing_open()


def test_what_is_not_accepted_is_left_out_and_said(site: Site) -> None:
    answer = site.get(f"/dicomweb/studies/{STUDY}", "multipart/related; type=application/dicom; transfer-syntax=1.2.840.10008.1.2.4.90")
    assert answer.status == 206
    assert [payload for _, payload in parts_of(answer)] == [site.retrieval.all[2].part10]
    assert "2 instances" in answer.headers["warning"]
    assert site.get(f"/dicomweb/studies/{STUDY}", "application/dicom").status == 406


def test_a_large_object_comes_whole(site: Site) -> None:
    big = FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(range(256)) * (100 << 12))
    site.retrieval.all.append(big)
    assert parts_of(site.get("/dicomweb/studies/1.9", ANY))[0][1] == big.part10
    site.assert_nothing_open()


def test_head_says_the_length_and_sends_nothing(site: Site) -> None:
    for path in (ONE, f"/dicomweb/studies/{STUDY}", f"{ONE}/frames/1", f"{ONE}/frames/1,2", f"{ONE}/metadata"):
        whole, head = site.get(path), site.get(path, method="HEAD")
        assert (head.status, head.body) == (200, b"")
        assert head.headers.get("content-length") == whole.headers.get("content-length")
    site.assert_nothing_open()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/dicomweb/studies/9.9", 404),
        (f"/dicomweb/studies/{STUDY}/series/9.9", 404),
        (f"{ONE}9", 404),
        ("/dicomweb/studies/not-a-uid", 400),
        ("/dicomweb/studies/" + "1." * 32 + "11", 400),
        ("/dicomweb/studies/..%2f..%2fetc", 400),
        ("/dicomweb/nothing", 404),
        ("/console", 404),
    ],
)
def test_what_is_not_there(site: Site, path: str, status: int) -> None:
    answer = site.get(path)
    assert answer.status == status
    assert answer.headers["content-type"].startswith("application/json")
    assert b'"error"' in answer.body and b'"detail"' in answer.body
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [
        (Damaged("bad block"), 500, None),
        (Exhausted("full", 7), 503, "7"),
        (Unavailable("no tier", 20), 503, "20"),
        (OSError(5, "disk"), 500, None),
    ],
)
def test_errors_before_the_first_byte(site: Site, error: Exception, status: int, retry: str | None) -> None:
    site.retrieval.failing = error
    answer = site.get(ONE, ANY)
    assert answer.status == status
    assert answer.headers.get("retry-after") == retry
    assert answer.headers["access-control-allow-origin"] == "*"


def test_other_methods_are_refused_with_what_is_allowed(site: Site) -> None:
    answer = site.get(ONE, method="DELETE")
    assert answer.status == 405
    assert "GET" in answer.headers["allow"]
    assert answer.headers["content-type"].startswith("application/json")


def test_preflight_allows_authorization_everywhere(site: Site) -> None:
    for path in (ONE, "/dicomweb/studies", "/dicomweb/not/there"):
        answer = site.get(path, method="OPTIONS", headers={"Origin": "http://x", "Access-Control-Request-Headers": "authorization"})
        assert answer.status == 204
        assert "Authorization" in answer.headers["access-control-allow-headers"]
        assert answer.headers["access-control-allow-origin"] == "*"


def test_damage_at_the_start_is_an_error(site: Site) -> None:
    site.retrieval.all[0].damaged_from = 0
    assert site.get(ONE, ANY).status == 500
    assert site.get(f"/dicomweb/studies/{STUDY}", ANY).status == 500
    site.assert_nothing_open()


def test_damage_further_on_cuts_the_connection(site: Site) -> None:
    big = FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(range(256)) * (100 << 12))
    big.damaged_from = 60 << 20
    site.retrieval.all.append(big)
    with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
        site.get("/dicomweb/studies/1.9", ANY)
    site.assert_nothing_open()
    assert site.counters.read_all()["web-0"]["answers_cut_total"] == 1


def whole_answer(site: Site, path: str) -> bytes:
    """Every byte that comes, until the connection ends."""
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.recv(1 << 20):
                answer += data
    return answer


def test_an_error_of_any_kind_further_on_never_goes_out_as_bytes_of_the_object(site: Site) -> None:
    big = FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(40 << 20), damaged_from=30 << 20, damage=KeyError("a mistake"))
    site.retrieval.all.append(big)
    answer = whole_answer(site, "/dicomweb/studies/1.9")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1 ") == 1
    site.assert_nothing_open()
    assert site.counters.read_all()["web-0"]["answers_cut_total"] == 1


def test_pixels_that_cannot_be_read_while_they_are_sent_cut_the_connection(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    async def write(outlet: Outlet, parts: Sequence[Buffer]) -> None:
        raise OSError(errno.EFAULT, "Bad address")

    monkeypatch.setattr(Outlet, "write", write)
    pixels = PixelData("7FE00010", 1, 0, 200_000, 1_600_000)
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(200_000), pixel_data=pixels))
    answer = whole_answer(site, "/dicomweb/studies/1.9/series/1.9.1/instances/1.9.1.1/frames/1")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1 ") == 1
    site.assert_nothing_open()


def test_a_client_that_goes_away_leaves_nothing_open(site: Site) -> None:
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(200 << 20)))
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"GET /dicomweb/studies/1.9 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
    site.assert_nothing_open()


def test_a_client_that_stops_reading_is_cut_off(start_site: Callable[..., Site]) -> None:
    site = start_site(stall_seconds_max=0.3)
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", bytes(200 << 20)))
    with socket.create_connection(("127.0.0.1", site.port)) as client:
        client.sendall(b"GET /dicomweb/studies/1.9 HTTP/1.1\r\nHost: x\r\n\r\n")
        client.recv(1000)
        site.assert_nothing_open()
    assert site.counters.read_all()["web-0"]["answers_cut_total"] == 1
