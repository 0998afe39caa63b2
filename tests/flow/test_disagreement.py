"""`verify` names studies whose instances do not agree about study or patient, and calls nothing damaged for it."""

from pathlib import Path

import pytest

from archive.flow import disagreement
from archive.flow.check import verify
from archive.flow.recovery import rebuild_index, recover
from tests.flow.compacting import allowed, compact, delete
from tests.flow.objects import Object, living, make_object

ONE, TWO = make_object(1, 1, 1), make_object(1, 1, 2)
OF_ANOTHER = make_object(1, 1, 3, PatientID="P7", PatientName="OTHER^PATIENT")
ELSEWHERE = make_object(1, 2, 1, PatientID="P8", StudyDate="20210101")
OTHER_STUDY = make_object(2, 1, 1)


def found(data: Path) -> list[tuple[str, str, str]]:
    return [(finding.severity, finding.item, finding.detail) for finding in verify(allowed(data))]


@pytest.mark.parametrize("packed", [0, 2, 5])
def test_what_is_said_otherwise_is_named(data: Path, packed: int) -> None:
    """All of it in the journal, in both, in packs."""
    settings, objects = allowed(data), [ONE, TWO, OF_ANOTHER, ELSEWHERE, OTHER_STUDY]
    recover(settings)
    with living(settings) as life:
        life.send(*objects[:packed])
        life.packer.pack_now()
        life.send(*objects[packed:])
    for again in (None, rebuild_index):
        if again:
            again(settings)
        ((severity, item, detail),) = found(data)
        assert (severity, item) == ("disagreement", "study 1.2.1")
        told, end = detail.split(": ")
        assert end == "one instance is named for each value"
        names = [part.split(" (")[0] for part in told.removeprefix("its instances do not agree about ").split("), ")]
        assert names == ["PatientName", "PatientID", "StudyDate"]
        for uid in (ONE, OF_ANOTHER, ELSEWHERE):
            assert uid.sop_instance_uid in told
        assert "P7" not in detail and "OTHER" not in detail
    for deleted, left in ((OF_ANOTHER, ["PatientID"]), (ELSEWHERE, [])):
        with living(settings) as life:
            delete(life, deleted.sop_instance_uid)
        assert [text.removeprefix("its instances do not agree about ").split()[0] for _, _, text in found(data)] == left


@pytest.mark.parametrize(
    "other",
    [
        make_object(1, 1, 3, PatientName="", StudyDate=""),
        make_object(1, 1, 3, PatientName="PATIENT^1^^^"),
        make_object(1, 1, 3, PatientName="PATIENT^1="),
        make_object(1, 2, 3, SeriesDescription="of a series alone", SeriesDate="20210101"),
    ],
    ids=["says nothing", "empty components", "an empty group", "series level"],
)
def test_what_agrees(data: Path, other: Object) -> None:
    settings = allowed(data)
    recover(settings)
    with living(settings) as life:
        life.send(ONE, other)
    assert found(data) == []
    with living(settings) as life:
        life.packer.pack_now()
    assert found(data) == []


def test_many_values_make_one_short_line(data: Path) -> None:
    settings = allowed(data)
    recover(settings)
    with living(settings) as life:
        for number in range(1, 8):
            life.send(make_object(1, 1 + number % 3, number, StudyDescription=f"text {number}"))
            life.packer.pack_now()
        compact(life)
    ((_, _, detail),) = found(data)
    assert " and 4 more)" in detail and detail.count("1.2.1.") == 3


@pytest.mark.parametrize("at_once", [1, 2, 3, 256])
def test_every_study_is_looked_at_once(data: Path, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    """However many of the packed ones are taken together; some wait in the journal, one in both."""
    monkeypatch.setattr(disagreement, "STUDIES_AT_ONCE", at_once)
    settings = allowed(data)
    recover(settings)
    with living(settings) as life:
        life.send(*[make_object(study, 1, 1, PatientID=f"P{study}") for study in range(1, 7)])
        life.packer.pack_now()
        life.send(*[make_object(study, 1, 2, PatientID="OTHER") for study in range(1, 7, 2)], make_object(8, 1, 1), ELSEWHERE)
        found = [study for study, _ in disagreement.disagreements(life.home.index)]
    assert sorted(found) == ["1.2.1", "1.2.3", "1.2.5"]
