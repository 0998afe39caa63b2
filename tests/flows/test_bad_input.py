"""Bad input over a whole node: a clear status or abort, a line in the log, and no effect on who stores at the same time."""

import json
import random
import threading
import time
import urllib.request
from collections.abc import Iterator
from types import TracebackType

import pytest

from archive.dimse.command import encode_command
from tests.dicom.build import element
from tests.dimse.peer import CT, EXPLICIT, IMPLICIT, VERIFICATION, Peer, associate_rq, c_echo_rq, c_store, c_store_rq, p_data, pdv
from tests.kit import Node, part10_data_set, retrieve_part10

CONTEXTS = ((1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT]))
STUDY, SERIES = "1.2.826.0.1.1", "1.2.826.0.1.1.1"
STALL_SECONDS = 1.0
PROVIDER_ABORT = bytes.fromhex("07 00 00000004 0000 02")
USER_ABORT = bytes.fromhex("07 00 00000004 0000 00 00")
NOISE = random.Random(4).randbytes(5000)


def data_set(
    sop_instance_uid: str | None, study_instance_uid: str | None = STUDY, series_instance_uid: str | None = SERIES, sop_class_uid: str = CT
) -> bytes:
    """A small CT object, explicit VR little endian; without what is None."""
    uids = {
        0x00080016: sop_class_uid,
        0x00080018: sop_instance_uid,
        0x0020000D: study_instance_uid,
        0x0020000E: series_instance_uid,
    }
    parts = {tag: element(tag, "UI", (uid + "\0" * (len(uid) % 2)).encode()) for tag, uid in uids.items() if uid is not None}
    parts[0x00100020] = element(0x00100020, "LO", b"BAD INPUT ")
    parts[0x7FE00010] = element(0x7FE00010, "OW", bytes(20_000))
    return b"".join(parts[tag] for tag in sorted(parts))


class Storing:
    """Another association, which stores one object after the other for as long as it is entered."""

    def __init__(self, node: Node, root: str) -> None:
        self._node, self._root = node, root
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.statuses: list[int] = []
        self.slowest_seconds = 0.0
        self.failure: Exception | None = None

    def uid(self, n: int) -> str:
        return f"{self._root}.{n}"

    def _run(self) -> None:
        try:
            with Peer(self._node.dimse_port) as peer:
                peer.associate(contexts=CONTEXTS, calling="GOOD")
                while not self._stop.is_set():
                    uid = self.uid(len(self.statuses) + 1)
                    started = time.monotonic()
                    peer.send(c_store(data_set(uid), uid))
                    self.statuses.append(peer.status())
                    self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - started)
                    self._stop.wait(0.002)
                peer.release()
        except Exception as error:
            self.failure = error

    def __enter__(self) -> "Storing":
        self._thread.start()
        self.go_on()
        return self

    def go_on(self) -> None:
        """Wait until three more objects are stored."""
        wanted, deadline = len(self.statuses) + 3, time.monotonic() + 10
        while len(self.statuses) < wanted:
            assert self.failure is None, self.failure
            assert time.monotonic() < deadline, f"stuck after {len(self.statuses)} objects"
            time.sleep(0.005)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(20)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    settings = {
        "DICOM_ARCHIVE_DIMSE_STALL_SECONDS_MAX": str(STALL_SECONDS),
        "DICOM_ARCHIVE_DIMSE_ARTIM_SECONDS": "1",
        "DICOM_ARCHIVE_DIMSE_WORKERS": "1",  # The bad and the good meet in one process.
        "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600",
    }
    node = Node(data=tmp_path_factory.mktemp("bad-input") / "data", settings=settings)
    node.start()
    yield node
    node.kill()


@pytest.fixture
def storing(running: Node) -> Iterator[Storing]:
    """The other association; at the end all that it stored is there, and nothing else came in."""
    kept = set(stored_uids(running))
    with Storing(running, f"1.2.826.0.1.{len(kept) + 10}") as other:
        yield other
        other.go_on()
    assert other.failure is None
    assert set(other.statuses) == {0}
    assert other.slowest_seconds < 5
    sent = {other.uid(n + 1) for n in range(len(other.statuses))}
    assert set(stored_uids(running)) == kept | sent
    last = other.uid(len(other.statuses))
    (part,) = retrieve_part10(f"{running.dicomweb_url}/studies/{STUDY}/series/{SERIES}/instances/{last}")
    assert part10_data_set(part) == data_set(last)


