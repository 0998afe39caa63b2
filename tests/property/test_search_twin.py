"""Searches of journal and packs against a twin that looks at every object: candidates never lose a match (PS3.4 C.2.2.2)."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from archive.dicom.attributes import level_of, parse_attribute_path
from archive.dicom.describe import describe
from archive.dicom.matching import compile_keys
from archive.errors import BadInput
from archive.flow.query import Level, Query, Search
from tests.flow.objects import EXPLICIT, Object, living, make_object, settings_of

COUNTED = ("00201200", "00201202", "00201204")
UID = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
NAMES = [
    "Müller^Jürgen",
    "MULLER^JURGEN",
    "Doe^John",
    "doe^john^^",
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
    "",
    "^",
    "Strauß ^ Ä",
    "ﬁx^Å*",
    "  Doe",
]
IDS = ["P1", "p1", "P10", "P1 ", "Ä\u0308", "K*", "1\\2", "", "x" * 64, "-1-"]
DATES = ["20200101", "20200131", "2020.01.31", "20191231", "", "20200101\\20200202", "gestern", "20200230"]
MODALITIES = ["CT", "MR", "SR", ""]


class Drawn(NamedTuple):
    """Objects in the order of sending, and whether everything is packed after each."""

    objects: list[Object]
    packs: list[bool]


@st.composite
def archives(draw: st.DrawFn) -> Drawn:
    """Objects of a few studies; an attribute of a study or series is the same in all of its objects or left out."""
    studies = [
        {
            "PatientName": draw(st.sampled_from(NAMES)),
            "PatientID": draw(st.sampled_from(IDS)),
            "AccessionNumber": draw(st.sampled_from(IDS))[:16],
            "StudyDate": draw(st.sampled_from(DATES)),
        }
        for _ in range(4)
    ]
    modalities = [draw(st.sampled_from(MODALITIES)) for _ in range(12)]
    objects, packs = [], []
    for _ in range(draw(st.integers(1, 9))):
        study, series = draw(st.integers(0, 3)), draw(st.integers(1, 2))
        number = draw(st.integers(1, 3))
        values = dict(studies[study], Modality=modalities[3 * study + series])
        for keyword in draw(st.sets(st.sampled_from(sorted(values)), max_size=2)):
            values[keyword] = ""
        attributes: dict[str, Any] = values
        objects.append(make_object(study, series, number, ImageComments=f"n{number}", **attributes))
        packs.append(draw(st.booleans()))
    return Drawn(objects, packs)


def texts(pool: list[str]) -> st.SearchStrategy[str]:
    """A value of the pool, or a key made of one."""
    changes = [
        lambda text: text,
        lambda text: text[: len(text) // 2] + "*",
        lambda text: "*" + text[len(text) // 2 :],
        lambda text: text.replace(text[:1], "?", 1) if text else text,
        lambda text: text[:3] + "?" + text[4:],
        lambda text: text.upper(),
        lambda text: text.lower() + " ",
        lambda text: text.split("=")[-1],
    ]
    return st.builds(lambda text, change: change(text), st.sampled_from(pool), st.sampled_from(changes))


KEYS = {
    "PatientName": texts(NAMES),
    "PatientID": texts(IDS),
    "AccessionNumber": texts(IDS),
    "StudyDate": st.sampled_from(
        ["20200101", "20200101-20200131", "-20200101", "20200102-", "2020.01.31", "20200101\\20191231", "20200131 "]
    ),
    "Modality": texts(MODALITIES),
    "ModalitiesInStudy": texts(MODALITIES),
    "StudyInstanceUID": st.sampled_from(["1.2.1", "1.2.1\\1.2.2", "1.2.9", "1.2.0,1.2.3 "]),
    "SeriesInstanceUID": st.sampled_from(["1.2.1.1", "1.2.1.1\\1.2.2.2", "1.2.9"]),
    "SOPInstanceUID": st.sampled_from(["1.2.1.1.1", "1.2.1.1.1\\1.2.2.2.2", "1.2.9"]),
    "InstanceNumber": st.sampled_from(["1", "2"]),
    "ImageComments": st.sampled_from(["n1", "n*", "?3"]),
}


@st.composite
def queries(draw: st.DrawFn) -> dict[str, str]:
    return {keyword: draw(KEYS[keyword]) for keyword in draw(st.sets(st.sampled_from(sorted(KEYS)), min_size=1, max_size=2))}


def rows_of(objects: list[Object]) -> list[dict[str, Any]]:
    """One row for each instance, the first object under its UIDs; attributes of study and series are what any of their objects says."""
    studies: dict[str, dict[str, Any]] = {}
    series: dict[str, dict[str, Any]] = {}
    instances: dict[str, tuple[Object, dict[str, Any]]] = {}
    for one in objects:
        attributes = describe(one.data_set, EXPLICIT).attributes
        for tag, attribute in attributes.items():
            above = {"patient": studies.setdefault(one.study_instance_uid, {}), "study": studies[one.study_instance_uid]}
            above["series"] = series.setdefault(one.series_instance_uid, {})
            if level_of(tag) in above:
                above[level_of(tag)].setdefault(tag, attribute)
        own = {tag: attribute for tag, attribute in attributes.items() if level_of(tag) == "instance"}
        instances.setdefault(one.sop_instance_uid, (one, own))
    modalities: dict[str, set[str]] = {}
    for one, _ in instances.values():
        modalities.setdefault(one.study_instance_uid, set()).update(series[one.series_instance_uid].get("00080060", {}).get("Value", []))
    return [
        {
            **studies[one.study_instance_uid],
            "00080061": {"vr": "CS", "Value": sorted(modalities[one.study_instance_uid])},
            **series[one.series_instance_uid],
            **own,
            "0020000D": {"vr": "UI", "Value": [one.study_instance_uid]},
            "0020000E": {"vr": "UI", "Value": [one.series_instance_uid]},
        }
        for one, own in instances.values()
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(archives(), st.lists(queries(), min_size=4, max_size=8), st.booleans())
def test_a_search_finds_what_a_look_at_every_object_finds(drawn: Drawn, searches: list[dict[str, str]], fuzzy: bool) -> None:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as folder, living(settings_of(Path(folder))) as life:
        for one, pack in zip(drawn.objects, drawn.packs, strict=True):
            life.send(one)
            if pack:
                life.packer.pack_now()
        rows = rows_of(drawn.objects)
        for keywords in searches:
            keys = {parse_attribute_path(keyword): text for keyword, text in keywords.items()}
            try:
                matches = compile_keys(keys, fuzzy)
            except BadInput:
                continue
            for level in ("study", "series", "instance"):
                wanted = {row[UID[level]]["Value"][0] for row in rows if matches(row)}
                event(f"{level}: {'some' if wanted else 'none'}")
                assert_found(Search(life.home), level, keys, fuzzy, wanted)
            assert_patients(Search(life.home), keys, fuzzy, rows, matches)


def assert_found(search: Search, level: Level, keys: dict[tuple[str, ...], str], fuzzy: bool, wanted: set[str]) -> None:
    whole = [row[UID[level]]["Value"][0] for row in search.search(Query(level, keys, frozenset(), 1000, 0, fuzzy)).rows]
    assert len(whole) == len(set(whole))
    assert set(whole) == wanted, (level, keys)
    pages = []
    for offset in range(0, len(whole) + 1, 2):
        pages += search.search(Query(level, keys, frozenset(), 2, offset, fuzzy)).rows
    assert [row[UID[level]]["Value"][0] for row in pages] == whole


def patient(row: dict[str, Any]) -> tuple[str, ...]:
    """By ID; without one by name; without that each study has its own."""
    known = {tag: row.get(tag, {}).get("Value", [""]) for tag in ("00100020", "00100010")}
    identity = "\\".join(str(value or "") for value in known["00100020"]).strip()
    if identity:
        return ("id", identity)
    name = known["00100010"][0]
    return ("name", "=".join(name.values())) if name else ("study", row["0020000D"]["Value"][0])


def assert_patients(
    search: Search, keys: dict[tuple[str, ...], str], fuzzy: bool, rows: list[dict[str, Any]], matches: Callable[[dict[str, Any]], bool]
) -> None:
    """Each patient of whom something matches is found once, with the numbers of all that is there of the patient."""
    wanted = {patient(row) for row in rows if matches(row)}
    found = list(search.rows(Query("patient", keys, frozenset(COUNTED), 0, 0, fuzzy)))
    assert sorted(map(patient, found)) == sorted(wanted), keys
    for row in found:
        mine = [other for other in rows if patient(other) == patient(row)]
        numbers = [len({other[tag]["Value"][0] for other in mine}) for tag in ("0020000D", "0020000E")] + [len(mine)]
        assert [row[tag]["Value"][0] for tag in COUNTED] == numbers
