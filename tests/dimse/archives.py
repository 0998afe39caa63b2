"""An archive of one process behind a server, and receivers that take what they are told to."""

import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pydicom
from pydicom.uid import UID
from pynetdicom import AE, evt

from archive.config import Settings
from archive.dimse.commitment import StorageCommitment
from archive.dimse.get import Get
from archive.dimse.move import Move
from archive.dimse.reporting import Reporter
from archive.dimse.server import Server
from archive.dimse.service import Service
from archive.dimse.slots import AssociationSlots, create_slots
from archive.dimse.storage import Storage
from archive.flow.commitment import Commitment
from archive.flow.commitment_requests import CommitmentRequests, requests_folder
from archive.flow.home import Home
from archive.flow.ingest import Ingest
from archive.flow.packing import Packer
from archive.flow.source import RetrieveSource
from tests.kit import Noted, data_set_bytes, free_port

STORED = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7")
STUDY_MOVE, STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.2", "1.2.840.10008.5.1.4.1.2.2.3"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@dataclass
class Archive:
    """What an archive of one process can be asked."""

    home: Home
    server: Server
    requests: CommitmentRequests
    port: int
    noted: Noted

    def keep(self, *data_sets: pydicom.Dataset) -> None:
        """Store them."""
        for data_set in data_sets:
            reception = Ingest(self.home).begin(
                sop_class_uid=data_set.SOPClassUID,
                sop_instance_uid=data_set.SOPInstanceUID,
                transfer_syntax_uid=data_set.file_meta.TransferSyntaxUID,
                source="test",
            )
            reception.write(data_set_bytes(data_set))
            reception.commit()

    def pack(self) -> None:
        Packer(self.home).pack_now()


@contextmanager
def archive_of(folder: Path, peers: dict[str, Any], commitment: dict[str, Any] | None = None, **dimse: Any) -> Iterator[Archive]:
    """An archive with a table of remote AEs; waits are short unless said otherwise."""
    sections = {
        "node": {"data": folder},
        "dimse": {"artim_seconds": 2, "stall_seconds_max": 5, "connect_seconds_max": 2, "answer_seconds_max": 2, **dimse},
        "commitment": commitment or {},
        "peers": peers,
    }
    settings = Settings.model_validate(sections)
    with socket.socket() as listener, Home(settings, "dimse-0") as home:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", free_port()))
        listener.listen()
        source = RetrieveSource(home)
        requests = CommitmentRequests(requests_folder(settings))
        reporter = Reporter(requests, Commitment(home), settings)
        services: list[Service] = [
            Move(source, settings.dimse, settings.peers),
            Get(source),
            StorageCommitment(requests, reporter),
            Storage(Ingest(home)),
        ]
        noted = Noted()
        server = Server(settings, listener, services, AssociationSlots(create_slots(1), 0, 100), noted)
        server.start()
        reporter.start()
        try:
            yield Archive(home, server, requests, listener.getsockname()[1], noted)
        finally:
            server.stop(1.0)
            reporter.stop()
            source.close()


@dataclass
class Receiver:
    """pynetdicom's SCP of storage.

    Attributes
    ----------
    arrived : list of (str, str, bytes)
        SOP Instance UID, transfer syntax and data set of each object.
    originators : set of (str, int)
        Title and message id of who asked for it, as the command says.
    answer : callable
        Status of the n-th object, counted from 0; it may sleep, or abort by `event.assoc`.
    """

    port: int
    arrived: list[tuple[str, str, bytes]] = field(default_factory=list)
    originators: set[tuple[str, int]] = field(default_factory=set)
    associations: int = 0
    answer: Callable[[int, Any], int] = lambda n, event: 0x0000
    _lock: Any = field(default_factory=threading.Lock)

    def on_store(self, event: Any) -> int:
        with self._lock:
            n = len(self.arrived)
            request = event.request
            self.arrived.append((str(request.AffectedSOPInstanceUID), str(event.context.transfer_syntax), request.DataSet.getvalue()))
            self.originators.add((str(request.MoveOriginatorApplicationEntityTitle), request.MoveOriginatorMessageID))
        return self.answer(n, event)

    def on_accepted(self, event: Any) -> None:
        self.associations += 1


@contextmanager
def receiving(*syntaxes: str, port: int = 0, classes: tuple[str, ...] = STORED) -> Iterator[Receiver]:
    """A receiver that takes these transfer syntaxes."""
    ae = AE("SINK")
    ae.maximum_pdu_size = 32768
    for sop_class in classes:
        ae.add_supported_context(UID(sop_class), [UID(syntax) for syntax in syntaxes or (EXPLICIT,)])
    receiver = Receiver(port or free_port())
    handlers = [(evt.EVT_C_STORE, receiver.on_store), (evt.EVT_ACCEPTED, receiver.on_accepted)]
    server = ae.start_server(("127.0.0.1", receiver.port), block=False, evt_handlers=handlers)  # type: ignore[arg-type]
    assert server is not None
    try:
        yield receiver
    finally:
        server.shutdown()


def identifier(level: str, **keys: str) -> pydicom.Dataset:
    data_set = pydicom.Dataset()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Some are wrong on purpose.
        data_set.QueryRetrieveLevel = level
        for keyword, value in keys.items():
            setattr(data_set, keyword, value)
    return data_set


def move(port: int, query: pydicom.Dataset, destination: str = "SINK", sop_class: str = STUDY_MOVE) -> list[tuple[pydicom.Dataset, Any]]:
    """Every response of a C-MOVE: status and data set."""
    ae = AE("MOVER")
    ae.add_requested_context(UID(sop_class))
    association = ae.associate("127.0.0.1", port)
    assert association.is_established
    try:
        return list(association.send_c_move(query, destination, UID(sop_class)))
    finally:
        association.release()


def counts(status: pydicom.Dataset) -> tuple[int | None, int, int, int]:
    """Remaining, completed, failed and warning sub-operations that a response tells."""
    return (
        status.get("NumberOfRemainingSuboperations"),
        status.NumberOfCompletedSuboperations,
        status.NumberOfFailedSuboperations,
        status.NumberOfWarningSuboperations,
    )