def stored_uids(node: Node) -> list[str]:
    """SOP Instance UIDs of all that the node holds, by QIDO-RS, a page at a time."""
    found: list[str] = []
    while True:
        with urllib.request.urlopen(f"{node.dicomweb_url}/instances?limit=5000&offset={len(found)}", timeout=30) as answer:
            page = json.load(answer) if answer.status == 200 else []
        found += [instance["00080018"]["Value"][0] for instance in page]
        if len(page) < 5000:
            return found


def await_line(node: Node, *words: str, before: int = 0) -> str:
    """The first line of the log behind `before` that holds all the words."""
    deadline = time.monotonic() + 10
    while True:
        text = node.log()[before:]
        for line in text.splitlines():
            if all(word in line for word in words):
                return line
        assert time.monotonic() < deadline, f"no line with {words} in\n{text}"
        time.sleep(0.02)


NOT_DICOM = b"This is a letter to the radiologist, and no DICOM object at all. " * 100
GOOD_UID = "1.2.826.0.1.9.9"
REFUSED = {
    "not DICOM": (GOOD_UID, NOT_DICOM, 0xC000, "no StudyInstanceUID"),
    "noise": (GOOD_UID, NOISE, 0xC000, "no StudyInstanceUID"),
    "empty": (GOOD_UID, b"", 0xC000, "no StudyInstanceUID"),
    "a file with its preamble": (GOOD_UID, bytes(128) + b"DICM" + data_set(GOOD_UID), 0xC000, "no StudyInstanceUID"),
    "no UIDs at all": (GOOD_UID, element(0x00100020, "LO", b"P1"), 0xC000, "no StudyInstanceUID"),
    "no Study Instance UID": (GOOD_UID, data_set(GOOD_UID, None), 0xC000, "no StudyInstanceUID"),
    "no Series Instance UID": (GOOD_UID, data_set(GOOD_UID, STUDY, None), 0xC000, "no SeriesInstanceUID"),
    "no SOP Instance UID": (GOOD_UID, data_set(None), 0xC000, "no SOPInstanceUID"),
    "an empty Study Instance UID": (GOOD_UID, data_set(GOOD_UID, ""), 0xC000, "StudyInstanceUID"),
    "a study with slashes": (GOOD_UID, data_set(GOOD_UID, "1.2/../../../etc"), 0xC000, "StudyInstanceUID"),
    "a study of dots": (GOOD_UID, data_set(GOOD_UID, ".."), 0xC000, "StudyInstanceUID"),
    "a study of 65 characters": (GOOD_UID, data_set(GOOD_UID, "1." + "2" * 63), 0xC000, "StudyInstanceUID"),
    "a series with a slash": (GOOD_UID, data_set(GOOD_UID, STUDY, "1/2"), 0xC000, "SeriesInstanceUID"),
    "an instance with a slash": ("1.2/3", data_set("1.2/3"), 0x0117, "AffectedSOPInstanceUID"),
    "an instance of dots": ("..", data_set(".."), 0x0117, "AffectedSOPInstanceUID"),
    "an instance of 65 characters": ("1." + "2" * 63, data_set("1." + "2" * 63), 0x0117, "AffectedSOPInstanceUID"),
    "another instance than the command's": (GOOD_UID, data_set("1.2.826.0.1.9.8"), 0xA900, "the command said"),
    "another class than the command's": (
        GOOD_UID,
        data_set(GOOD_UID, sop_class_uid="1.2.840.10008.5.1.4.1.1.4"),
        0xA900,
        "the command said",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_an_object_that_cannot_be_kept_is_refused_with_a_status_and_a_line(running: Node, storing: Storing, what: str) -> None:
    uid, content, status, reason = REFUSED[what]
    before = len(running.log())
    with Peer(running.dimse_port) as peer:
        peer.associate(contexts=CONTEXTS, calling="BAD")
        peer.send(c_store(content, uid))
        answer = peer.response()
        assert (answer.command_field, answer.number(0x0900)) == (0x8001, status)
        assert answer.text(0x0902), "the sender is told why in words"
        peer.echo()  # The association stays usable,
        good = GOOD_UID + ".1"
        peer.send(c_store(data_set(None), good))  # for another refusal
        assert peer.status() == 0xC000
        peer.release()
    line = await_line(running, "object refused", f"status=0x{status:04X}", "calling='BAD'", before=before)
    assert f"sop_instance_uid={uid!r}" in line
    assert reason in line


GARBAGE = {
    "HTTP": (b"GET / HTTP/1.1\r\nHost: archive\r\n\r\n", 1),
    "noise": (NOISE, 1),
    "a PDU of 4 GiB": (bytes.fromhex("04 00 ffffffff 00000000"), 6),
    "a data set without a command": (p_data(pdv(3, 2, NOISE)), 5),
    "a context that was not accepted": (p_data(pdv(9, 3, c_echo_rq())), 6),
    "a second request": (associate_rq(CONTEXTS), 2),
    "a command of noise": (p_data(pdv(3, 3, NOISE)), None),
    "a command without a field": (p_data(pdv(3, 3, encode_command({0x0110: 1}))), None),
    "a PDV longer than its PDU": (p_data(bytes.fromhex("0000ffff 03 03") + bytes(10)), 6),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_on_an_association_is_aborted_with_a_line(running: Node, storing: Storing, what: str) -> None:
    garbage, reason = GARBAGE[what]
    before = len(running.log())
    with Peer(running.dimse_port) as peer:
        peer.associate(contexts=CONTEXTS, calling="GARBAGE")
        answer = peer.send(garbage).receive()
        assert answer[:9] == PROVIDER_ABORT and (reason is None or answer[9] == reason), answer.hex()
    await_line(running, "association aborted", "calling='GARBAGE'", before=before)


@pytest.mark.parametrize("what", ["HTTP", "noise", "a data set without a command"])
def test_garbage_instead_of_an_association_is_dropped_with_a_line(running: Node, storing: Storing, what: str) -> None:
    before = len(running.log())
    with Peer(running.dimse_port) as peer:
        assert peer.send(GARBAGE[what][0]).receive()[:9] == PROVIDER_ABORT
    await_line(running, "connection dropped", before=before)


WHOLE = c_store(data_set(GOOD_UID), GOOD_UID)
STALLS = {
    "in a PDU header": WHOLE[:3],
    "in the command": WHOLE[:40],
    "in the header of the data set's PDU": WHOLE[: len(p_data(pdv(3, 3, c_store_rq(GOOD_UID)))) + 2],
    "in the data set": WHOLE[:-1000],
    "one byte before the end": WHOLE[:-1],
}


@pytest.mark.parametrize("where", STALLS)
def test_a_peer_that_stalls_is_dropped_in_time_with_a_line(running: Node, storing: Storing, where: str) -> None:
    before = len(running.log())
    with Peer(running.dimse_port) as peer:
        peer.associate(contexts=CONTEXTS, calling="STALLED")
        started = time.monotonic()
        assert peer.send(STALLS[where]).receive() == USER_ABORT
        assert STALL_SECONDS * 0.8 < time.monotonic() - started < STALL_SECONDS + 2
    line = await_line(running, "association aborted", "calling='STALLED'", before=before)
    assert "silent for too long" in line


def test_a_peer_that_goes_away_in_the_middle_leaves_nothing(running: Node, storing: Storing) -> None:
    before = len(running.log())
    with Peer(running.dimse_port) as peer:
        peer.associate(contexts=CONTEXTS, calling="GONE")
        peer.send(WHOLE[:-1000])
    await_line(running, "association aborted", "calling='GONE'", "connection closed by the peer", before=before)


def test_thirty_stalled_at_once_hold_up_nobody(running: Node, storing: Storing) -> None:
    peers = [Peer(running.dimse_port) for _ in range(30)]
    try:
        for peer in peers:
            peer.associate(contexts=CONTEXTS, calling="STALLED")
            peer.send(STALLS["in the data set"])
        storing.go_on()
        for peer in peers:
            assert peer.receive() == USER_ABORT
    finally:
        for peer in peers:
            peer.socket.close()


def test_afterwards_the_node_is_whole(running: Node) -> None:
    assert "Traceback" not in running.log()
    assert running.stop() == 0
    running.cli("verify")
