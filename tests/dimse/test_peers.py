"""Senders that no one here wrote, and every sample file, into the real ingest; what was stored is read back byte for byte."""

import contextlib
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from pynetdicom.presentation import build_context

from archive.config import Settings
from archive.dimse.server import Server
from archive.dimse.slots import AssociationSlots, create_slots
from archive.dimse.storage import Storage
from archive.dimse.verification import Verification
from archive.flow.home import Home
from archive.flow.ingest import Ingest
from archive.flow.retrieve import Retrieval
from tests.dimse.conftest import Served
from tests.dimse.peer import CT, Peer, c_store_rq, p_data, pdv
from tests.kit import data_set_bytes, free_port, make_series, part10_bytes, part10_data_set, require, sample_files


@dataclass
class Archive:
    """A server that keeps what it gets."""

    server: Server
    retrieval: Retrieval
    port: int

    def data_set(self, data_set: pydicom.Dataset) -> tuple[str, bytes]:
        """Transfer syntax and data set bytes that are stored of this instance."""
        [stored] = self.retrieval.instances(data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.SOPInstanceUID)
        with self.retrieval.open(stored) as opened:
            return stored.transfer_syntax_uid, bytes(opened.stored_data_set())


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    settings = Settings.model_validate({"node": {"data": tmp_path / "data"}})
    with socket.socket() as listener, Home(settings, "dimse-0") as home:
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        server = Server(settings, listener, [Verification(), Storage(Ingest(home))], AssociationSlots(create_slots(1), 0, 100))
        server.start()
        yield Archive(server, Retrieval(home), listener.getsockname()[1])
        server.stop(1.0)


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, list[pydicom.Dataset]]:
    """A folder with a new series, and its data sets."""
    made = make_series(5)
    folder = tmp_path / "series"
    folder.mkdir()
    for number, data_set in enumerate(made):
        (folder / f"{number}.dcm").write_bytes(part10_bytes(data_set))
    return folder, made


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_echoscu(archive: Archive) -> None:
    run(require("echoscu"), "-aec", "ARCHIVE", "--repeat", "5", "127.0.0.1", str(archive.port))
    assert archive.server.counters.echoes == 5


@pytest.fixture
def expected(series: tuple[Path, list[pydicom.Dataset]], tmp_path: Path) -> list[tuple[str, bytes]]:
    """Transfer syntax and data set that DCMTK's own receiver gets of the series: senders of DCMTK encode it anew."""
    folder, made = series
    received, port = tmp_path / "received", free_port()
    received.mkdir()
    receiver = subprocess.Popen([require("storescp"), "--bit-preserving", "-od", str(received), str(port)])
    try:
        for _ in range(100):
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        run(require("storescu"), "-R", "+sd", "127.0.0.1", str(port), str(folder))
    finally:
        receiver.terminate()
        receiver.wait()
    files = {path.name.partition(".")[2]: path for path in received.iterdir()}
    found = []
    for data_set in made:
        path = files[data_set.SOPInstanceUID]
        found.append((str(pydicom.dcmread(path).file_meta.TransferSyntaxUID), part10_data_set(path.read_bytes())))
    return found


@pytest.mark.parametrize("options", [[], ["--max-send-pdu", "131072"], ["--max-send-pdu", "4096"], ["--max-pdu", "4096"]])
def test_storescu(
    archive: Archive, series: tuple[Path, list[pydicom.Dataset]], expected: list[tuple[str, bytes]], options: list[str]
) -> None:
    folder, made = series
    said = run(require("storescu"), "-v", "-R", "-aec", "ARCHIVE", *options, "+sd", "127.0.0.1", str(archive.port), str(folder))
    assert said.count("Received Store Response (Success)") == len(made)
    assert [archive.data_set(data_set) for data_set in made] == expected


def test_dcmsend(archive: Archive, series: tuple[Path, list[pydicom.Dataset]], expected: list[tuple[str, bytes]]) -> None:
    folder, made = series
    said = run(require("dcmsend"), "-v", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port), "+sd", str(folder))
    assert "with status SUCCESS  : 5" in said
    assert [archive.data_set(data_set) for data_set in made] == expected


