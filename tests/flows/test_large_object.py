"""A multi-frame object of 1 GB goes in by C-STORE, is retrieved, packed and retrieved again, in bounded memory (promise P7).

It is never whole in the memory of the test either: frames are made when they are sent, and answers are hashed as they come.
"""

import hashlib
import http.client
import os
import shutil
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from tests.dicom.build import element
from tests.dimse.peer import EXPLICIT, IMPLICIT, VERIFICATION, Peer, c_store_rq, p_data, pdv
from tests.flows.memory import MemoryWatch
from tests.kit import Node, multipart_parts

MIB = 1 << 20
MULTI_FRAME_WORD = "1.2.840.10008.5.1.4.1.1.7.3"
STUDY, SERIES, INSTANCE = "1.2.826.0.2.1", "1.2.826.0.2.2", "1.2.826.0.2.3"
CONTEXTS = ((1, VERIFICATION, [IMPLICIT]), (3, MULTI_FRAME_WORD, [EXPLICIT]))
ROWS = COLUMNS = 512
FRAME_BYTES = ROWS * COLUMNS * 2
FRAGMENT_BYTES = 256 * 1024 - 6
MEMORY_BYTES_MAX = 256 * MIB


def object_bytes() -> int:
    """DICOM_ARCHIVE_TEST_LARGE_BYTES; 1 GiB where everything has to be, 256 MiB elsewhere."""
    everything = os.environ.get("DICOM_ARCHIVE_REQUIRE_ALL") == "1" or bool(os.environ.get("CI"))
    return int(os.environ.get("DICOM_ARCHIVE_TEST_LARGE_BYTES") or (1024 * MIB if everything else 256 * MIB))


