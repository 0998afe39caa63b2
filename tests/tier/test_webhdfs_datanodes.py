"""What a DataNode answers is read in large pieces, whatever pieces it writes."""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from archive.config import WebhdfsSection
from archive.errors import Unavailable
from archive.tier import webhdfs_datanodes
from archive.tier.webhdfs_datanodes import DataNodes

PIECE_BYTES = 8 << 10
DATA = bytes(range(256)) * (1 << 10)


@contextlib.contextmanager
def data_node(pieces: int, apart_seconds: float = 0.002, silent: threading.Event | None = None) -> Iterator[str]:
    """It answers one request for `DATA` with so many of its pieces, stays silent as long as it shall, and closes; its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(DATA) + DATA[:100])
            for number in range(pieces):
                time.sleep(apart_seconds)
                connection.sendall(DATA[max(100, number * PIECE_BYTES) : (number + 1) * PIECE_BYTES])
            if silent is not None:
                silent.wait(30)

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


def test_a_slow_data_node_is_read_as_slowly() -> None:
    """All of it takes longer than a silence may last."""
    buffer = bytearray(len(DATA))
    nodes = DataNodes(WebhdfsSection(answer_seconds=0.25))
    with data_node(len(DATA) // PIECE_BYTES, apart_seconds=0.03) as location, nodes.get(location) as body:
        assert body.readinto(memoryview(buffer)) == len(DATA)
    assert bytes(buffer) == DATA


def test_a_silent_data_node_is_given_up_after_one_time_out() -> None:
    nodes, silent = DataNodes(WebhdfsSection(answer_seconds=0.25)), threading.Event()
    with data_node(0, silent=silent) as location, contextlib.ExitStack() as end:
        end.callback(silent.set)
        started = time.monotonic()
        with pytest.raises(Unavailable, match="timed out"), nodes.get(location) as body:
            body.readinto(memoryview(bytearray(len(DATA))))
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("closes", [False, True])
def test_a_part_of_a_go_ahead_is_given_up_after_one_time_out(monkeypatch: pytest.MonkeyPatch, closes: bool) -> None:
    monkeypatch.setattr(webhdfs_datanodes, "LET_GO_SECONDS", 0.2)
    nodes, done, given = DataNodes(WebhdfsSection(answer_seconds=0.25)), threading.Event(), list[str]()
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 100 Cont")
            if closes:
                connection.shutdown(socket.SHUT_WR)
            done.wait(30)

    def put() -> None:
        try:
            nodes.put(f"http://127.0.0.1:{listener.getsockname()[1]}/webhdfs/v1/x?op=CREATE", 1, [b"x"], lambda: None)
        except Unavailable as error:
            given.append(str(error))

    threads = [threading.Thread(target=target, daemon=True) for target in (answer, put)]
    for thread in threads:
        thread.start()
    try:
        threads[1].join(5)
        assert len(given) == 1
        assert "part of an answer" in given[0]
    finally:
        done.set()
        threads[0].join()
        listener.close()
