"""One query of a real client, recorded: sent again as a client that does nothing else, answered again by a peer that does nothing else."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from archive.dimse.command import Command
from archive.dimse.pdu import COMMAND_FRAGMENT, PDU_HEADER, release_rp, release_rq
from scripts.bench.common import Missing

_PENDING = (0xFF00, 0xFF01)
_STATUS = 0x0900
_HEADERS = 12  # of a P-DATA-TF with one fragment


class Recorded(NamedTuple):
    """A-ASSOCIATE-RQ, command and identifier; A-ASSOCIATE-AC, all responses."""

    proposed: bytes
    request: bytes
    accepted: bytes
    responses: bytes


def record(port: int, command_of: Callable[[int], Sequence[str]]) -> Recorded:
    """What a client that asks one thing sends, and the peer at a port answers.

    Parameters
    ----------
    command_of : callable
        The client's command for a port.
    """
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        client = subprocess.Popen(command_of(listener.getsockname()[1]), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            with listener.accept()[0] as near, socket.create_connection(("127.0.0.1", port)) as far:
                proposed = _pdu(near)
                far.sendall(proposed)
                accepted = _pdu(far)
                near.sendall(accepted)
                request = _pdu(near) + _pdu(near)
                far.sendall(request)
                responses = b"".join(_until_final(far))
                near.sendall(responses)
                far.sendall(_pdu(near))
                near.sendall(_pdu(far))
        finally:
            client.wait(30)
    return Recorded(proposed, request, accepted, responses)


@contextmanager
def replayed(recorded: Recorded) -> Iterator[int]:
    """The port of a peer that gives these answers to whoever comes, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, recorded), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ask_again(port: int, recorded: Recorded, times: int) -> float:
    """Queries a second on one association, from request to last response, one after the other.

    Raises
    ------
    Missing
        The responses have another length.
    """
    with socket.create_connection(("127.0.0.1", port)) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.sendall(recorded.proposed)
        _pdu(peer)
        started = time.monotonic()
        for _ in range(times):
            peer.sendall(recorded.request)
            length = sum(map(len, _until_final(peer)))
            if length != len(recorded.responses):
                raise Missing(f"responses of {length} bytes, not {len(recorded.responses)}")
        seconds = time.monotonic() - started
        peer.sendall(release_rq())
        _pdu(peer)
    return times / seconds


def _serve(listener: socket.socket, recorded: Recorded) -> None:
    with suppress(OSError):  # The end.
        while True:
            connection = listener.accept()[0]
            with connection, suppress(Missing):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _pdu(connection)
                connection.sendall(recorded.accepted)
                _pdu(connection), _pdu(connection)
                connection.sendall(recorded.responses)
                _pdu(connection)
                connection.sendall(release_rp())


def _until_final(peer: socket.socket) -> Iterator[bytes]:
    while True:
        pdu = _pdu(peer)
        yield pdu
        if pdu[_HEADERS - 1] & COMMAND_FRAGMENT and Command.decode(pdu[_HEADERS:]).number(_STATUS) not in _PENDING:
            return


def _pdu(peer: socket.socket) -> bytes:
    header = _exactly(peer, PDU_HEADER.size)
    return header + _exactly(peer, PDU_HEADER.unpack(header)[1])


def _exactly(peer: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = peer.recv(count - len(data))
        if not more:
            raise Missing("a peer ended in the middle of a PDU")
        data += more
    return bytes(data)
