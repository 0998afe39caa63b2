"""Exact reads and limits on silence, over real sockets."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from archive.dimse.pdu import ConnectionLost, OutOfTime
from archive.dimse.wire import BUFFER_BYTES, Wire


@pytest.fixture
def ends() -> Iterator[tuple[Wire, socket.socket]]:
    """A wire with a stall limit of 0.3 s and an idle limit of 0.6 s, and the other end of it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname(), timeout=10)
        ours, _ = listener.accept()
    wire = Wire(ours, 0.3, 0.6)
    yield wire, theirs
    wire.close()
    theirs.close()


def send_slowly(theirs: socket.socket, pieces: list[bytes], pause_seconds: float) -> threading.Thread:
    def send() -> None:
        for piece in pieces:
            time.sleep(pause_seconds)
            theirs.sendall(piece)

    sender = threading.Thread(target=send)
    sender.start()
    return sender


def read(wire: Wire, count: int) -> bytes:
    memory = bytearray(count)
    wire.read_into(memoryview(memory))
    return bytes(memory)


def test_bytes_come_in_order_however_they_are_read(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    data = bytes(n * 7 % 251 for n in range(400_000))
    sender = send_slowly(theirs, [data[at : at + 997] for at in range(0, len(data), 997)], 0)
    got, counts = b"", [1, 6, 12, BUFFER_BYTES, 3, 5000, BUFFER_BYTES - 1, 2]
    for count in counts:
        got += bytes(wire.take(count))
        got += read(wire, count)
    wire.skip(20_000)
    assert got == data[: len(got)]
    rest = read(wire, len(data) - len(got) - 20_000)
    assert rest == data[len(got) + 20_000 :]
    sender.join()


@pytest.mark.parametrize("sent", [b"", b"abc"])
def test_a_peer_that_closes_is_lost(ends: tuple[Wire, socket.socket], sent: bytes) -> None:
    wire, theirs = ends
    theirs.sendall(sent)
    theirs.close()
    with pytest.raises(ConnectionLost):
        wire.take(4)


def test_a_peer_that_resets_is_lost(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    with pytest.raises(ConnectionLost):
        wire.take(4)
    with pytest.raises(ConnectionLost):
        wire.send(b"x" * 100)
        wire.send(b"x" * 100)


def seconds_until_out_of_time(wire: Wire, count: int, idle: bool) -> float:
    started = time.monotonic()
    with pytest.raises(OutOfTime):
        wire.take(count, idle)
    return time.monotonic() - started


def test_silence_before_something_is_longer_than_inside(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    assert 0.55 < seconds_until_out_of_time(wire, 6, idle=True) < 2
    theirs.sendall(b"abc")
    assert 0.25 < seconds_until_out_of_time(wire, 6, idle=True) < 0.55


def test_an_idle_limit_below_the_stall_limit_holds_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()) as peer:
        wire = Wire(listener.accept()[0], 0.6, 0.2)
        assert 0.15 < seconds_until_out_of_time(wire, 6, idle=True) < 0.55
        peer.sendall(b"a")
        assert 0.55 < seconds_until_out_of_time(wire, 6, idle=True) < 2
        wire.close()


def test_a_slow_peer_is_not_a_silent_one(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    sender = send_slowly(theirs, [b"x"] * 8, 0.1)
    assert read(wire, 8) == b"x" * 8
    sender.join()


def test_a_deadline_ends_the_slow_one_too(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    sender = send_slowly(theirs, [b"x"] * 8, 0.1)
    wire.set_deadline(time.monotonic() + 0.35)
    with pytest.raises(OutOfTime):
        read(wire, 8)
    sender.join()
    wire.set_deadline(None)
    assert read(wire, 3)


def test_a_peer_that_takes_nothing_is_out_of_time(ends: tuple[Wire, socket.socket]) -> None:
    wire, _ = ends
    with pytest.raises(OutOfTime, match="took nothing"):
        wire.send(bytes(64 << 20))


def test_reads_can_be_ended_from_another_thread(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    threading.Timer(0.1, wire.interrupt).start()
    with pytest.raises(ConnectionLost):
        wire.take(1, idle=True)
    wire.send(b"bye")
    assert theirs.recv(3) == b"bye"


def test_farewell_waits_for_the_peer_to_close(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    theirs.sendall(bytes(1000))
    threading.Timer(0.2, theirs.close).start()
    started = time.monotonic()
    wire.await_close(5)
    assert 0.15 < time.monotonic() - started < 2


def test_farewell_waits_no_longer_than_told(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    theirs.sendall(bytes(1000))
    started = time.monotonic()
    wire.await_close(0.2)
    assert 0.15 < time.monotonic() - started < 0.5


def test_each_read_asks_for_quick_acknowledgement(ends: tuple[Wire, socket.socket]) -> None:
    wire, theirs = ends
    ours = wire._socket
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    theirs.sendall(b"x")
    wire.take(1)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
