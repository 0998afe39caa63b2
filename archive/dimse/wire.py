"""One TCP connection, read and written by one thread: exact reads with limits on silence, bytes received where they belong.

Long reads are received straight into the caller's memory, and what comes right behind them into a buffer by the same system call, so
that headers cost none of their own. A sender with Nagle's algorithm on holds back the end of each PDU until everything before it is
acknowledged, and Linux delays that by 40 ms and more once a connection looks like a conversation. TCP_QUICKACK says that it is none; it
is set again before the first read after each send, because sending is what makes Linux forget it.
"""

import contextlib
import select
import socket
import struct
import time
from collections.abc import Sequence

from archive.dicom.scan import Buffer
from archive.dimse.pdu import ConnectionLost, OutOfTime

BUFFER_BYTES = 65536
PARTS_MAX = 1024
"""Pieces of memory that Linux takes in one call (IOV_MAX)."""


class Wire:
    """A connected socket under this thread's sole use.

    Parameters
    ----------
    connection : socket.socket
        Owned from here on.
    stall_seconds : float
        Longest silence inside something begun, and longest wait for the peer to take what is sent.
    idle_seconds : float
        Longest silence before something begins.
    """

    def __init__(self, connection: socket.socket, stall_seconds: float, idle_seconds: float) -> None:
        self._socket = connection
        self._stall_seconds = stall_seconds
        self._idle_seconds = idle_seconds
        # The kernel keeps the time of a blocking read, so that it costs no poll before it.
        self._read_seconds = min(stall_seconds, idle_seconds)
        self._deadline: float | None = None
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._start = self._end = 0
        self._acknowledges = False
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(stall_seconds))
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(self._read_seconds))

    def set_deadline(self, deadline: float | None) -> None:
        """Let no read wait beyond a moment of `time.monotonic()`, however lively the peer is; None: no such moment."""
        self._deadline = deadline

    def take(self, count: int, idle: bool = False) -> memoryview:
        """The next `count` bytes, at most `BUFFER_BYTES`; valid until the next call.

        Parameters
        ----------
        count : int
            Bytes.
        idle : bool
            They begin something: before the first of them the peer may be silent for `idle_seconds`.

        Raises
        ------
        ConnectionLost
            The connection ended before them.
        OutOfTime
            The peer was silent for too long.
        """
        start = self._start
        if self._end - start < count:
            self._fill(count, idle)
            start = self._start
        self._start = end = start + count
        return self._buffer[start:end]

    def read_into(self, target: memoryview, ahead: int = 0) -> None:
        """Fill `target` with the next bytes; raises as `take` does.

        Parameters
        ----------
        ahead : int
            So many bytes must come behind them: they may be waited for, too.
        """
        wanted = len(target)
        filled = min(self._end - self._start, wanted)
        if filled:
            target[:filled] = self._buffer[self._start : self._start + filled]
            self._start += filled
        while filled < wanted:  # The buffer is empty.
            filled += self._receive([target[filled:], self._buffer[:ahead]], self._stall_seconds, socket.MSG_WAITALL)
            if filled > wanted:
                self._start, self._end, filled = 0, filled - wanted, wanted

    def skip(self, count: int) -> None:
        """Read `count` bytes and forget them; raises as `take` does."""
        while count:
            count -= len(self.take(min(count, BUFFER_BYTES)))

    def has_bytes(self) -> bool:
        """Whether the peer sent something that was not taken yet, or closed the connection; does not wait."""
        if self._end > self._start:
            return True
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def send(self, data: bytes | bytearray) -> None:
        """Send all of it.

        Raises
        ------
        ConnectionLost
            The peer is gone.
        OutOfTime
            The peer took nothing for `stall_seconds`.
        """
        self._acknowledges = False
        try:
            self._socket.sendall(data)
        except BlockingIOError:
            raise OutOfTime(f"the peer took nothing for {self._stall_seconds:g} s") from None
        except OSError as error:
            raise ConnectionLost(f"connection lost: {error.strerror}") from None

    def send_parts(self, parts: Sequence[Buffer]) -> None:
        """Send pieces of memory one after the other without joining them; raises as `send` does."""
        at = 0
        self._acknowledges = False
        try:
            while at < len(parts):
                some = parts[at : at + PARTS_MAX]
                sent = self._socket.sendmsg(some)
                for part in some:
                    if sent < len(part):
                        break
                    sent -= len(part)
                    at += 1
                if sent:  # The kernel took a piece of one.
                    self._socket.sendall(memoryview(parts[at])[sent:])
                    at += 1
        except BlockingIOError:
            raise OutOfTime(f"the peer took nothing for {self._stall_seconds:g} s") from None
        except OSError as error:
            raise ConnectionLost(f"connection lost: {error.strerror}") from None

    def await_close(self, seconds: float) -> None:
        """Read and forget until the peer closes, for `seconds` at most.

        Closing at once would answer bytes of the peer that are still unread with a reset, and a reset makes the peer's
        system forget what we said last.
        """
        self._deadline = time.monotonic() + seconds
        with contextlib.suppress(ConnectionLost, OutOfTime):
            while True:
                self._start = self._end = 0
                self._fill(1, idle=True)

    def interrupt(self) -> None:
        """End the reads of the thread that uses this, from another thread; it can still send."""
        with contextlib.suppress(OSError):  # the peer may be gone already
            self._socket.shutdown(socket.SHUT_RD)

    def drop(self) -> None:
        """End the reads and writes of the thread that uses this, from another thread."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _fill(self, count: int, idle: bool) -> None:
        """Have at least `count` bytes in the buffer."""
        held = self._end - self._start
        if not held or self._start + count > BUFFER_BYTES:
            self._buffer[:held] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, held
        while self._end - self._start < count:
            silence_seconds = self._idle_seconds if idle and self._end == self._start else self._stall_seconds
            self._end += self._receive([self._buffer[self._end :]], silence_seconds)

    def _receive(self, targets: list[memoryview], silence_seconds: float, flags: int = 0) -> int:
        """Receive what there is, at least one byte, into one piece of memory after the other."""
        try:
            if not self._acknowledges:
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
                self._acknowledges = True
            if self._deadline is not None:
                self._await_bytes(min(silence_seconds, self._deadline - time.monotonic()))
                flags = 0
            try:
                count = self._socket.recvmsg_into(targets, 0, flags)[0]
            except BlockingIOError:
                self._await_bytes(silence_seconds - self._read_seconds)
                count = self._socket.recvmsg_into(targets)[0]
        except OSError as error:
            raise ConnectionLost(f"connection lost: {error.strerror}") from None
        if count:
            return count
        raise ConnectionLost("connection closed by the peer")

    def _await_bytes(self, seconds: float) -> None:
        """Wait until there is something to receive."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        if not poll.poll(max(0.0, seconds) * 1000):
            raise OutOfTime("the peer was silent for too long")


def _timeval(seconds: float) -> bytes:
    whole = int(seconds)
    return struct.pack("@ll", whole, max(int((seconds - whole) * 1_000_000), 0 if whole else 1))  # 0 would mean for ever
