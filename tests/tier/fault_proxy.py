"""A proxy that stands before a NameNode or DataNode and does to single requests what networks and crashing machines do."""

import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from tests.kit import free_port

PIECE_BYTES = 65536
LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")


@dataclass
class Fault:
    """What happens to the next `times` requests whose first line holds `match`.

    Attributes
    ----------
    refuse : bool
        The connection is reset before anything is passed on.
    request_bytes : int, optional
        So much of the request's body is passed on, then both sides are reset.
    request : callable, optional
        What becomes of the request's body; its new length goes into the header.
    answer_bytes : int, optional
        The request is done, all of it; so much of the answer is passed on, then the client is reset. 0: done, but not told.
    answer : callable, optional
        What becomes of the whole answer, head and body.
    delay_seconds : float
        The request is passed on so much later, whether its client still waits or not.
    """

    match: str = ""
    times: int = 1
    refuse: bool = False
    request_bytes: int | None = None
    request: Callable[[bytes], bytes] | None = None
    answer_bytes: int | None = None
    answer: Callable[[bytes], bytes] | None = None
    delay_seconds: float = 0.0
    seen: int = field(default=0, init=False)


class FaultProxy:
    """One HTTP server behind a port of its own; each connection carries one request."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target, self.port = target, free_port()
        self.faults: list[Fault] = []
        self.requests: list[str] = []
        self._lock = threading.Lock()
        self._listening = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "the fault proxy still passes something on"

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _take(self, first_line: str) -> Fault:
        with self._lock:
            self.requests.append(first_line)
            for fault in self.faults:
                if fault.match in first_line and fault.seen < fault.times:
                    fault.seen += 1
                    return fault
        return Fault()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            head, rest = _read_head(client)
            if not head:
                return None
            fault = self._take(head.partition(b"\r\n")[0].decode("latin-1"))
            if fault.refuse:
                return _reset(client)
            time.sleep(fault.delay_seconds)
            with socket.create_connection(self.target, timeout=60) as server:
                self._pass(client, server, head, rest, fault)
        return None

    def _pass(self, client: socket.socket, server: socket.socket, head: bytes, rest: bytes, fault: Fault) -> None:
        length = int(found[1]) if (found := LENGTH.search(head)) else 0
        body = _body(client, rest, length)
        expects = b"Expect: 100-continue" in head
        if fault.request is not None:
            if expects:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            changed = fault.request(b"".join(body))
            head, body = LENGTH.sub(b"\r\nContent-Length: %d" % len(changed), head), iter([changed])
        server.sendall(head.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1).replace(b"Connection: keep-alive\r\n", b"", 1))
        if expects and fault.request is None:
            client.sendall(b"".join(_read_head(server)))
        passed = 0
        for piece in body:
            if fault.request_bytes is not None and passed + len(piece) > fault.request_bytes:
                server.sendall(piece[: fault.request_bytes - passed])
                _reset(client)
                return
            server.sendall(piece)
            passed += len(piece)
        if passed < length and fault.request is None:  # the client has gone
            return
        self._pass_back(client, server, fault)

    def _pass_back(self, client: socket.socket, server: socket.socket, fault: Fault) -> None:
        if fault.answer_bytes is None and fault.answer is None:
            while piece := server.recv(PIECE_BYTES):
                client.sendall(piece)
            return
        whole = b"".join(iter(lambda: server.recv(PIECE_BYTES), b""))
        if fault.answer is not None:
            client.sendall(fault.answer(whole))
        else:
            client.sendall(whole[: fault.answer_bytes])
            time.sleep(0.05)  # a reset would overtake what was sent
            _reset(client)


def _read_head(client: socket.socket) -> tuple[bytes, bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = client.recv(PIECE_BYTES)
        if not piece:
            return b"", b""
        data += piece
    head, _, rest = data.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _body(client: socket.socket, rest: bytes, length: int) -> Iterator[bytes]:
    if rest:
        yield rest
    left = length - len(rest)
    while left > 0:
        piece = client.recv(min(PIECE_BYTES, left))
        if not piece:
            return
        left -= len(piece)
        yield piece


def _reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def says(http_status: str, exception: str) -> Callable[[bytes], bytes]:
    """An answer with a WebHDFS exception in place of the real one."""
    body = f'{{"RemoteException":{{"exception":"{exception}","javaClassName":"x.{exception}","message":"told by a test"}}}}'.encode()
    head = f"HTTP/1.1 {http_status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return lambda _: head.encode() + body


@contextmanager
def standing(*proxies: FaultProxy) -> Iterator[None]:
    try:
        yield
    finally:
        for proxy in proxies:
            proxy.close()
