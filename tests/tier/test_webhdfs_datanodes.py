"""What a DataNode answers is read in large pieces, whatever pieces it writes."""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

from archive.config import WebhdfsSection
from archive.tier.webhdfs_datanodes import DataNodes

PIECE_BYTES = 8 << 10
DATA = bytes(range(256)) * (1 << 10)


@contextlib.contextmanager
def data_node(pieces: int) -> Iterator[str]:
    """It answers one request for `DATA` with so many of its pieces, 2 ms apart, and closes; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(DATA) + DATA[:100])
            for number in range(pieces):
                time.sleep(0.002)
                connection.sendall(DATA[max(100, number * PIECE_BYTES) : (number + 1) * PIECE_BYTES])

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/webhdfs/v1/x?op=OPEN"
    finally:
        thread.join()
        listener.close()


def test_a_reader_is_not_woken_for_each_piece() -> None:
    buffer = bytearray(len(DATA))
    with data_node(len(DATA) // PIECE_BYTES) as location, DataNodes(WebhdfsSection()).get(location) as body:
        assert body.length == len(DATA)
        before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        assert body.readinto(memoryview(buffer)) == len(DATA)
        waits = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before
        assert body.readinto(memoryview(bytearray(10))) == 0
    assert bytes(buffer) == DATA
    assert waits < 8


def test_a_body_that_is_cut_short_is_read_as_far_as_it_came() -> None:
    buffer = bytearray(len(DATA))
    with data_node(3) as location, DataNodes(WebhdfsSection()).get(location) as body:
        assert body.readinto(memoryview(buffer)) == 3 * PIECE_BYTES
        assert body.readinto(memoryview(buffer)) == 0
    assert bytes(buffer[: 3 * PIECE_BYTES]) == DATA[: 3 * PIECE_BYTES]
