"""C-GET: objects come back on the association that asks for them, as far as its contexts take them."""

import time
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.filereader import read_dataset
from pynetdicom import AE, build_role, evt

from tests.dimse.archives import EXPLICIT, IMPLICIT, STUDY_GET, Archive, archive_of, counts, identifier
from tests.kit import data_set_bytes, make_series

BIG, JPEG_2000 = "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.4.90"
CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
PATIENT_GET, COMPOSITE_GET = "1.2.840.10008.5.1.4.1.2.1.3", "1.2.840.10008.5.1.4.1.2.4.3"


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with archive_of(tmp_path / "data", {}) as one:
        yield one


@pytest.fixture
def series(archive: Archive) -> list[pydicom.Dataset]:
    made = make_series(10, PatientID="P1")
    archive.keep(*made)
    return made


class Getter:
    """An SCU of C-GET that takes CT objects in these transfer syntaxes."""

    def __init__(
        self,
        port: int,
        syntaxes: Sequence[str | list[str]] = (EXPLICIT,),
        sop_class: str = CT,
        model: str = STUDY_GET,
        with_role: bool = True,
    ) -> None:
        self.arrived: dict[str, tuple[str, bytes]] = {}
        self.answer: Callable[[int], int] = lambda n: 0x0000
        self.model = model
        ae = AE("GETTER")
        ae.dimse_timeout = 3
        ae.add_requested_context(model)
        for syntax in syntaxes:
            ae.add_requested_context(sop_class, syntax)
        roles: Any = [build_role(sop_class, scp_role=True)] if with_role else []
        self.association = ae.associate("127.0.0.1", port, ext_neg=roles, evt_handlers=[(evt.EVT_C_STORE, self.on_store)])
        assert self.association.is_established

    def on_store(self, event: Any) -> int:
        request = event.request
        self.arrived[str(request.AffectedSOPInstanceUID)] = str(event.context.transfer_syntax), request.DataSet.getvalue()
        return self.answer(len(self.arrived) - 1)

    def get(self, query: pydicom.Dataset) -> list[tuple[pydicom.Dataset, Any]]:
        responses = list(self.association.send_c_get(query, self.model))
        self.association.release()
        return responses


def study(series: list[pydicom.Dataset]) -> pydicom.Dataset:
    return identifier("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)


@pytest.mark.parametrize("packed", [False, True], ids=["journal", "packed"])
def test_every_instance_arrives_as_it_was_stored(archive: Archive, series: list[pydicom.Dataset], packed: bool) -> None:
    if packed:
        archive.pack()
    getter = Getter(archive.port)
    responses = getter.get(study(series))
    assert getter.arrived == {one.SOPInstanceUID: (EXPLICIT, data_set_bytes(one)) for one in series}
    final = responses[-1][0]
    assert (final.Status, counts(final)) == (0x0000, (None, 10, 0, 0))
    for pending, _ in responses[:-1]:
        remaining, completed, *_ = counts(pending)
        assert pending.Status == 0xFF00 and remaining is not None and remaining + completed == 10
    assert len(responses) > 1


@pytest.mark.parametrize(
    ("model", "query", "expected"),
    [
        (PATIENT_GET, lambda one: identifier("PATIENT", PatientID="P1"), 10),
        (STUDY_GET, lambda one: identifier("SERIES", StudyInstanceUID=one.StudyInstanceUID, SeriesInstanceUID=one.SeriesInstanceUID), 10),
        (STUDY_GET, lambda one: identifier("IMAGE", SOPInstanceUID=one.SOPInstanceUID), 1),
        (COMPOSITE_GET, lambda one: identifier("IMAGE", SOPInstanceUID=one.SOPInstanceUID), 1),
        # Only the unique keys of the model count.
        (STUDY_GET, lambda one: identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID, PatientID="OTHER"), 10),
        (STUDY_GET, lambda one: identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID, PatientID="P*"), 10),
        (COMPOSITE_GET, lambda one: identifier("IMAGE", SOPInstanceUID=one.SOPInstanceUID, PatientID="OTHER"), 1),
        (PATIENT_GET, lambda one: identifier("STUDY", StudyInstanceUID=one.StudyInstanceUID, PatientID="OTHER"), 0),
    ],
)
def test_levels(archive: Archive, series: list[pydicom.Dataset], model: str, query: Any, expected: int) -> None:
    getter = Getter(archive.port, model=model)
    [*_, (final, _)] = getter.get(query(series[3]))
    assert (final.Status, counts(final), len(getter.arrived)) == (0x0000, (None, expected, 0, 0), expected)


