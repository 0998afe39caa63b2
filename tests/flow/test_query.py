"""Searching journal and packs together: levels, counts, order, paging."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.attributes import parse_attribute_path
from archive.errors import BadInput
from archive.flow import candidates
from archive.flow.query import Answer, Level, Query, Search
from tests.flow.objects import Life, living, make_object, settings_of

UID = {"study": "0020000D", "series": "0020000E", "instance": "00080018"}
ALL: frozenset[str] = frozenset()


def search(life: Life, level: Level, limit: int = 1000, offset: int = 0, fuzzy: bool = False, include: Any = ALL, **keys: str) -> Answer:
    """Keys by keyword."""
    paths = {parse_attribute_path(keyword): text for keyword, text in keys.items()}
    return Search(life.home).search(Query(level, paths, include, limit, offset, fuzzy))


def found(life: Life, level: Level, **options: Any) -> list[str]:
    """UIDs of the rows, in order."""
    return [row[UID[level]]["Value"][0] for row in search(life, level, **options).rows]


def value(row: dict[str, Any], tag: str) -> Any:
    return row[tag]["Value"][0]


SENT = [
    make_object(1, 1, 1, StudyDate="20200101", PatientName="Müller^Jürgen", AccessionNumber="A1", SeriesDescription="Head"),
    make_object(1, 1, 2, StudyDate="20200101", PatientName="Müller^Jürgen", AccessionNumber="A1", SeriesDescription="Head"),
    make_object(1, 2, 1, StudyDate="20200101", PatientName="Müller^Jürgen", AccessionNumber="A1", Modality="SR", SeriesNumber="0"),
    make_object(2, 1, 1, StudyDate="20210615", PatientName="Doe^John", AccessionNumber="A2", PatientID="ÄÖ", Rows=99),
    make_object(3, 1, 1, StudyDate="", PatientName="Yamada^Tarou=山田^太郎", AccessionNumber="B1"),
    make_object(4, 1, 1, StudyDate="2019.12.31", PatientName="Doe^Jane", AccessionNumber="", PatientID="P1"),
]


@pytest.fixture(params=["pending", "packed", "both"])
def filled(request: pytest.FixtureRequest, life: Life) -> Life:
    """The same content, however it lies."""
    if request.param == "both":
        for one in SENT[::2]:
            life.send(one)
        life.packer.pack_now()
    life.send(*SENT)
    if request.param == "packed":
        life.packer.pack_now()
    return life


@pytest.mark.parametrize(
    ("level", "keys", "uids"),
    [
        ("study", {}, ["1.2.2", "1.2.1", "1.2.4", "1.2.3"]),  # Newest first, without a date last.
        ("series", {}, ["1.2.2.1", "1.2.1.2", "1.2.1.1", "1.2.4.1", "1.2.3.1"]),
        ("instance", {}, ["1.2.2.1.1", "1.2.1.2.1", "1.2.1.1.1", "1.2.1.1.2", "1.2.4.1.1", "1.2.3.1.1"]),
        ("study", {"PatientName": "müller*"}, ["1.2.1"]),
        ("study", {"PatientName": "doe^*"}, ["1.2.2", "1.2.4"]),
        ("study", {"PatientName": "山田*"}, ["1.2.3"]),
        ("study", {"PatientName": "muller jurgen", "fuzzy": True}, ["1.2.1"]),
        ("study", {"PatientID": "ÄÖ"}, ["1.2.2"]),
        ("study", {"PatientID": "äö"}, []),
        ("study", {"AccessionNumber": "A?"}, ["1.2.2", "1.2.1"]),
        ("study", {"AccessionNumber": "*1"}, ["1.2.1", "1.2.3"]),
        ("study", {"StudyDate": "20200101"}, ["1.2.1"]),
        ("study", {"StudyDate": "20191231-20200101"}, ["1.2.1", "1.2.4"]),
        ("study", {"StudyDate": "20200102-"}, ["1.2.2"]),
        ("study", {"StudyDate": "-20200101"}, ["1.2.1", "1.2.4"]),
        ("study", {"StudyInstanceUID": "1.2.3\\1.2.1,1.2.9"}, ["1.2.1", "1.2.3"]),
        ("study", {"Modality": "SR"}, ["1.2.1"]),  # Something below matches.
        ("study", {"ModalitiesInStudy": "SR"}, ["1.2.1"]),
        ("study", {"SOPInstanceUID": "1.2.2.1.1"}, ["1.2.2"]),
        ("study", {"Rows": "99"}, ["1.2.2"]),
        ("series", {"SeriesDescription": "Head"}, ["1.2.1.1"]),
        ("series", {"StudyInstanceUID": "1.2.1"}, ["1.2.1.2", "1.2.1.1"]),
        ("series", {"SeriesInstanceUID": "1.2.1.1"}, ["1.2.1.1"]),
        ("series", {"PatientName": "Müller^Jürgen", "Modality": "CT"}, ["1.2.1.1"]),
        ("series", {"InstanceNumber": "2"}, ["1.2.1.1"]),
        ("instance", {"SeriesInstanceUID": "1.2.1.1"}, ["1.2.1.1.1", "1.2.1.1.2"]),
        ("instance", {"StudyInstanceUID": "1.2.1", "SOPInstanceUID": "1.2.1.1.2"}, ["1.2.1.1.2"]),
        ("instance", {"InstanceNumber": "2"}, ["1.2.1.1.2"]),
        ("instance", {"PatientID": "P1", "Modality": "SR"}, ["1.2.1.2.1"]),
        ("study", {"PatientName": "nobody"}, []),
        ("instance", {"SOPInstanceUID": "1.2.9"}, []),
    ],
)
def test_what_is_found(filled: Life, level: Level, keys: dict[str, Any], uids: list[str]) -> None:
    assert found(filled, level, **keys) == uids


def test_rows_count_what_is_there(filled: Life) -> None:
    study = search(filled, "study", StudyInstanceUID="1.2.1").rows[0]
    assert [value(study, tag) for tag in ("00201206", "00201208")] == [2, 3]
    assert study["00080061"]["Value"] == ["CT", "SR"]
    assert value(study, "00100010") == {"Alphabetic": "Müller^Jürgen"}
    assert value(study, "00080056") == "ONLINE"
    series = search(filled, "series", StudyInstanceUID="1.2.1", include="all").rows
    assert [value(row, "00201209") for row in series] == [1, 2]
    assert [value(row, "00201206") for row in series] == [2, 2]


def test_a_key_that_cannot_be_a_value_is_refused(filled: Life) -> None:
    with pytest.raises(BadInput, match="StudyDate"):
        search(filled, "instance", StudyDate="yesterday")
    with pytest.raises(BadInput, match="InstanceNumber"):
        search(filled, "instance", InstanceNumber="one")


@pytest.mark.parametrize("level", ["study", "series", "instance"])
def test_pages_are_cuts_of_the_whole(filled: Life, level: Level) -> None:
    whole = found(filled, level)
    for size in (1, 2, 3, 100):
        pages, offset, more = [], 0, True
        while more:
            answer = search(filled, level, limit=size, offset=offset)
            assert len(answer.rows) <= size
            pages += [row[UID[level]]["Value"][0] for row in answer.rows]
            offset, more = offset + size, answer.more
        assert pages == whole
    assert found(filled, level, offset=len(whole)) == found(filled, level, offset=10_000) == []


def test_limit_and_offset_count_what_is_left_after_duplicates(life: Life) -> None:
    """Revisions, the same object in journal and pack, one instance in several series: others looped for ever here."""
    for number in range(1, 5):
        life.send(make_object(1, 1, number), make_object(1, 1, number, pixels=b"another"))
        if number % 2:
            life.packer.pack_now()
    life.send(*(make_object(1, 1, number) for number in range(1, 5)))
    whole = [f"1.2.1.1.{number}" for number in range(1, 5)]
    assert found(life, "instance") == whole
    assert [found(life, "instance", limit=1, offset=n) for n in range(5)] == [*([uid] for uid in whole), []]
    assert [search(life, "instance", limit=1, offset=n).more for n in range(4)] == [True, True, True, False]
    for _ in range(2):
        assert value(search(life, "study").rows[0], "00201208") == 4
        assert value(search(life, "series").rows[0], "00201209") == 4
        life.packer.pack_now()


def test_the_same_uids_under_two_studies_count_in_both(life: Life) -> None:
    """A sender changed the Study Instance UID alone."""
    uids: dict[str, Any] = {"sop": "1.2.5.5", "SeriesInstanceUID": "1.2.5"}
    for packed in (False, True):
        if not packed:
            life.send(make_object(1, 1, 1, **uids), make_object(2, 1, 1, **uids))
        else:
            life.packer.pack_now()
        assert [value(row, "00201208") for row in search(life, "study").rows] == [1, 1]


def test_what_came_first_says_what_a_series_is_called(life: Life) -> None:
    """Whatever its InstanceNumber; later objects add what it left out."""
    life.send(
        make_object(1, 1, 2, PatientName="First^Came", PatientID=""),
        make_object(1, 1, 1, PatientName="Second^Came", PatientID="P7"),
        make_object(1, 1, 3, PatientName="Third^Came", PatientID="P8"),
    )
    for _ in range(2):
        (row,) = search(life, "study").rows
        assert (value(row, "00100010"), value(row, "00100020")) == ({"Alphabetic": "First^Came"}, "P7")
        assert found(life, "study", PatientName="First*", PatientID="P7") == ["1.2.1"]
        assert found(life, "study", PatientName="Second*") == []
        life.packer.pack_now()


def test_a_study_with_two_dates_is_one_row(life: Life) -> None:
    life.send(make_object(1, 1, 1, StudyDate="20200101\\20220101"), make_object(2, 1, 1, StudyDate="20210101"))
    for _ in range(2):
        assert found(life, "study") == ["1.2.2", "1.2.1"]
        assert found(life, "study", StudyDate="20220101") == ["1.2.1"]
        life.packer.pack_now()


def test_more_studies_than_a_batch_of_candidates(data: Path) -> None:
    count = 300
    with living(settings_of(data)) as life:
        life.send(*(make_object(n, 1, 1, StudyDate=f"2020{1 + n % 12:02}{1 + n % 28:02}") for n in range(count)))
        pending = found(life, "study")
        life.packer.pack_now()
        assert found(life, "study") == pending
        assert len(set(pending)) == len(pending) == count
        dates = [value(row, "00080020") for row in search(life, "study").rows]
        assert dates == sorted(dates, reverse=True)


def test_paging_is_stable_and_complete_while_packing_runs(data: Path) -> None:
    sent = [make_object(n, 1 + n % 2, i, StudyDate=f"202001{1 + n % 28:02}") for n in range(40) for i in (1, 2)]
    with living(settings_of(data, packer={"quiet_seconds": 0})) as life:
        life.send(*sent)
        whole = {level: found(life, level) for level in ("study", "series", "instance")}
        stop = threading.Event()
        threads = [threading.Thread(target=run, args=(stop,)) for run in packing_bit_by_bit(life)]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for level, uids in whole.items():
                    rows = [row for offset in range(0, len(uids) + 7, 7) for row in search(life, level, limit=7, offset=offset).rows]  # type: ignore[arg-type]
                    assert [row[UID[level]]["Value"][0] for row in rows] == uids
                    if level != "instance":
                        assert {value(row, "00201208" if level == "study" else "00201209") for row in rows} == {2}
        finally:
            stop.set()
            for thread in threads:
                thread.join(30)
        assert life.home.waiting() == (0, 0)
        assert found(life, "instance") == whole["instance"]


def packing_bit_by_bit(life: Life) -> Iterator[Any]:
    """One study after the other, each pack a moment of its own."""

    def run(stop: threading.Event) -> None:
        with life.home.index.pending.environment.reading() as t:
            keys = [state.key for state in life.home.index.pending.states(t)]
        for key in keys:
            if not stop.is_set():
                life.packer._pack([key], stop)

    yield run


@pytest.mark.parametrize("packed", [False, True])
def test_a_modality_without_a_value_beside_another_hides_nothing(life: Life, packed: bool) -> None:
    life.send(make_object(1, 1, 1, Modality="\\CT"), make_object(1, 2, 1, Modality="MR\\"), make_object(2, 1, 1))
    if packed:
        life.packer.pack_now()
    assert sorted(found(life, "study")) == ["1.2.1", "1.2.2"]
    [row] = search(life, "study", StudyInstanceUID="1.2.1").rows
    assert row["00080061"]["Value"] == ["CT", "MR"]
    assert found(life, "study", ModalitiesInStudy="None") == []


@pytest.mark.parametrize("date", ["\\20200101", "2020.01.31 .", "abcdefghijklmno pqr", "20200101^", "２０２０"])
def test_a_study_whose_date_is_none_is_listed_all_the_same(life: Life, date: str) -> None:
    life.send(make_object(1, 1, 1, StudyDate=date), make_object(2, 1, 1))
    assert sorted(found(life, "study")) == ["1.2.1", "1.2.2"]
    life.packer.pack_now()
    assert sorted(found(life, "study")) == ["1.2.1", "1.2.2"]


@pytest.mark.parametrize("packed", [False, True])
def test_a_value_is_no_beginning(life: Life, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """Of those whose ID begins with the one that is asked for none is looked at."""
    life.send(*(make_object(n, 1, 1, PatientID=str(n), AccessionNumber=f"A{n}") for n in range(1, 31)))
    if packed:
        life.packer.pack_now()
    looked: list[str] = []
    study = Search._study
    monkeypatch.setattr(Search, "_study", lambda self, uid: looked.append(uid) or study(self, uid))  # type: ignore[func-returns-value]
    for keys in ({"PatientID": "3"}, {"AccessionNumber": "A3"}):
        looked.clear()
        assert found(life, "study", **keys) == ["1.2.3"]
        assert looked == ["1.2.3"] or not packed
    assert found(life, "study", PatientID="3*") == ["1.2.30", "1.2.3"]


def test_the_studies_of_a_patient_are_counted_once(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    life.send(*(make_object(n, 1, 1, PatientID="", PatientName="ANONYMOUS") for n in range(1, 21)))
    life.packer.pack_now()
    counted = 0
    of_patient = Search._studies_of_patient

    def count(self: Search, row: dict[str, Any]) -> Iterator[dict[str, Any]]:
        nonlocal counted
        counted += 1
        return of_patient(self, row)

    monkeypatch.setattr(Search, "_studies_of_patient", count)
    rows = list(Search(life.home).rows(Query("patient", {}, frozenset(["00201200"]), 0, 0)))
    assert [value(row, "00201200") for row in rows] == [20]
    assert counted == 1


def test_terms_that_leave_nearly_all_are_no_help(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then all are looked at by date, so that answers come at once and a cancel is seen."""
    monkeypatch.setattr(candidates, "CHOSEN_MIN", 5)
    life.send(*(make_object(n, 1, 1, PatientName=f"N{n}", StudyDate=f"202001{n:02}") for n in range(1, 31)))
    life.packer.pack_now()
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        ticks += 1

    rows = Search(life.home).rows(Query("study", {("00100010",): "N*"}, ALL, 0, 0), tick)
    assert value(next(rows), UID["study"]) == "1.2.30" and ticks <= 3
    assert len(list(rows)) == 29
    assert found(life, "study", PatientName="N*", StudyDate="20200105-20200107") == ["1.2.7", "1.2.6", "1.2.5"]
    assert found(life, "study", PatientName="N2*", StudyDate="-20200120") == ["1.2.20", "1.2.2"]
    assert found(life, "study", StudyDate="20200129-") == ["1.2.30", "1.2.29"]
    assert found(life, "study", PatientID="P1", PatientName="N1") == found(life, "study", PatientName="N1")
