"""Bytes to and from DataNodes. Each transfer is a connection of its own: a DataNode closes it after its answer."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from urllib.parse import quote, urlsplit

from archive.config import WebhdfsSection
from archive.disk import Bytes
from archive.errors import ArchiveError, Unavailable, WrongUse
from archive.tier.webhdfs_answers import error_of, exception_of

ASCII = "".join(map(chr, range(0x21, 0x7F)))
ERROR_BYTES_MAX = 1 << 16
HEAD_BYTES_MAX = 1 << 12
LET_GO_SECONDS = 5.0
RECEIVE_BYTES = 1 << 20
"""On its way to who reads: beyond that a DataNode waits, so that one who pauses stops its work too."""
SEND_BYTES = 4 << 20
"""On its way to a DataNode: what lies ready for it, so that it never waits for a sender whose turn has not come."""


class DataNodes:
    """The DataNodes that NameNodes redirect to.

    Parameters
    ----------
    settings : WebhdfsSection
        `data_nodes` maps names that do not resolve here, as those of containers; time-outs.
    """

    def __init__(self, settings: WebhdfsSection) -> None:
        self._settings = settings
        self._mapped = dict(_mapping(row) for row in settings.data_nodes)

    def _connect(self, location: str) -> tuple[http.client.HTTPConnection, str]:
        """A connection, and what to ask for on it."""
        parts = urlsplit(location)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise Unavailable(f"HDFS redirects to {location}, which is no http:// address with a port")
        host, port = parts.hostname, parts.port
        mapped = self._mapped.get(f"{host}:{port}") or self._mapped.get(host) or ""
        if mapped:
            host, _, given = mapped.partition(":")
            port = int(given or port)
        connection = http.client.HTTPConnection(host, port, timeout=self._settings.connect_seconds)
        try:
            connection.connect()
        except OSError as error:
            raise Unavailable(f"DataNode {parts.netloc}{f' (as {mapped})' if mapped else ''}: {_text(error)}") from error
        connection.sock.settimeout(self._settings.answer_seconds)
        # NameNodes quote what a URL must not hold but leave letters outside of ASCII, which a header's text gives as Latin-1.
        return connection, quote(f"{parts.path}?{parts.query}".encode("latin-1"), safe=ASCII)

    @contextlib.contextmanager
    def get(self, location: str) -> Iterator["Body"]:
        """What answers a GET, not read yet; whoever reads it counts, for a body that is cut short raises nothing.

        Raises
        ------
        NotFound, Unavailable
            It is no success.
        """
        connection, target = self._connect(location)
        try:
            sock = connection.sock
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
            connection.request("GET", target)
            with connection.getresponse() as answer:
                if answer.status != http.client.OK:
                    raise _refusal(location, answer)
                yield Body(sock, answer)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(f"DataNode {urlsplit(location).netloc}: {_text(error)}") from error
        finally:
            connection.close()

    def put(self, location: str, length: int, chunks: Iterable[Bytes], unsettled: Callable[[], None]) -> None:
        """Write a file of exactly this length, known to the DataNode before the first byte; the 201 that ends it is waited for.

        Whatever ends it before leaves a file on HDFS that is cut short and looks whole, for the caller to delete.

        Parameters
        ----------
        unsettled : callable
            Called before this raises where the DataNode did not end the connection in order, so that it may open the file only later.
        """
        connection, target = self._connect(location)
        sock, answered = connection.sock, False
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        who = f"DataNode {urlsplit(location).netloc}"
        try:
            connection.putrequest("PUT", target, skip_accept_encoding=True)
            connection.putheader("Content-Type", "application/octet-stream")
            connection.putheader("Content-Length", str(length))
            connection.putheader("Expect", "100-continue")
            try:
                connection.endheaders()
                _wait_until_read(sock, self._settings.answer_seconds)
            except OSError as error:
                raise Unavailable(f"{who}: {_text(error)}") from error
            broken = _send(sock, chunks)
            try:
                sock.settimeout(self._settings.answer_seconds if broken else self._settings.commit_seconds)
                answer = connection.getresponse()
            except (OSError, http.client.HTTPException) as error:
                raise Unavailable(f"{who} did not confirm what it got: {_text(broken or error)}") from error
            answered = True
            with answer:
                if answer.status != http.client.CREATED:
                    raise _refusal(location, answer)
                if broken:
                    raise Unavailable(f"{who} confirmed what it had not got: {_text(broken)}")
        except BaseException:
            if not answered and not _let_go(sock):
                unsettled()
            raise
        finally:
            connection.close()


class Body:
    """What a DataNode answers, read from its socket in large pieces.

    A DataNode writes 8 KiB at a time. To wake a reader for each of them costs both sides more than the bytes do, so the kernel is told
    how many are waited for.

    Attributes
    ----------
    length : int or None
        As the DataNode says it.
    """

    def __init__(self, sock: socket.socket, answer: http.client.HTTPResponse) -> None:
        self.length = answer.length
        self._sock, self._answer, self._begun = sock, answer, False

    def read(self, length: int) -> bytes:
        """Up to so many bytes, for short answers."""
        return self._answer.read(length)

    def readinto(self, buffer: memoryview) -> int:
        """Fill a buffer; how many bytes there were, fewer only where no more come."""
        got = 0
        if not self._begun:
            self._begun = True
            first = self._answer.read1(len(buffer))  # What came together with the headers lies in a buffer of its own.
            got = len(first)
            buffer[:got] = first
        while got < len(buffer):
            came = self._receive(buffer[got:])
            if not came:
                break
            got += came
        return got

    def _receive(self, room: memoryview) -> int:
        """As much as fits; after a time-out what came until then, for who is slow is not silent."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, len(room))
        try:
            return self._sock.recv_into(room)
        except TimeoutError as silent:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            waits = self._sock.gettimeout()
            self._sock.settimeout(0)
            try:
                return self._sock.recv_into(room)
            except BlockingIOError:
                raise silent from None
            finally:
                self._sock.settimeout(waits)


