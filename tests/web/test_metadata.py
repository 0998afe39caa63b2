"""WADO-RS for metadata."""

import gzip
import json
from typing import cast

import pytest

from archive.dicom.json import dumps
from archive.errors import Damaged
from archive.web.metadata import inflated
from tests.web.conftest import SERIES, STUDY, Site

OHIF = "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*"
LEVELS = [
    (f"/dicomweb/studies/{STUDY}/metadata", 3),
    (f"/dicomweb/studies/{STUDY}/series/{SERIES}/metadata", 2),
    (f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/1.2.3.4.2/metadata", 1),
]


@pytest.mark.parametrize(("path", "count"), LEVELS)
@pytest.mark.parametrize("accept", [OHIF, "*/*", "application/dicom+json, application/json", None])
def test_levels(site: Site, path: str, count: int, accept: str | None) -> None:
    for _ in range(2):
        answer = site.get(path, accept)
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/dicom+json")
        assert "content-encoding" not in answer.headers
        assert len(json.loads(answer.body)) == count


def test_gzip_goes_out_as_it_lies(site: Site) -> None:
    path = LEVELS[1][0]
    answer = site.get(path, OHIF, headers={"Accept-Encoding": "gzip, deflate"})
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) == len(answer.body)
    assert json.loads(gzip.decompress(answer.body)) == json.loads(site.get(path, OHIF).body)
    assert "Accept-Encoding" in answer.headers["vary"]


def test_large_metadata_is_inflated_on_the_way(site: Site) -> None:
    site.retrieval.all[0].attributes = {"00204000": {"vr": "LT", "Value": ["x" * 5_000_000]}}
    assert json.loads(site.get(LEVELS[1][0]).body)[0] == site.retrieval.all[0].attributes


@pytest.mark.parametrize("accept", ["application/dicom+xml", 'multipart/related; type="application/dicom+xml"', "image/png"])
def test_what_metadata_cannot_be_sent_as(site: Site, accept: str) -> None:
    for path, _ in LEVELS:
        assert site.get(path, accept).status == 406


def test_the_accept_parameter_with_a_plus_sign(site: Site) -> None:
    for text in ("application/dicom+json", "application/dicom%2Bjson"):
        assert site.get(f"{LEVELS[1][0]}?accept={text}", "image/png").status == 200


def test_only_one_whole_member_is_inflated() -> None:
    packed = gzip.compress(dumps([{"a": 1}]) * 1000)
    assert b"".join(cast(list[bytes], list(inflated(packed)))) == dumps([{"a": 1}]) * 1000
    for bad in (packed[:-5], b"", b"[]" + packed):
        with pytest.raises(Damaged):
            list(inflated(bad))
