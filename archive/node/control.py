"""The control socket: how a verb talks to the node that has the data folder. `archive.node.asking` is the verb's end.

The verb sends one request, `{"verb": "pack-now"}`; the node answers with any number of `{"progress": text}` and at last
`{"done": true, ...}` or `{"error": text, "kind": name}`. The socket belongs to the supervisor, so it outlives the packer
that serves it; it is open to the user of the node alone.
"""

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping

from archive.errors import ArchiveError, BadInput, Exhausted, NotUnderstood
from archive.node.messages import Message, error_message, receive, send, to_json

CONNECTIONS_MAX = 16
REQUEST_SECONDS_MAX = 10.0
RETRY_SECONDS = 1.0
"""After a connection that could not be accepted, as where too many files are open."""

Progress = Callable[[str], None]
Verb = Callable[[Message, Progress], object]

_log = logging.getLogger(__name__)


class ControlServer:
    """Answers verbs on a listening unix socket, each connection in a thread of its own.

    Parameters
    ----------
    listener : socket.socket
        Bound and listening.
    verbs : mapping of str to callable
        What `{"verb": name}` runs: it gets the request and a callable for progress lines, and returns a report.
    """

    def __init__(self, listener: socket.socket, verbs: Mapping[str, Verb]) -> None:
        self._listener = listener
        self._verbs = verbs
        self._room = threading.BoundedSemaphore(CONNECTIONS_MAX)
        self._running: set[threading.Thread] = set()

    def start(self) -> None:
        """Accept from now on, in a thread that ends with the process."""
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def join(self, seconds: float) -> bool:
        """Wait for what is being answered; False where it takes longer."""
        deadline = time.monotonic() + seconds
        for thread in list(self._running):
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in list(self._running))

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                if self._listener.fileno() < 0:
                    return  # Closed by us.
                _log.error("no control connection can be accepted: %s", error.strerror)
                time.sleep(RETRY_SECONDS)
                continue
            if not self._room.acquire(blocking=False):
                with connection, contextlib.suppress(OSError):
                    send(connection, error_message(Exhausted(f"{CONNECTIONS_MAX} control requests are running")))
                continue
            thread = threading.Thread(target=self._serve, args=(connection,), name="control-request", daemon=True)
            self._running.add(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection, contextlib.suppress(OSError):
                self._answer(connection)
        finally:
            self._room.release()
            self._running.discard(threading.current_thread())

    def _answer(self, connection: socket.socket) -> None:
        connection.settimeout(REQUEST_SECONDS_MAX)
        try:
            request = next(receive(connection), None)
            if request is None:
                return
            verb = self._verbs.get(str(request.get("verb")))
            if verb is None:
                raise BadInput(f"unknown control verb {request.get('verb')!r}; known: {', '.join(sorted(self._verbs))}")

            def progress(text: str) -> None:
                # A caller that left does not stop what it asked for.
                with contextlib.suppress(OSError):
                    send(connection, {"progress": text})

            report = to_json(verb(request, progress))
        except ArchiveError as error:
            send(connection, error_message(error))
        except TimeoutError:
            send(connection, error_message(NotUnderstood("no request came")))
        except Exception as error:
            _log.exception("control verb failed")
            send(connection, {"error": f"internal error: {error}", "kind": "ArchiveError"})
        else:
            send(connection, {"done": True, **(report if isinstance(report, dict) else {"report": report})})
