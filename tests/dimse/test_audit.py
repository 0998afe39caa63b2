"""What the audit log is told of operations: as the peer was told, by study, with the destination; also where nothing was found or sent."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import UID, generate_uid
from pynetdicom import AE, build_role
from pynetdicom.dsutils import encode

from archive.config import DimseSection
from archive.dimse.command import encode_command
from archive.dimse.find import Find
from tests.dimse.archives import STUDY_GET, STUDY_MOVE, Archive, archive_of, identifier, move, receiving
from tests.dimse.conftest import Served
from tests.dimse.peer import ABORT, EXPLICIT, Peer, c_store_rq, p_data, pdv
from tests.dimse.test_find import Rows, answers, associated
from tests.dimse.test_find import identifier as encoded_identifier
from tests.kit import Noted, free_port, make_series

Told = tuple[str, str, str, str, str, int]
PUSH_MODEL = UID("1.2.840.10008.1.20.1")


def told(noted: Noted, count: int = 1) -> set[Told]:
    """Action, study, outcome, status, destination and instances of each event."""
    deadline = time.monotonic() + 20
    while len(noted.events) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    return {(one.action, one.study_instance_uid, one.outcome, one.status, one.destination, n) for one, n in noted.events}


@pytest.fixture
def sink() -> int:
    return free_port()


@pytest.fixture
def archive(tmp_path: Path, sink: int) -> Iterator[Archive]:
    with archive_of(tmp_path / "data", {"SINK": f"127.0.0.1:{sink}"}) as one:
        yield one


def of(*series: list[pydicom.Dataset]) -> pydicom.Dataset:
    return identifier("STUDY", StudyInstanceUID="\\".join(str(one[0].StudyInstanceUID) for one in series))


def test_a_retrieval_that_finds_nothing(archive: Archive) -> None:
    move(archive.port, identifier("STUDY", StudyInstanceUID="1.2.3.4"))
    assert told(archive.noted) == {("C-MOVE", "1.2.3.4", "success", "0x0000", "SINK", 0)}


def test_a_retrieval_that_is_refused_names_its_destination(archive: Archive) -> None:
    move(archive.port, identifier("STUDY", StudyInstanceUID="1.2.3.4"), "STRANGER")
    assert told(archive.noted) == {("C-MOVE", "", "failure", "0xA801", "STRANGER", 0)}


def test_a_retrieval_in_part_is_told_as_the_peer_was_told(archive: Archive, sink: int) -> None:
    series = make_series(12)
    archive.keep(*series)
    with receiving(port=sink) as receiver:
        receiver.answer = lambda n, event: {1: 0xA700, 4: 0x0122}.get(n, 0)
        move(archive.port, of(series))
    study = str(series[0].StudyInstanceUID)
    assert told(archive.noted, 2) == {
        ("C-MOVE", study, "warning", "0xB000", "SINK", 10),
        ("C-MOVE", study, "failure", "0xB000", "SINK", 2),
    }


def slow(n: int, event: Any) -> int:
    time.sleep(0.1)
    return 0x0000


@pytest.mark.parametrize(("how", "status"), [("cancels", "0xFE00"), ("aborts", "aborted")])
def test_a_retrieval_that_the_peer_ends(archive: Archive, sink: int, how: str, status: str) -> None:
    series = make_series(40)
    archive.keep(*series)
    with receiving(port=sink) as receiver:
        receiver.answer = slow
        ae = AE("MOVER")
        ae.add_requested_context(STUDY_MOVE)
        association = ae.associate("127.0.0.1", archive.port)
        responses = association.send_c_move(of(series), "SINK", UID(STUDY_MOVE), msg_id=7)
        for _ in range(3):
            next(responses)  # So that something came across.
        if how == "cancels":
            association.send_c_cancel(7, query_model=UID(STUDY_MOVE))
            list(responses)
            association.release()
        else:
            association.abort()
        [(_, study, _, answered, destination, instances)] = [one for one in told(archive.noted) if one[2] == "cancelled"]
    assert (study, answered, destination) == (str(series[0].StudyInstanceUID), status, "SINK")
    assert 0 < instances < 40


def test_c_get(archive: Archive) -> None:
    ct = make_series(2)
    archive.keep(*ct)
    ae = AE("GETTER")
    ae.add_requested_context(STUDY_GET)
    ae.add_requested_context(ct[0].SOPClassUID)
    roles: Any = [build_role(ct[0].SOPClassUID, scp_role=True)]
    association = ae.associate("127.0.0.1", archive.port, ext_neg=roles)
    list(association.send_c_get(of(ct), UID(STUDY_GET)))  # Nobody handles what comes: each is answered with a failure.
    list(association.send_c_get(identifier("STUDY", StudyInstanceUID="1.2.3.4"), UID(STUDY_GET)))
    association.release()
    assert told(archive.noted, 2) == {
        ("C-GET", str(ct[0].StudyInstanceUID), "failure", "0xA702", "", 2),
        ("C-GET", "1.2.3.4", "success", "0x0000", "", 0),
    }


@pytest.mark.parametrize(("key", "study"), [("1.2", "1.2"), ("JOHN DOE", ""), ("1.2.*", ""), (["1.2", "1.3"], "")])
def test_a_query_names_a_uid_or_nothing(serve: Callable[..., Served], key: Any, study: str) -> None:
    served = serve(services=[Find(Rows(), DimseSection())])
    with Peer(served.port) as peer, pydicom.config.disable_value_validation():
        _, status, _ = answers(associated(peer), encoded_identifier(StudyInstanceUID=key))
    [(action, named, _, answered, _, _)] = told(served.noted)
    assert (action, named, answered) == ("C-FIND", study, f"0x{status:04X}")


def test_an_object_that_breaks_off(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq("1.2.3"))), p_data(pdv(3, 0, bytes(300))), ABORT)
        assert told(served.noted) == {("C-STORE", "", "cancelled", "aborted", "", 1)}


def test_a_request_for_commitment(archive: Archive) -> None:
    item, information = pydicom.Dataset(), pydicom.Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", "1.2.3"
    information.TransactionUID, information.ReferencedSOPSequence = generate_uid(), [item]
    data = encode(information, is_implicit_vr=False, is_little_endian=True)
    assert data
    instance = "1.2.840.10008.1.20.1.1"
    for action, status in ((1, 0x0000), (2, 0x0123)):
        command: dict[int, int | bytes] = {
            0x0003: str(PUSH_MODEL).encode(),
            0x0100: 0x0130,
            0x0110: 7,
            0x0800: 1,
            0x1001: instance.encode(),
            0x1008: action,
        }
        with Peer(archive.port) as peer:
            peer.associate(contexts=((1, PUSH_MODEL, [EXPLICIT]),), calling="SINK")
            assert peer.send(p_data(pdv(1, 3, encode_command(command))), p_data(pdv(1, 2, data))).status() == status
    assert told(archive.noted, 2) == {
        ("N-ACTION", "", "success", "0x0000", "", 1),
        ("N-ACTION", "", "failure", "0x0123", "", 0),
    }
