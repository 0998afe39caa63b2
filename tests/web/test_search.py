"""QIDO-RS: what URLs ask for, and how answers look."""

import json
from typing import Any

import pytest

from tests.web.conftest import STUDY, Site

OHIF = "/dicomweb/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060,00080090,00100030"


def row(n: int) -> dict[str, Any]:
    return {
        "0020000D": {"vr": "UI", "Value": [f"1.2.{n}"]},
        "0020000E": {"vr": "UI", "Value": [f"1.2.{n}.1"]},
        "00080018": {"vr": "UI", "Value": [f"1.2.{n}.1.1"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Ä"}]},
    }


def test_what_ohif_asks(site: Site) -> None:
    site.search.rows = [row(1), row(2)]
    answer = site.get(OHIF, "application/dicom+json")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/dicom+json")
    assert "warning" not in answer.headers
    found = json.loads(answer.body)
    assert found[0]["00100010"] == row(1)["00100010"]
    assert found[1]["00081190"] == {"vr": "UR", "Value": [f"http://127.0.0.1:{site.port}/dicomweb/studies/1.2.2"]}
    assert all(list(r) == sorted(r) for r in found)
    (query,) = site.search.asked
    assert (query.level, query.keys, query.limit, query.offset, query.fuzzy) == ("study", {}, 101, 0, False)
    assert query.include == {"00081030", "00080060", "00080090", "00100030"}


@pytest.mark.parametrize(
    ("path", "level", "keys", "url"),
    [
        ("/studies", "study", {}, "/studies/1.2.1"),
        ("/series", "series", {}, "/studies/1.2.1/series/1.2.1.1"),
        ("/instances", "instance", {}, "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"),
        (f"/studies/{STUDY}/series", "series", {("0020000D",): STUDY}, "/studies/1.2.1/series/1.2.1.1"),
        (f"/studies/{STUDY}/instances", "instance", {("0020000D",): STUDY}, "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1"),
        (
            f"/studies/{STUDY}/series/1.7/instances",
            "instance",
            {("0020000D",): STUDY, ("0020000E",): "1.7"},
            "/studies/1.2.1/series/1.2.1.1/instances/1.2.1.1.1",
        ),
    ],
)
def test_levels(site: Site, path: str, level: str, keys: dict[tuple[str, ...], str], url: str) -> None:
    site.search.rows = [row(1)]
    (found,) = json.loads(site.get(f"/dicomweb{path}").body)
    assert found["00081190"]["Value"][0].endswith("/dicomweb" + url)
    assert (site.search.asked[0].level, site.search.asked[0].keys) == (level, keys)


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("PatientName=*M%C3%BCller*", {("00100010",): "*Müller*"}),
        ("00100020=4711", {("00100020",): "4711"}),
        ("patientid=4711", None),
        (
            "00400275.00400007=x&RequestAttributesSequence.ScheduledProcedureStepID=y",
            {("00400275", "00400007"): "x", ("00400275", "00400009"): "y"},
        ),
        ("StudyInstanceUID=1.2,1.3%5C1.4", {("0020000D",): "1.2,1.3\\1.4"}),
        ("StudyInstanceUID=1.2&0020000D=1.3", {("0020000D",): "1.2\\1.3"}),
        ("StudyDate=20200101-20201231&ModalitiesInStudy=CT", {("00080020",): "20200101-20201231", ("00080061",): "CT"}),
        ("0010001x=1", None),
        ("nonsense=1", None),
        ("limit=x", None),
        ("limit=-1", None),
        ("offset=1.5", None),
        ("fuzzymatching=perhaps", None),
        ("includefield=NoSuchThing", None),
        ("PatientID=1&PatientID=2", None),
        ("PatientName.PatientID=1", None),
    ],
)
def test_keys(site: Site, text: str, keys: dict[tuple[str, ...], str] | None) -> None:
    answer = site.get(f"/dicomweb/studies?{text}")
    if keys is None:
        assert answer.status == 400
        assert json.loads(answer.body)["error"] == "Bad Request"
    else:
        assert answer.status == 204
        assert site.search.asked[0].keys == keys


def test_includefield_in_all_its_forms(site: Site) -> None:
    site.get("/dicomweb/studies?includefield=PatientSex,00081030&includefield=00400275.00400007")
    assert site.search.asked[0].include == {"00100040", "00081030", "00400275"}
    site.get("/dicomweb/studies?includefield=PatientSex&includefield=all")
    assert site.search.asked[1].include == "all"


def test_nothing_found_is_204(site: Site) -> None:
    answer = site.get("/dicomweb/studies?PatientID=none")
    assert (answer.status, answer.body) == (204, b"")


def test_limit_and_offset(site: Site) -> None:
    site.search.rows = [row(n) for n in range(5)]
    answer = site.get("/dicomweb/studies?limit=2&offset=2")
    assert [r["0020000D"]["Value"][0] for r in json.loads(answer.body)] == ["1.2.2", "1.2.3"]
    assert "warning" not in answer.headers
    assert site.get("/dicomweb/studies?limit=0").status == 204


def test_what_the_server_cuts_is_said(start_site: Any) -> None:
    site = start_site(search_limit_max=3)
    site.search.rows = [row(n) for n in range(5)]
    for text in ("", "?limit=4"):
        answer = site.get(f"/dicomweb/studies{text}")
        assert len(json.loads(answer.body)) == 3
        assert answer.headers["warning"].startswith("299 ")
    assert "warning" not in site.get("/dicomweb/studies?limit=3").headers
    assert "warning" not in site.get("/dicomweb/studies?offset=2").headers


def test_switches(site: Site) -> None:
    site.search.rows = [row(1)]
    assert "warning" not in site.get("/dicomweb/studies?fuzzymatching=true").headers
    assert site.search.asked[0].fuzzy is True
    assert "multiplevaluematching" in site.get("/dicomweb/studies?multiplevaluematching=true").headers["warning"]


def test_an_attribute_that_is_not_indexed_is_ignored_and_said(site: Site) -> None:
    site.search.rows = [row(1)]
    answer = site.get("/dicomweb/studies?WindowCenter=40&PatientID=1")
    assert "WindowCenter is not supported" in answer.headers["warning"]
    assert site.search.asked[0].keys == {("00100020",): "1"}


def test_a_path_and_a_parameter_that_differ(site: Site) -> None:
    assert site.get(f"/dicomweb/studies/{STUDY}/series?StudyInstanceUID=9.9").status == 400
    assert site.get(f"/dicomweb/studies/{STUDY}/series?StudyInstanceUID={STUDY},9.9").status == 204
    assert site.search.asked[-1].keys == {("0020000D",): STUDY}


def test_other_types_are_refused(site: Site) -> None:
    assert site.get("/dicomweb/studies", 'multipart/related; type="application/dicom+xml"').status == 406
    assert site.get("/dicomweb/studies", "application/json").status == 204
