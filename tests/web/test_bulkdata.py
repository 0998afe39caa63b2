"""WADO-RS for bulk data, at each place that a relative URI can lead to."""

from urllib.parse import urljoin

import pytest

from archive.dicom.frames import PixelData
from archive.web.ranges import RangeNotSatisfiable, parse_range, slice_extents
from tests.dicom.build import UNDEFINED, delimited, element, identity, item
from tests.web.conftest import SERIES, STUDY, Site, parts_of
from tests.web.fakes import FakeInstance

ROOT = "/dicomweb"
INSTANCE = f"{ROOT}/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.1"
PIXELS = b"".join(bytes([16 + f]) * 1000 for f in range(4))
OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.mark.parametrize(
    "document",
    [f"{ROOT}/studies/{STUDY}/metadata", f"{ROOT}/studies/{STUDY}/series/{SERIES}/metadata", f"{INSTANCE}/metadata", f"{INSTANCE}/"],
)
def test_a_relative_uri_holds_at_every_level(site: Site, document: str) -> None:
    path = urljoin(document, "instances/1.2.3.4.1/bulkdata/7FE00010")
    answer = site.get(path)
    assert (answer.status, answer.body) == (200, PIXELS)
    assert answer.headers["content-type"] == "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
    site.assert_nothing_open()


def test_as_multipart(site: Site) -> None:
    ((headers, payload),) = parts_of(site.get(f"{INSTANCE}/bulkdata/7FE00010", OHIF))
    assert payload == PIXELS
    assert headers["content-location"] == f"{INSTANCE}/bulkdata/7FE00010"


@pytest.mark.parametrize(
    ("asked", "status", "body", "said"),
    [
        ("bytes=0-9", 206, PIXELS[:10], "bytes 0-9/4000"),
        ("bytes=995-1004", 206, PIXELS[995:1005], "bytes 995-1004/4000"),
        ("bytes=3990-", 206, PIXELS[3990:], "bytes 3990-3999/4000"),
        ("bytes=-10", 206, PIXELS[-10:], "bytes 3990-3999/4000"),
        ("bytes=0-99999", 206, PIXELS, "bytes 0-3999/4000"),
        ("bytes=0-1,5-6", 200, PIXELS, None),
        ("lines=0-1", 200, PIXELS, None),
        ("bytes=9-3", 200, PIXELS, None),
        ("bytes=4000-", 416, None, "bytes */4000"),
    ],
)
def test_ranges(site: Site, asked: str, status: int, body: bytes | None, said: str | None) -> None:
    answer = site.get(f"{INSTANCE}/bulkdata/7FE00010", "application/octet-stream", headers={"Range": asked})
    assert answer.status == status
    assert answer.headers.get("content-range") == said
    if body is not None:
        assert answer.body == body


def test_a_range_of_another_version_is_the_whole(site: Site) -> None:
    path = f"{INSTANCE}/bulkdata/7FE00010"
    tag = site.get(path).headers["etag"]
    assert site.get(path, headers={"Range": "bytes=0-1", "If-Range": tag}).status == 206
    assert site.get(path, headers={"Range": "bytes=0-1", "If-Range": '"other"'}).status == 200


def test_encapsulated_pixels_go_out_as_frames(site: Site) -> None:
    path = f"{ROOT}/studies/{STUDY}/instances/1.2.3.5.1/bulkdata/7FE00010"
    for accept, media_type in (("*/*", "image/jp2"), (OHIF, "application/octet-stream")):
        assert [(h["content-type"], p) for h, p in parts_of(site.get(path, accept))] == [
            (f"{media_type}; transfer-syntax=1.2.840.10008.1.2.4.90", b"\xaa" * 700),
            (f"{media_type}; transfer-syntax=1.2.840.10008.1.2.4.90", b"\xbb" * 900),
        ]
    assert site.get(path, "image/jp2").status == 406


def test_a_video_is_one_stream_with_ranges(site: Site) -> None:
    fragments = item(b"") + item(b"\x01" * 600) + item(b"\x02" * 400)
    data_set = identity() + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
    pixel_data = PixelData("7FE00010", 50, len(data_set) - len(fragments) - 8 + 16, 1008, 0, (600, 400))
    site.retrieval.all.append(FakeInstance("1.9", "1.9.1", "1.9.1.1", data_set, "1.2.840.10008.1.2.4.102", pixel_data=pixel_data))
    path = f"{ROOT}/studies/1.9/instances/1.9.1.1/bulkdata/7FE00010?accept=video/mp4"
    answer = site.get(path)
    assert (answer.body, answer.headers["content-type"]) == (
        b"\x01" * 600 + b"\x02" * 400,
        "video/mp4; transfer-syntax=1.2.840.10008.1.2.4.102",
    )
    assert site.get(path, headers={"Range": "bytes=598-601"}).body == b"\x01\x01\x02\x02"


def test_a_document_has_its_own_type(site: Site) -> None:
    path = f"{INSTANCE}/bulkdata/00420011"
    document = b"%PDF" + b"-" * 2000
    assert site.get(path, "*/*").headers["content-type"] == "application/octet-stream"
    assert site.get(path, "application/pdf").status == 406
    site.retrieval.all[0].attributes["00420012"] = {"vr": "LO", "Value": ["application/pdf"]}
    for address in (path, f"{path}?accept=application/pdf"):
        answer = site.get(address)
        assert (answer.body, answer.headers["content-type"]) == (document, "application/pdf")
    assert site.get(path, "application/octet-stream").headers["content-type"] == "application/octet-stream"
    for hostile in ("text/html", "nonsense", "a/b\r\nX: y", "image/svg+xml"):
        site.retrieval.all[0].attributes["00420012"] = {"vr": "LO", "Value": [hostile]}
        answer = site.get(path)
        assert (answer.headers["content-type"], answer.headers["x-content-type-options"]) == ("application/octet-stream", "nosniff")


@pytest.mark.parametrize("path", ["00080018", "00100010", "7FE0001", "nonsense", "54000100/0/54001010", "../../metadata", "7FE00008"])
def test_what_is_no_bulk_data(site: Site, path: str) -> None:
    assert site.get(f"{INSTANCE}/bulkdata/{path}").status == 404
    site.assert_nothing_open()


def test_slices_of_scattered_bytes() -> None:
    extents = [(100, 10), (200, 0), (300, 5)]
    for start in range(16):
        for end in range(start, 16):
            wanted = [*range(100, 110), *range(300, 305)][start:end]
            assert [n for offset, length in slice_extents(extents, start, end) for n in range(offset, offset + length)] == wanted


def test_nothing_of_an_empty_value_can_be_asked_for() -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_range("bytes=-5", 0)
    assert parse_range("bytes=-", 10) is None


@pytest.mark.parametrize("asked", ["bytes=0-" + "9" * 5000, "bytes=" + "9" * 5000 + "-", "bytes=\u0661-\u0662"])
def test_a_range_of_no_sensible_number_is_passed_over(asked: str) -> None:
    assert parse_range(asked, 10) is None