def _send(sock: socket.socket, chunks: Iterable[Bytes]) -> OSError | None:
    """All of them; what they raise themselves goes out as it is.

    Returns
    -------
    OSError, optional
        Why not: a DataNode that says no (a quota, nobody left to write to) answers and closes while we still send.
    """
    for chunk in chunks:
        try:
            sock.sendall(chunk)
        except OSError as error:
            return error
    return None


def _wait_until_read(sock: socket.socket, seconds: float) -> None:
    """Until the DataNode says 100 (it has read the head of the request) or anything else, which is left to be read as its answer.

    A port that is forwarded takes connections for a DataNode that is dead; so no piece is handed out before one lives.
    """
    seen, until = b"", time.monotonic() + seconds
    while b"\r\n\r\n" not in seen:
        longer = sock.recv(HEAD_BYTES_MAX, socket.MSG_PEEK)
        if not longer:
            raise ConnectionError("it closed the connection without an answer")
        if len(longer) == HEAD_BYTES_MAX or not longer.startswith(b"HTTP/1.1 100"[: len(longer)]):
            return
        if longer == seen:
            if time.monotonic() > until:  # Behind bytes that are only looked at no end of a connection shows.
                raise TimeoutError("it sent part of an answer, and no more of it")
            time.sleep(0.001)
        seen = longer
    sock.recv(seen.index(b"\r\n\r\n") + 4)


def _let_go(sock: socket.socket) -> bool:
    """End our side and wait until the DataNode has ended its own, having read all that we sent; False where it does not."""
    try:
        sock.settimeout(LET_GO_SECONDS)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(65536):
            pass
    except OSError:
        return False
    return True


def _refusal(location: str, answer: http.client.HTTPResponse) -> ArchiveError:
    parts = urlsplit(location)
    try:
        exception, message = exception_of(json.loads(answer.read(ERROR_BYTES_MAX)))
    except (OSError, http.client.HTTPException, ValueError):
        exception, message = "", ""
    return error_of(f"DataNode {parts.netloc}, {parts.path}", answer.status, exception, message)


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _mapping(row: str) -> tuple[str, str]:
    name, separator, address = (part.strip() for part in row.partition("="))
    port = address.partition(":")[2]
    if not (name and separator and address) or (":" in address and not port.isdecimal()):
        raise WrongUse(f"webhdfs.data_nodes: {row!r} is not NAME=HOST, NAME=HOST:PORT or NAME:PORT=HOST:PORT")
    return name, address
