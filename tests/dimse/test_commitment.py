"""Storage Commitment with pynetdicom as the requestor: on its association, on a new one, refused, late, after a restart."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, evt

from archive.dicom.commitment import Reference
from archive.dimse import reporting
from archive.dimse.command import Command
from archive.dimse.pdu import AssociationEnded
from archive.flow.commitment_requests import CommitmentRequests, requests_folder
from tests.dimse.archives import Archive, archive_of
from tests.kit import free_port, make_series

PUSH_MODEL, INSTANCE = UID("1.2.840.10008.1.20.1"), UID("1.2.840.10008.1.20.1.1")


@dataclass
class Modality:
    """Asks, and hears reports.

    Attributes
    ----------
    answer : int
        Status of the answer to a report.
    """

    port: int
    reports: list[tuple[int, pydicom.Dataset]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    answer: int = 0x0000
    answer_seconds: float = 0.0
    tries: int = 0

    def on_report(self, event: Any) -> tuple[int, None]:
        self.tries += 1
        if self.answer == 0x0000:
            self.reports.append((event.event_type, event.event_information))
            self.arrived.set()
        if self.answer_seconds:  # Else nobody shall come in between who sees that a report arrived.
            time.sleep(self.answer_seconds)
        return self.answer, None

    @property
    def handlers(self) -> Any:
        return [(evt.EVT_N_EVENT_REPORT, self.on_report)]

    @contextmanager
    def listening(self) -> Iterator[None]:
        ae = AE("MODALITY")
        ae.add_supported_context(PUSH_MODEL, scu_role=False, scp_role=True)
        server = ae.start_server(("127.0.0.1", self.port), block=False, evt_handlers=self.handlers)
        assert server is not None
        try:
            yield
        finally:
            server.shutdown()

    def associate(self, archive: Archive, title: str = "MODALITY") -> Any:
        ae = AE(title)
        ae.add_requested_context(PUSH_MODEL)
        association = ae.associate("127.0.0.1", archive.port, evt_handlers=self.handlers)
        assert association.is_established
        return association

    def ask(self, association: Any, data_sets: list[pydicom.Dataset], transaction: str = "", **changes: Any) -> int:
        """Status of the N-ACTION."""
        information = pydicom.Dataset()
        information.TransactionUID = transaction or generate_uid()
        information.ReferencedSOPSequence = []
        for one in data_sets:
            item = pydicom.Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = one.SOPClassUID, one.SOPInstanceUID
            information.ReferencedSOPSequence.append(item)
        arguments = {"action_type": 1, "class_uid": PUSH_MODEL, "instance_uid": INSTANCE, **changes}
        status, _ = association.send_n_action(information, **arguments)
        return int(status.Status)

    def told(self) -> tuple[int, set[str], dict[str, int]]:
        """Event type, what is committed, and what failed and why, of the only report."""
        assert self.arrived.wait(15), "no report came"
        [(kind, report)] = self.reports
        failed = {str(i.ReferencedSOPInstanceUID): int(i.FailureReason) for i in report.get("FailedSOPSequence", [])}
        return kind, {str(i.ReferencedSOPInstanceUID) for i in report.get("ReferencedSOPSequence", [])}, failed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reporting, "FIRST_RETRY_SECONDS", 0.3)
    monkeypatch.setattr(reporting, "TAKE_SECONDS", 0.5)


@pytest.fixture
def modality() -> Modality:
    return Modality(free_port())


@pytest.fixture
def archive(tmp_path: Path, modality: Modality) -> Iterator[Archive]:
    with archive_of(tmp_path / "data", {"MODALITY": f"127.0.0.1:{modality.port}"}) as one:
        yield one


def uids(series: list[pydicom.Dataset]) -> set[str]:
    return {str(one.SOPInstanceUID) for one in series}


def settled(archive: Archive) -> bool:
    deadline = time.monotonic() + 5
    while archive.requests.names() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not archive.requests.names()


def test_on_the_same_association(archive: Archive, modality: Modality) -> None:
    series, unknown = make_series(3), make_series(1)
    archive.keep(*series)
    association = modality.associate(archive)
    assert modality.ask(association, series + unknown) == 0x0000
    assert not modality.arrived.wait(0.7), "what is not packed is not committed"
    archive.pack()
    assert modality.told() == (2, uids(series), {unknown[0].SOPInstanceUID: 0x0112})
    assert settled(archive)
    assert association.is_established
    assert modality.ask(association, series) == 0x0000, "the association is usable after a report"
    association.release()


def test_all_committed_and_a_class_that_is_another(archive: Archive, modality: Modality) -> None:
    series = make_series(2)
    archive.keep(*series)
    archive.pack()
    association = modality.associate(archive)
    assert modality.ask(association, series) == 0x0000
    assert modality.told() == (1, uids(series), {})
    modality.reports.clear()
    modality.arrived.clear()
    series[0].SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.4")
    assert modality.ask(association, series) == 0x0000
    assert modality.told() == (2, {series[1].SOPInstanceUID}, {series[0].SOPInstanceUID: 0x0119})
    association.release()


def test_on_a_new_association(archive: Archive, modality: Modality) -> None:
    series = make_series(2)
    archive.keep(*series)
    with modality.listening():
        association = modality.associate(archive)
        assert modality.ask(association, series) == 0x0000
        association.release()
        archive.pack()
        assert modality.told() == (1, uids(series), {})
        assert settled(archive)


def test_a_requestor_that_is_not_there_is_tried_again(archive: Archive, modality: Modality) -> None:
    series = make_series(2)
    archive.keep(*series)
    archive.pack()
    association = modality.associate(archive)
    assert modality.ask(association, series) == 0x0000
    association.abort()
    modality.arrived.wait(0.5)
    modality.reports.clear()
    modality.arrived.clear()
    if not archive.requests.names():
        return  # It was told on the association before the abort came.
    with modality.listening():
        assert modality.told() == (1, uids(series), {})
    assert settled(archive)


def test_a_report_that_is_refused_is_sent_again(archive: Archive, modality: Modality) -> None:
    series = make_series(1)
    archive.keep(*series)
    archive.pack()
    modality.answer = 0x0110
    with modality.listening():
        association = modality.associate(archive)
        assert modality.ask(association, series) == 0x0000
        deadline = time.monotonic() + 10
        while modality.tries < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert archive.requests.names()
        modality.answer = 0x0000
        assert modality.told() == (1, uids(series), {})
        association.release()
    assert settled(archive)


def test_a_request_survives_its_process(tmp_path: Path, modality: Modality) -> None:
    series = make_series(2)
    peers = {"MODALITY": f"127.0.0.1:{modality.port}"}
    with archive_of(tmp_path / "data", peers) as archive:
        archive.keep(*series)
        association = modality.associate(archive)
        assert modality.ask(association, series) == 0x0000
        association.release()
    assert len(list((tmp_path / "data" / "commitment").glob("*.json"))) == 1
    with modality.listening(), archive_of(tmp_path / "data", peers) as archive:
        archive.pack()
        assert modality.told() == (1, uids(series), {})
        assert settled(archive)


def test_a_requestor_without_an_address_is_given_up(tmp_path: Path, modality: Modality, caplog: pytest.LogCaptureFixture) -> None:
    with archive_of(tmp_path / "data", {}, commitment={"age_seconds_max": 1.0}) as archive:
        series = make_series(1)
        archive.keep(*series)
        association = modality.associate(archive, "STRANGER")
        assert modality.ask(association, series) == 0x0000
        association.release()
        archive.pack()
        assert settled(archive)
    assert "STRANGER has no host" in caplog.text and "given up" in caplog.text


@pytest.mark.parametrize(
    ("changes", "status"),
    [({"action_type": 2}, 0x0123), ({"instance_uid": UID("1.2.3")}, 0x0112), ({"data_sets": []}, 0x0115)],
)
def test_requests_that_make_no_sense(archive: Archive, modality: Modality, changes: dict[str, Any], status: int) -> None:
    association = modality.associate(archive)
    assert modality.ask(association, **{"data_sets": make_series(1), **changes}) == status
    assert archive.requests.names() == []
    association.release()


def test_an_answer_that_comes_too_late_is_passed_by(tmp_path: Path, modality: Modality, caplog: pytest.LogCaptureFixture) -> None:
    """Its association may be in the middle of something else by then, and goes on."""
    modality.answer_seconds = 1.5
    with archive_of(tmp_path / "data", {"MODALITY": {}}, {"age_seconds_max": 1}, answer_seconds_max=1) as archive, caplog.at_level("INFO"):
        series = make_series(1)
        archive.keep(*series)
        archive.pack()
        association = modality.associate(archive)
        assert modality.ask(association, series) == 0x0000
        assert modality.arrived.wait(5)
        deadline = time.monotonic() + 5
        while "is answered too late" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.05)
        assert "is answered too late" in caplog.text
        modality.answer_seconds = 0
        modality.arrived.clear()
        assert association.is_established and modality.ask(association, series) == 0x0000
        assert modality.arrived.wait(5) and settled(archive)
        association.release()


def test_the_same_transaction_again(archive: Archive, modality: Modality) -> None:
    series = make_series(2)
    archive.keep(*series)
    association = modality.associate(archive)
    assert modality.ask(association, series, "1.2.3.4") == 0x0000
    assert modality.ask(association, series, "1.2.3.4") == 0x0000
    assert modality.ask(association, series[:1], "1.2.3.4") == 0x0115
    archive.pack()
    assert modality.told() == (1, uids(series), {})
    association.release()


def test_who_asks_again_is_told_where_it_asked_last(tmp_path: Path, modality: Modality) -> None:
    """A requestor without an address, whose first association was over before the report."""
    series = make_series(2)
    with archive_of(tmp_path / "data", {}) as archive:
        archive.keep(*series)
        first = modality.associate(archive, "STRANGER")
        assert modality.ask(first, series, "1.2.3.4") == 0x0000
        first.release()
        assert not modality.arrived.wait(1.0)
        again = modality.associate(archive, "STRANGER")
        assert modality.ask(again, series, "1.2.3.4") == 0x0000
        archive.pack()
        assert modality.told() == (1, uids(series), {})
        assert settled(archive)
        again.release()


def test_a_former_holder_lets_go(tmp_path: Path, modality: Modality) -> None:
    """It was asked again of another process."""
    series = make_series(1)
    with archive_of(tmp_path / "data", {}) as archive:
        archive.keep(*series)
        association = modality.associate(archive, "STRANGER")
        assert modality.ask(association, series, "1.2.3.4") == 0x0000
        other = CommitmentRequests(requests_folder(archive.home.settings))
        held = other.keep("STRANGER", "1.2.3.4", [Reference(one.SOPClassUID, one.SOPInstanceUID) for one in series])
        archive.pack()
        assert not modality.arrived.wait(2.0)
        assert other.is_current(held)
        other.release(held)
        assert not settled(archive), "whoever takes it has no association to tell it on"
        association.release()


def test_a_request_whose_answer_is_not_taken_is_answered(archive: Archive, modality: Modality, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: Any, **__: Any) -> bytes:
        raise AssociationEnded("it hung up")

    series = make_series(1)
    archive.keep(*series)
    archive.pack()
    association = modality.associate(archive)
    with monkeypatch.context() as patch, pytest.raises(AttributeError):
        patch.setattr(Command, "respond", ended)
        modality.ask(association, series)
    with modality.listening():
        assert modality.told() == (1, uids(series), {})
    assert settled(archive)
