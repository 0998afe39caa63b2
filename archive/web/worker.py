"""One worker process: accepts connections from a socket that it shares with others, and serves them until it is told to stop."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable

from aiohttp import web

from archive.config import Settings
from archive.errors import WrongUse
from archive.flow.home import Home
from archive.web.application import create_application
from archive.web.counters import Counters
from archive.web.services import SERVICES

STOP_SECONDS = 8.0
"""How long requests under way may go on after the word to stop."""

_PAUSE_SECONDS = 0.0002
_PAUSE_SECONDS_MAX = 0.005
_NO_DESCRIPTOR_SECONDS = 0.1
_FIRST_WORD_SECONDS = 0.25
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nAccess-Control-Allow-Origin: *\r\nRetry-After: 1\r\n"
    b"Connection: close\r\nContent-Length: 72\r\n\r\n"
    b'{"error":"Service Unavailable","detail":"too many connections are open"}'
)

log = logging.getLogger(__name__)


class Acceptor:
    """Takes connections from a listening socket that other processes take from too.

    One at a time, with a short pause after each that grows with what this worker has open already: so the worker that has the least
    to do gets the next one, and a burst does not all land in the process that wakes first.

    Parameters
    ----------
    listener : socket
        Listening, non-blocking.
    server : aiohttp.web.Server
        Makes the protocol of a connection and knows which are open.
    connections_max : int
        Beyond it a connection is told 503 and closed.
    counters : Counters
        Of this worker.
    """

    def __init__(self, listener: socket.socket, server: web.Server, connections_max: int, counters: Counters) -> None:
        self._listener = listener
        self._server = server
        self._connections_max = connections_max
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._opening: set[asyncio.Task[None]] = set()
        self._resume: asyncio.TimerHandle | None = None
        self._stopped = False

    def start(self) -> None:
        """Accept from now on."""
        self._resume = None
        if not self._stopped:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    async def stop(self) -> None:
        """Accept nothing more; what is open stays open, and who was accepted a moment ago can still say what it wants."""
        self._stopped = True
        self._loop.remove_reader(self._listener.fileno())
        if self._resume is not None:
            self._resume.cancel()
        if self._opening:
            await asyncio.wait(self._opening)
        if self._server.connections:
            await asyncio.sleep(_FIRST_WORD_SECONDS)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # Another worker was quicker, or the client went away again.
        except OSError as error:
            log.error("no connection can be accepted: %s", error.strerror)
            self._pause(_NO_DESCRIPTOR_SECONDS)
            return
        open_now = len(self._server.connections)
        self._counters.add("connections_total")
        self._counters.set("connections_open", open_now + 1)
        if open_now >= self._connections_max:
            self._counters.add("connections_refused_total")
            connection.setblocking(False)
            try:
                connection.send(_FULL)
            except OSError as error:
                log.debug("a refused connection did not wait for its answer: %s", error)
            connection.close()
            return
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = self._loop.create_task(self._open(connection))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)
        if open_now:
            self._pause(min(_PAUSE_SECONDS * open_now, _PAUSE_SECONDS_MAX))

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener.fileno())
        self._resume = self._loop.call_later(seconds, self.start)

    async def _open(self, connection: socket.socket) -> None:
        try:
            connection.setblocking(False)
            await self._loop.connect_accepted_socket(self._server, connection)
        except OSError as error:
            log.debug("a connection was gone before it was served: %s", error)
            connection.close()


def run(listener: socket.socket, settings: Settings, *, worker: int = 0, ready: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT; then requests under way are finished, for eight seconds at most.

    Parameters
    ----------
    listener : socket
        Bound and listening; other workers may hold it too.
    settings : Settings
        Of the node.
    worker : int
        Number of this worker, from 0.
    ready : callable, optional
        Called once connections are accepted.
    """
    home = Home(settings)
    try:
        asyncio.run(serve(listener, create_application(home, worker=worker), ready=ready))
    finally:
        home.close()


async def serve(
    listener: socket.socket, application: web.Application, *, ready: Callable[[], None] | None = None, stop: asyncio.Event | None = None
) -> None:
    """Serve an application from a listening socket until `stop` is set; without one, until SIGTERM or SIGINT."""
    services = application[SERVICES]
    if stop is None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    listener.setblocking(False)
    runner = web.AppRunner(
        application,
        access_log=None,
        keepalive_timeout=services.settings.web.idle_seconds_max,
        shutdown_timeout=STOP_SECONDS,
    )
    await runner.setup()
    if runner.server is None:
        raise WrongUse("the web worker has no server")
    acceptor = Acceptor(listener, runner.server, services.settings.web.connections_max, services.counters)
    acceptor.start()
    if ready is not None:
        ready()
    try:
        await stop.wait()
    finally:
        await acceptor.stop()
        await runner.cleanup()