def test_another_transfer_syntax(archive: Archive, series: list[pydicom.Dataset]) -> None:
    getter = Getter(archive.port, [IMPLICIT])
    [*_, (final, _)] = getter.get(study(series))
    assert final.Status == 0x0000
    for one in series:
        syntax, data = getter.arrived[one.SOPInstanceUID]
        assert syntax == IMPLICIT and read_dataset(BytesIO(data), True, True) == one


@pytest.mark.parametrize("proposed", [[JPEG_2000, BIG, IMPLICIT, EXPLICIT], [JPEG_2000, BIG]], ids=["implicit", "compressed"])
def test_one_context_with_several_transfer_syntaxes(archive: Archive, series: list[pydicom.Dataset], proposed: list[str]) -> None:
    getter = Getter(archive.port, [proposed])
    [*_, (final, _)] = getter.get(study(series))
    if IMPLICIT in proposed:
        assert counts(final) == (None, 10, 0, 0) and {syntax for syntax, _ in getter.arrived.values()} == {IMPLICIT}
    else:
        assert (final.Status, counts(final)) == (0xA702, (None, 0, 10, 0)), "nothing is compressed here"


@pytest.mark.parametrize("options", [{"sop_class": MR}, {"with_role": False}], ids=["another class", "no role of SCP"])
def test_what_no_context_takes_fails(archive: Archive, series: list[pydicom.Dataset], options: dict[str, Any]) -> None:
    getter = Getter(archive.port, **options)
    responses = getter.get(study(series))
    final, failed = responses[-1]
    assert (final.Status, counts(final), getter.arrived) == (0xA702, (None, 0, 10, 0), {})
    assert set(failed.FailedSOPInstanceUIDList) == {one.SOPInstanceUID for one in series}
    assert "no presentation context" in final.ErrorComment


def test_failures_and_warnings_of_the_receiver(archive: Archive, series: list[pydicom.Dataset]) -> None:
    getter = Getter(archive.port)
    getter.answer = lambda n: {0: 0xA700, 1: 0xB000}.get(n, 0)
    responses = getter.get(study(series))
    final, failed = responses[-1]
    assert (final.Status, counts(final)) == (0xB000, (None, 8, 1, 1))
    assert failed.FailedSOPInstanceUIDList == next(iter(getter.arrived))


def test_cancel(archive: Archive, series: list[pydicom.Dataset]) -> None:
    getter = Getter(archive.port)

    def answer(n: int) -> int:
        if n == 2:
            getter.association.send_c_cancel(5, query_model=STUDY_GET)
        time.sleep(0.05)
        return 0x0000

    getter.answer = answer
    responses = list(getter.association.send_c_get(study(series), STUDY_GET, msg_id=5))
    final = responses[-1][0]
    remaining, completed, failed, warned = counts(final)
    assert final.Status == 0xFE00 and remaining and (failed, warned) == (0, 0)
    assert remaining + completed == 10 and completed == len(getter.arrived)
    [*_, (again, _)] = getter.association.send_c_get(study(series), STUDY_GET, msg_id=6)
    assert (again.Status, counts(again)[1]) == (0x0000, 10), "the association is usable after a cancel"
    getter.association.release()


@pytest.mark.parametrize(("query", "status"), [(identifier("STUDY"), 0xA900), (identifier("STUDY", StudyInstanceUID="1.2"), 0x0000)])
def test_nothing_to_send(archive: Archive, query: pydicom.Dataset, status: int) -> None:
    [(final, _)] = Getter(archive.port).get(query)
    assert final.Status == status


def test_a_receiver_that_goes_costs_nobody_else_anything(archive: Archive, series: list[pydicom.Dataset]) -> None:
    getter = Getter(archive.port)
    getter.answer = lambda n: getter.association.abort() or 0  # type: ignore[func-returns-value]
    list(getter.association.send_c_get(study(series), STUDY_GET))
    other = Getter(archive.port)
    [*_, (final, _)] = other.get(study(series))
    assert counts(final)[1] == 10