def test_storescu_is_told_why(archive: Archive, tmp_path: Path) -> None:
    [data_set] = make_series(1)
    del data_set.StudyInstanceUID
    (tmp_path / "no-study.dcm").write_bytes(part10_bytes(data_set))
    command = [require("storescu"), "-d", "-R", "-aec", "ARCHIVE", "127.0.0.1", str(archive.port), str(tmp_path / "no-study.dcm")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert "0xc000: Error: Cannot understand" in said and "the data set has no StudyInstanceUID" in said
    assert archive.server.counters.objects_refused == 1


def test_pynetdicoms_senders(archive: Archive) -> None:
    made = make_series(3)
    ae = AE("PYNETDICOM")
    ae.add_requested_context("1.2.840.10008.1.1")
    ae.requested_contexts = [*ae.requested_contexts, build_context(CT, made[0].file_meta.TransferSyntaxUID)]
    association = ae.associate("127.0.0.1", archive.port, ae_title="ARCHIVE")
    assert association.is_established
    assert association.acceptor.implementation_version_name == "DICOM-ARCHIVE-1"
    assert association.send_c_echo().Status == 0
    for data_set in made:
        assert association.send_c_store(data_set).Status == 0
    association.release()
    assert association.is_released
    for data_set in made:
        assert archive.data_set(data_set)[1] == data_set_bytes(data_set)


def test_pynetdicom_reads_every_refusal(served: Served) -> None:
    [data_set] = make_series(1)
    ae = AE()
    ae.requested_contexts = [build_context(CT, data_set.file_meta.TransferSyntaxUID)]
    association = ae.associate("127.0.0.1", served.port)
    served.ingest.failures["commit"] = ValueError("x")
    status = association.send_c_store(data_set)
    assert (status.Status, status.ErrorComment) == (0x0110, "internal error")
    association.release()
    association = ae.associate("127.0.0.1", served.port, contexts=[build_context("1.2.840.10008.5.1.4.1.2.2.1")])
    assert not association.is_established and association.rejected_contexts[0].result == 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, of what is odd about its own samples
def test_every_sample_file_is_kept_byte_for_byte(archive: Archive) -> None:
    kept = refused = 0
    for path in sample_files():
        data_set = pydicom.dcmread(path, stop_before_pixels=True, force=True)
        meta = data_set.file_meta
        if not all(name in meta for name in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "TransferSyntaxUID")):
            continue
        if meta.MediaStorageSOPClassUID == "1.2.840.10008.1.3.10" or not str(meta.MediaStorageSOPInstanceUID):
            continue  # a DICOMDIR is no object to store
        sent = part10_data_set(path.read_bytes())
        with Peer(archive.port) as peer:
            accepted = peer.associate(contexts=[(3, str(meta.MediaStorageSOPClassUID), [str(meta.TransferSyntaxUID)])])
            assert accepted.presentation_context[0].result == 0
            peer.send(p_data(pdv(3, 3, c_store_rq(str(meta.MediaStorageSOPInstanceUID), str(meta.MediaStorageSOPClassUID)))))
            for at in range(0, max(1, len(sent)), 100_001):
                peer.send(p_data(pdv(3, 2 if at + 100_001 >= len(sent) else 0, sent[at : at + 100_001])))
            status = peer.status()
        named = [str(getattr(data_set, name, "")) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")]
        if not all(re.fullmatch(r"[0-9.]{1,64}", uid) for uid in named):
            assert status == 0xC000, path
            refused += 1
        elif named[2:] != [meta.MediaStorageSOPInstanceUID, meta.MediaStorageSOPClassUID]:
            assert status == 0xA900, path
            refused += 1
        else:
            assert status == 0, path
            # Several of the files share a SOP Instance UID: each is kept, the first is served.
            if len(archive.retrieval._home.index.revisions(named[2])) == 1:
                assert archive.data_set(data_set) == (meta.TransferSyntaxUID, sent), path
                kept += 1
    assert kept > 120 and refused < 20, (kept, refused)


def test_the_longest_ae_titles(serve: Callable[..., Served]) -> None:
    served = serve(ae_title="ABCDEFGHIJKLMNOP", called_ae_title_required=True)
    ae = AE("ZYXWVUTSRQPONMLK")
    ae.add_requested_context("1.2.840.10008.1.1")
    association = ae.associate("127.0.0.1", served.port, ae_title="ABCDEFGHIJKLMNOP")
    assert association.is_established
    association.release()
