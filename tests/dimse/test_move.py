"""C-MOVE to receivers that take everything, little, or nothing; that answer, refuse, abort or hang."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.filereader import read_dataset
from pynetdicom import AE

from archive.dimse import retrieval
from archive.dimse.transfer import batches_of
from archive.index.located import Located
from tests.dimse.archives import (
    EXPLICIT,
    IMPLICIT,
    STUDY_MOVE,
    Archive,
    archive_of,
    counts,
    identifier,
    move,
    receiving,
)
from tests.dimse.peer import ABORT, associate_ac
from tests.kit import data_set_bytes, free_port, make_series

PATIENT_MOVE, COMPOSITE_MOVE = "1.2.840.10008.5.1.4.1.2.1.2", "1.2.840.10008.5.1.4.1.2.4.2"


@pytest.fixture
def sink() -> int:
    return free_port()


@pytest.fixture
def archive(tmp_path: Path, sink: int) -> Iterator[Archive]:
    peers = {"SINK": f"127.0.0.1:{sink}", "CALLER": {}, "CLOSED": {"host": "127.0.0.1", "port": sink, "may_be_moved_to": False}}
    with archive_of(tmp_path / "data", peers) as one:
        yield one


@pytest.fixture
def series(archive: Archive) -> list[pydicom.Dataset]:
    made = make_series(12, PatientID="P^1")
    archive.keep(*made)
    return made


def study(series: list[pydicom.Dataset]) -> pydicom.Dataset:
    return identifier("STUDY", StudyInstanceUID=series[0].StudyInstanceUID)


@pytest.mark.parametrize("packed", [False, True], ids=["journal", "packed"])
def test_every_instance_arrives_as_it_was_stored(archive: Archive, series: list[pydicom.Dataset], sink: int, packed: bool) -> None:
    if packed:
        archive.pack()
    with receiving(port=sink) as receiver:
        responses = move(archive.port, study(series))
        sent = {one.SOPInstanceUID: data_set_bytes(one) for one in series}
        assert {uid: data for uid, _, data in receiver.arrived} == sent
        assert {syntax for _, syntax, _ in receiver.arrived} == {EXPLICIT}
        assert len(receiver.arrived) == 12
        assert receiver.originators == {("MOVER", 1)}
    final, failed = responses[-1]
    assert final.Status == 0x0000 and not failed
    assert counts(final) == (None, 12, 0, 0)
    for pending, _ in responses[:-1]:
        remaining, completed, *_ = counts(pending)
        assert pending.Status == 0xFF00 and remaining is not None and remaining + completed == 12


def test_levels_and_lists(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    other = make_series(3, PatientID="P^1")
    archive.keep(*other)
    one = series[0]
    uids = [data_set.SOPInstanceUID for data_set in series]
    above = {"StudyInstanceUID": one.StudyInstanceUID, "SeriesInstanceUID": one.SeriesInstanceUID}
    asked: list[tuple[str, pydicom.Dataset, int]] = [
        (PATIENT_MOVE, identifier("PATIENT", PatientID="P^1"), 15),
        (PATIENT_MOVE, identifier("STUDY", PatientID="P^1", StudyInstanceUID=one.StudyInstanceUID), 12),
        (PATIENT_MOVE, identifier("STUDY", PatientID="another", StudyInstanceUID=one.StudyInstanceUID), 0),
        (STUDY_MOVE, identifier("STUDY", StudyInstanceUID=f"{one.StudyInstanceUID}\\{other[0].StudyInstanceUID}"), 15),
        (STUDY_MOVE, identifier("SERIES", **above), 12),
        (STUDY_MOVE, identifier("SERIES", SeriesInstanceUID=f"{one.SeriesInstanceUID}\\{other[0].SeriesInstanceUID}"), 15),
        (STUDY_MOVE, identifier("IMAGE", **above, SOPInstanceUID="\\".join(uids[:4])), 4),
        (STUDY_MOVE, identifier("IMAGE", StudyInstanceUID=other[0].StudyInstanceUID, SOPInstanceUID=uids[0]), 0),
        (COMPOSITE_MOVE, identifier("IMAGE", SOPInstanceUID="\\".join([*uids[:2], other[0].SOPInstanceUID])), 3),
    ]  # fmt: skip
    for sop_class, query, expected in asked:
        with receiving(port=sink) as receiver:
            [*_, (final, _)] = move(archive.port, query, sop_class=sop_class)
            assert (final.Status, counts(final)) == (0x0000, (None, expected, 0, 0)), query
            assert len({uid for uid, _, _ in receiver.arrived}) == len(receiver.arrived) == expected, query


@pytest.mark.parametrize(
    ("sop_class", "query", "status"),
    [
        (STUDY_MOVE, identifier("STUDY"), 0xA900),
        (STUDY_MOVE, identifier("STUDY", StudyInstanceUID="1.2.*"), 0xA900),
        (STUDY_MOVE, identifier("PATIENT", PatientID="P1"), 0xA900),
        (STUDY_MOVE, identifier("BODY", StudyInstanceUID="1.2"), 0xA900),
        (STUDY_MOVE, identifier("STUDY", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3"), 0xA900),
        (STUDY_MOVE, identifier("SERIES", StudyInstanceUID="1.2\\1.3", SeriesInstanceUID="1.2.3"), 0xA900),
        (PATIENT_MOVE, identifier("PATIENT", PatientID="P*"), 0xA900),
        (COMPOSITE_MOVE, identifier("STUDY", StudyInstanceUID="1.2"), 0xA900),
        (COMPOSITE_MOVE, identifier("FRAME", SOPInstanceUID="1.2"), 0xAA02),
        (STUDY_MOVE, identifier("STUDY", StudyInstanceUID="1.2.3.4.5.6.7"), 0x0000),
    ],
)
def test_what_makes_no_sense_is_refused(archive: Archive, sop_class: str, query: pydicom.Dataset, status: int) -> None:
    [(final, _)] = move(archive.port, query, sop_class=sop_class)
    assert final.Status == status


@pytest.mark.parametrize(("destination", "status"), [("NOBODY", 0xA801), ("CALLER", 0xA801), ("CLOSED", 0x0124)])
def test_destinations_that_are_none(archive: Archive, series: list[pydicom.Dataset], destination: str, status: int) -> None:
    [(final, _)] = move(archive.port, study(series), destination)
    assert final.Status == status and destination in final.ErrorComment


def slowly(seconds: float) -> Callable[[int, Any], int]:
    """An answer of success that takes its time."""

    def answer(n: int, event: Any) -> int:
        time.sleep(seconds)
        return 0x0000

    return answer


def test_a_slow_destination_is_no_silence(
    archive: Archive, series: list[pydicom.Dataset], sink: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retrieval, "AGAIN_SECONDS", 0.2)
    with receiving(port=sink) as receiver:
        receiver.answer = slowly(1.0)
        responses = move(archive.port, identifier("IMAGE", SOPInstanceUID=series[0].SOPInstanceUID))
    assert [one.Status for one, _ in responses[:-1]] == [0xFF00] * (len(responses) - 1)
    assert len(responses) > 4 and {counts(one)[:2] for one, _ in responses[:-1]} <= {(1, 0), (0, 1)}


def failed_uids(responses: list[tuple[pydicom.Dataset, Any]]) -> set[str]:
    listed = responses[-1][1].FailedSOPInstanceUIDList
    return {listed} if isinstance(listed, str) else set(listed)


def all_failed(responses: list[tuple[pydicom.Dataset, Any]], series: list[pydicom.Dataset]) -> str:
    final, _ = responses[-1]
    assert (final.Status, counts(final)) == (0xA702, (None, 0, len(series), 0))
    assert failed_uids(responses) == {one.SOPInstanceUID for one in series}
    return str(final.ErrorComment)


def test_nobody_listens(archive: Archive, series: list[pydicom.Dataset]) -> None:
    assert "cannot connect" in all_failed(move(archive.port, study(series)), series)


@pytest.fixture
def rude(sink: int) -> Iterator[Callable[[Callable[[socket.socket], None]], list[int]]]:
    """A destination that treats each connection as it is told to; counts them."""
    listener = socket.create_server(("127.0.0.1", sink))
    served: list[int] = []

    def begin(treat: Callable[[socket.socket], None]) -> list[int]:
        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                served.append(1)
                with connection:
                    connection.settimeout(10)
                    treat(connection)

        threading.Thread(target=run, daemon=True).start()
        return served

    yield begin
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def accept(connection: socket.socket) -> None:
    """Take the association and the contexts of a CT series as this node proposes them."""
    header = connection.recv(6, socket.MSG_WAITALL)
    connection.recv(int.from_bytes(header[2:], "big"), socket.MSG_WAITALL)
    connection.sendall(associate_ac({1: (0, EXPLICIT), 3: (0, EXPLICIT)}))


def wait_for_the_end(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        pass


def test_a_destination_that_rejects(archive: Archive, series: list[pydicom.Dataset], rude: Any) -> None:
    def reject(connection: socket.socket) -> None:
        connection.recv(6)
        connection.sendall(bytes.fromhex("03 00 00000004 00 01 01 07"))
        wait_for_the_end(connection)

    served = rude(reject)
    assert "called ae title not recognized" in all_failed(move(archive.port, study(series)), series)
    assert len(served) == 1


@pytest.mark.parametrize("word", [ABORT, b"", b"GET / HTTP/1.1\r\n\r\n"], ids=["aborts", "closes", "is no DICOM"])
def test_a_destination_that_does_not_associate(archive: Archive, series: list[pydicom.Dataset], rude: Any, word: bytes) -> None:
    rude(lambda connection: connection.recv(1 << 16) and connection.sendall(word))
    all_failed(move(archive.port, study(series)), series)


def test_a_destination_that_hangs_before_it_associates(archive: Archive, series: list[pydicom.Dataset], rude: Any) -> None:
    rude(wait_for_the_end)
    started = time.monotonic()
    assert "silent" in all_failed(move(archive.port, study(series)), series)
    assert time.monotonic() - started < 6


@pytest.mark.parametrize("word", [ABORT, b"", None], ids=["aborts", "closes", "hangs"])
def test_a_destination_that_takes_no_object(archive: Archive, series: list[pydicom.Dataset], rude: Any, word: bytes | None) -> None:
    def treat(connection: socket.socket) -> None:
        accept(connection)
        if word is None:
            wait_for_the_end(connection)
        else:
            connection.recv(1000)
            connection.sendall(word)

    served = rude(treat)
    started = time.monotonic()
    all_failed(move(archive.port, study(series)), series)
    assert time.monotonic() - started < 8
    assert len(served) <= 4, "it is not tried for every instance"


def test_a_destination_that_aborts_now_and_then_gets_the_rest(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    def answer(n: int, event: Any) -> int:
        if n in (2, 7):
            event.assoc.abort()
        return 0x0000

    with receiving(port=sink) as receiver:
        receiver.answer = answer
        responses = move(archive.port, study(series))
        assert receiver.associations >= 2
    final, _ = responses[-1]
    assert (final.Status, counts(final)) == (0xB000, (None, 10, 2, 0))
    assert failed_uids(responses) == {receiver.arrived[n][0] for n in (2, 7)}


def test_failures_and_warnings_of_the_destination(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    with receiving(port=sink) as receiver:
        receiver.answer = lambda n, event: {1: 0xA700, 2: 0xB000, 3: 0xB007, 4: 0x0122}.get(n, 0)
        responses = move(archive.port, study(series))
    final, _ = responses[-1]
    assert (final.Status, counts(final)) == (0xB000, (None, 8, 2, 2))
    assert failed_uids(responses) == {receiver.arrived[n][0] for n in (1, 4)}
    assert "0xA700" in final.ErrorComment or "0x0122" in final.ErrorComment


def test_warnings_alone_are_a_warning(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    with receiving(port=sink) as receiver:
        receiver.answer = lambda n, event: 0xB000
        [*_, (final, failed)] = move(archive.port, study(series))
    assert not failed and (final.Status, counts(final)) == (0xB000, (None, 0, 0, 12))


def test_cancel(archive: Archive, sink: int) -> None:
    series = make_series(40)
    archive.keep(*series)
    with receiving(port=sink) as receiver:
        receiver.answer = slowly(0.1)
        ae = AE("MOVER")
        ae.add_requested_context(STUDY_MOVE)
        association = ae.associate("127.0.0.1", archive.port)
        responses = []
        for status, data_set in association.send_c_move(study(series), "SINK", STUDY_MOVE, msg_id=7):
            responses.append((status, data_set))
            if len(responses) == 2:
                association.send_c_cancel(7, query_model=STUDY_MOVE)
        association.release()
    final = responses[-1][0]
    remaining, completed, failed, warned = counts(final)
    assert final.Status == 0xFE00 and remaining and completed and not failed and not warned
    assert remaining + completed == 40 and completed == len(receiver.arrived)


def test_a_requestor_that_goes_ends_the_sending(archive: Archive, sink: int) -> None:
    series = make_series(60)
    archive.keep(*series)
    with receiving(port=sink) as receiver:
        receiver.answer = slowly(0.1)
        ae = AE("MOVER")
        ae.add_requested_context(STUDY_MOVE)
        association = ae.associate("127.0.0.1", archive.port)
        next(association.send_c_move(study(series), "SINK", STUDY_MOVE))
        association.abort()
        time.sleep(1.0)
        arrived = len(receiver.arrived)
        time.sleep(0.5)
        assert len(receiver.arrived) == arrived < 60


def test_one_association_where_the_destination_takes_no_more(tmp_path: Path, sink: int) -> None:
    with archive_of(tmp_path / "data", {"SINK": f"127.0.0.1:{sink}"}) as archive, receiving(port=sink) as receiver:
        series = make_series(40)
        archive.keep(*series)
        receiver.answer = slowly(0.03)
        [*_, (final, _)] = move(archive.port, study(series))
        assert counts(final) == (None, 40, 0, 0) and receiver.associations > 1
    with (
        archive_of(tmp_path / "other", {"SINK": f"127.0.0.1:{sink}"}, move_associations_max=1) as archive,
        receiving(port=sink) as receiver,
    ):
        archive.keep(*series)
        [*_, (final, _)] = move(archive.port, study(series))
        assert counts(final) == (None, 40, 0, 0) and receiver.associations == 1


def test_another_transfer_syntax(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    with receiving(IMPLICIT, port=sink) as receiver:
        [*_, (final, _)] = move(archive.port, study(series))
        assert (final.Status, counts(final)) == (0x0000, (None, 12, 0, 0))
    assert {syntax for _, syntax, _ in receiver.arrived} == {IMPLICIT}
    wanted = {one.SOPInstanceUID: one for one in series}
    for uid, _, data in receiver.arrived:
        assert read_dataset(BytesIO(data), True, True) == wanted[uid]


def test_compressed_objects_are_decoded_or_fail(archive: Archive, sink: int, caplog: pytest.LogCaptureFixture) -> None:
    names = ["MR_small_jp2klossless.dcm", "JPEG-lossy.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
    made = make_series(3)
    stored = []
    for template, name in zip(made, names, strict=True):
        data_set = pydicom.dcmread(str(get_testdata_file(name)))
        data_set.StudyInstanceUID, data_set.SeriesInstanceUID = template.StudyInstanceUID, template.SeriesInstanceUID
        data_set.SOPInstanceUID = data_set.file_meta.MediaStorageSOPInstanceUID = template.SOPInstanceUID
        stored.append(data_set)
    archive.keep(*stored)
    classes = tuple({str(one.SOPClassUID) for one in stored})
    with receiving(EXPLICIT, port=sink, classes=classes) as receiver:
        responses = move(archive.port, study(made))
    final, _ = responses[-1]
    assert (final.Status, counts(final)) == (0xB000, (None, 2, 1, 0))
    assert failed_uids(responses) == {made[1].SOPInstanceUID}
    assert f"sop_instance_uid={made[1].SOPInstanceUID}: a frame cannot be decoded" in caplog.text
    for uid, _, data in receiver.arrived:
        [original] = [one for one in stored if one.SOPInstanceUID == uid]
        new = pydicom.FileDataset("", read_dataset(BytesIO(data), False, True), file_meta=pydicom.dataset.FileMetaDataset())
        new.file_meta.TransferSyntaxUID = pydicom.uid.UID(EXPLICIT)
        assert (new.pixel_array == original.pixel_array).all()


def test_a_damaged_object_is_not_sent(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    archive.pack()
    [pack] = sorted((archive.home.settings.node.data / "packs").rglob("*.zip"))
    data = bytearray(pack.read_bytes())
    at = data.index(data_set_bytes(series[5])[-2000:-1000])
    data[at] ^= 0xFF
    pack.write_bytes(data)
    with receiving(port=sink) as receiver:
        responses = move(archive.port, study(series))
    failed = failed_uids(responses)
    sent = {one.SOPInstanceUID: data_set_bytes(one) for one in series}
    assert series[5].SOPInstanceUID in failed
    assert {uid: data for uid, _, data in receiver.arrived} == {uid: data for uid, data in sent.items() if uid not in failed}


def test_a_class_that_the_destination_does_not_take(archive: Archive, series: list[pydicom.Dataset], sink: int) -> None:
    with receiving(port=sink, classes=("1.2.840.10008.5.1.4.1.1.4",)):
        assert "no presentation context is accepted" in all_failed(move(archive.port, study(series)), series)


def test_contexts_are_no_more_than_an_association_has() -> None:
    def stored(n: int) -> Located:
        uids = ("1.2", "1.3", f"1.4.{n}", f"1.5.{n % 100}", f"1.6.{n % 3}")
        return Located(*uids, 0, 0, 0, "", None, 0, False, None, None)  # type: ignore[arg-type]

    instances = [stored(n) for n in range(300)]
    batches = list(batches_of(instances))
    assert [one for batch in batches for one in batch.instances] == instances
    assert all(len(batch.wanted) <= 128 for batch in batches)
    for batch in batches:
        wanted = {(one.abstract_syntax, syntax) for one in batch.wanted for syntax in one.transfer_syntaxes}
        assert all((one.sop_class_uid, one.transfer_syntax_uid) in wanted for one in batch.instances)