def frame(number: int) -> bytes:
    """Pixels of a frame, unlike those of every other one; number 1 is the first."""
    return hashlib.shake_128(struct.pack("<I", number)).digest(4096) * (FRAME_BYTES // 4096)


def pieces(number_of_frames: int) -> Iterator[bytes]:
    """The data set, explicit VR little endian, a frame at a time."""

    def text(value: str) -> bytes:
        return value.encode() + b" " * (len(value) % 2)

    def uid(value: str) -> bytes:
        return value.encode() + b"\0" * (len(value) % 2)

    yield b"".join(
        (
            element(0x00080016, "UI", uid(MULTI_FRAME_WORD)),
            element(0x00080018, "UI", uid(INSTANCE)),
            element(0x00080060, "CS", b"OT"),
            element(0x00100020, "LO", b"LARGE "),
            element(0x0020000D, "UI", uid(STUDY)),
            element(0x0020000E, "UI", uid(SERIES)),
            element(0x00280002, "US", struct.pack("<H", 1)),
            element(0x00280004, "CS", text("MONOCHROME2")),
            element(0x00280008, "IS", text(str(number_of_frames))),
            element(0x00280010, "US", struct.pack("<H", ROWS)),
            element(0x00280011, "US", struct.pack("<H", COLUMNS)),
            element(0x00280100, "US", struct.pack("<H", 16)),
            element(0x00280101, "US", struct.pack("<H", 16)),
            element(0x00280102, "US", struct.pack("<H", 15)),
            element(0x00280103, "US", struct.pack("<H", 0)),
            element(0x7FE00010, "OW", b"", length=number_of_frames * FRAME_BYTES),
        )
    )
    for number in range(1, number_of_frames + 1):
        yield frame(number)


def send(port: int, number_of_frames: int) -> str:
    """C-STORE of the object; the SHA-256 of its data set."""
    digest = hashlib.sha256()
    with Peer(port) as peer:
        peer.socket.settimeout(60)
        peer.associate(contexts=CONTEXTS)
        peer.send(p_data(pdv(3, 3, c_store_rq(INSTANCE, MULTI_FRAME_WORD))))
        for piece in pieces(number_of_frames):
            digest.update(piece)
            for at in range(0, len(piece), FRAGMENT_BYTES):
                peer.send(p_data(pdv(3, 0, piece[at : at + FRAGMENT_BYTES])))
        peer.send(p_data(pdv(3, 2, b"")))
        assert peer.status() == 0
        peer.release()
    return digest.hexdigest()


@dataclass
class Retrieved:
    """What WADO-RS answered for the whole object."""

    data_set_sha256: str
    length: int


class Client:
    """A viewer that reads piece by piece."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._instance = f"/dicomweb/studies/{STUDY}/series/{SERIES}/instances/{INSTANCE}"

    def _get(self, path: str, accept: str) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._node.host, self._node.http_port, timeout=60)
        connection.request("GET", path, headers={"Accept": accept})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read(500)
        return connection, answer

    def frame(self, number: int) -> bytes:
        connection, answer = self._get(
            f"{self._instance}/frames/{number}", 'multipart/related; type="application/octet-stream"; transfer-syntax=*'
        )
        body = answer.read()
        connection.close()
        (part,) = multipart_parts(answer.headers["Content-Type"], body)
        return part

    def whole(self) -> Retrieved:
        """The only part, hashed from its data set on, which begins with the first element of group 0008."""
        connection, answer = self._get(self._instance, 'multipart/related; type="application/dicom"; transfer-syntax=*')
        boundary = answer.headers.get_param("boundary", header="content-type")
        assert isinstance(boundary, str)
        closing = b"\r\n--" + boundary.encode() + b"--"
        head = answer.read(64 * 1024)
        start = head.index(b"DICM") + 4
        assert head[start : start + 4] == b"\x02\x00\x00\x00"  # FileMetaInformationGroupLength: 12 bytes, then so many
        start += 12 + struct.unpack_from("<I", head, start + 8)[0]
        digest, length, held = hashlib.sha256(), 0, head[start:]
        while more := answer.read(MIB):
            ready, held = held[: -len(closing) - 2], held[-len(closing) - 2 :] + more
            digest.update(ready)
            length += len(ready)
        connection.close()
        held = held[: held.rindex(closing)]
        digest.update(held)
        return Retrieved(digest.hexdigest(), length + len(held))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_large_object_goes_in_and_out_in_bounded_memory(start_node: Callable[..., Node]) -> None:
    number_of_frames = object_bytes() // FRAME_BYTES
    node = start_node(settings={"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    client, seconds = Client(node), {}

    def look(when: str) -> None:
        for number in (1, number_of_frames // 2 + 1, number_of_frames):
            assert client.frame(number) == frame(number), f"frame {number}, {when}"
        started = time.monotonic()
        retrieved = client.whole()
        seconds[f"retrieve, {when}"] = time.monotonic() - started
        assert retrieved == Retrieved(sent, number_of_frames * FRAME_BYTES + len(next(pieces(number_of_frames)))), when

    with MemoryWatch(node) as watch:
        started = time.monotonic()
        sent = send(node.dimse_port, number_of_frames)
        seconds["store"] = time.monotonic() - started
        look("accepted")
        started = time.monotonic()
        node.cli("pack", "--now", timeout_seconds=300)
        seconds["pack"] = time.monotonic() - started
        assert not [path for path in (node.data / "journal" / "sealed").iterdir() if path.stat().st_size > FRAME_BYTES * number_of_frames]
        look("packed")
        node.cli("verify", timeout_seconds=300)
    largest = max(watch.peak_bytes, key=lambda name: watch.peak_bytes[name])
    print(f"{number_of_frames * FRAME_BYTES / MIB:.0f} MiB:", ", ".join(f"{what} {took:.1f} s" for what, took in seconds.items()))
    print("most anonymous memory:", ", ".join(f"{name} {count / MIB:.0f} MiB" for name, count in sorted(watch.peak_bytes.items())))
    assert watch.samples > 20
    assert {"supervisor", "dimse-0", "web-0", "packer-0"} <= {name.split()[0] for name in watch.peak_bytes}
    assert watch.peak_bytes[largest] < MEMORY_BYTES_MAX, f"{largest} had {watch.peak_bytes[largest] / MIB:.0f} MiB"
    assert node.stop() == 0
    shutil.rmtree(node.data)  # pytest would keep it for three more runs.
