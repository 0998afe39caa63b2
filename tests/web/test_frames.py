"""WADO-RS for frames."""

import pytest

from tests.web.conftest import SERIES, STUDY, Site, parts_of
from tests.web.fakes import FakeInstance

NATIVE = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1/frames"
COMPRESSED = f"/dicomweb/studies/{STUDY}/series/1.2.3.5/instances/1.2.3.5.1/frames"
OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def test_one_frame(site: Site) -> None:
    for _ in range(3):  # the first is read in a thread, the next at once
        answer = site.get(f"{NATIVE}/2", OHIF)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith('multipart/related; type="application/octet-stream"; boundary=')
        ((headers, payload),) = parts_of(answer)
        assert payload == b"\x11" * 1000
        assert headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
        assert headers["content-location"] == f"{NATIVE}/2"
    site.assert_nothing_open()


def test_one_frame_bare(site: Site) -> None:
    answer = site.get(f"{NATIVE}/1", "application/octet-stream")
    assert (answer.status, answer.body) == (200, b"\x10" * 1000)


def test_frames_come_in_the_order_asked_for(site: Site) -> None:
    answer = site.get(f"{NATIVE}/4,1,4", OHIF)
    assert [(h["content-location"], p[:1]) for h, p in parts_of(answer)] == [
        (f"{NATIVE}/4", b"\x13"),
        (f"{NATIVE}/1", b"\x10"),
        (f"{NATIVE}/4", b"\x13"),
    ]
    site.assert_nothing_open()


def test_compressed_frames_by_their_own_type(site: Site) -> None:
    answer = site.get(f"{COMPRESSED}/1,2", "*/*")
    assert [(h["content-type"], p) for h, p in parts_of(answer)] == [
        ("image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", b"\xaa" * 700),
        ("image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90", b"\xbb" * 900),
    ]
    bare = site.get(f"{COMPRESSED}/2", "image/jp2")
    assert (bare.body, bare.headers["content-type"]) == (b"\xbb" * 900, "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90")


def test_compressed_frames_as_bytes_to_who_takes_any_syntax(site: Site) -> None:
    ((headers, payload),) = parts_of(site.get(f"{COMPRESSED}/1", OHIF))
    assert headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.4.90"
    assert payload == b"\xaa" * 700
    assert site.get(f"{COMPRESSED}/1", "multipart/related; type=application/octet-stream").status == 406


@pytest.mark.parametrize(
    ("frames", "status"),
    [("0", 400), ("-1", 400), ("x", 400), ("1,,2", 400), ("1,", 400), ("%D9%A1", 400), ("99999999999", 400), ("5", 404), ("1,5", 404)],
)
def test_frames_that_are_not_there(site: Site, frames: str, status: int) -> None:
    assert site.get(f"{NATIVE}/{frames}", OHIF).status == status
    site.assert_nothing_open()


def test_an_instance_without_pixels(site: Site) -> None:
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", b"no pixels"))
    for frames in ("1", "1,2"):
        answer = site.get(f"/dicomweb/studies/1.9/series/1.9.1/instances/1.9.1.1/frames/{frames}", OHIF)
        assert (answer.status, b"no pixel data" in answer.body) == (404, True)


def test_a_damaged_frame_is_refused_and_the_others_are_not(site: Site) -> None:
    instance = site.retrieval.all[0]
    site.get(f"{NATIVE}/3", OHIF)
    assert instance.pixel_data is not None
    instance.damaged_from = instance.data_set_offset + instance.pixel_data.offset + 2500
    assert site.get(f"{NATIVE}/1", OHIF).status == 200
    assert site.get(f"{NATIVE}/3", OHIF).status == 500
    site.assert_nothing_open()
