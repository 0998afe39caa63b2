"""A peer that thinks of nothing: it sends again, byte for byte, what another one answered. How fast a client can be at all."""

import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NamedTuple

from archive.dimse.command import Command
from archive.dimse.pdu import COMMAND_FRAGMENT, PDU_HEADER, release_rp
from scripts.bench.common import Missing

_PENDING = (0xFF00, 0xFF01)
_STATUS = 0x0900
_HEADERS = 12  # of a P-DATA-TF with one fragment


class Answers(NamedTuple):
    """A-ASSOCIATE-AC, and everything that answers the one request."""

    accepted: bytes
    responses: bytes


def record(port: int, command_of: Callable[[int], Sequence[str]]) -> Answers:
    """What the peer at a port answers to a client that asks one thing.

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
                far.sendall(_pdu(near))
                accepted = _pdu(far)
                near.sendall(accepted)
                far.sendall(_pdu(near) + _pdu(near))  # Command and identifier.
                responses = b"".join(_until_final(far))
                near.sendall(responses)
                far.sendall(_pdu(near))
                near.sendall(_pdu(far))
        finally:
            client.wait(30)
    return Answers(accepted, responses)


@contextmanager
def replayed(answers: Answers) -> Iterator[int]:
    """The port of a peer that gives these answers to whoever comes, one after the other."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_serve, args=(listener, answers), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _serve(listener: socket.socket, answers: Answers) -> None:
    with suppress(OSError):  # The end.
        while True:
            connection = listener.accept()[0]
            with connection, suppress(Missing):
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                _pdu(connection)
                connection.sendall(answers.accepted)
                _pdu(connection), _pdu(connection)
                connection.sendall(answers.responses)
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
