"""The accept loop of one worker process: connections become threads, silent ones are bounded, a stop is clean."""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Sequence

from archive.config import Settings
from archive.dimse.association import Association, Surroundings
from archive.dimse.counters import Counters
from archive.dimse.service import Service
from archive.dimse.slots import AssociationSlots
from archive.flow.audit import Audit

log = logging.getLogger(__name__)

UNASSOCIATED_MAX = 128
"""Connections of one process that hold no association: not greeted yet, rejected, or saying farewell. One more, and the oldest goes."""

_YIELD_SECONDS = 0.002
_YIELDS_MAX = 10
_PAUSE_SECONDS = 0.1


class Server:
    """Serves associations from a listening socket that several processes may share.

    Parameters
    ----------
    settings : Settings
        Of the node.
    listener : socket.socket
        Bound and listening; stays open when the server stops.
    services : sequence of Service
        In the order in which they are asked.
    association_slots : AssociationSlots
        Of the node, as this worker sees them.
    audit : Audit, optional
        Takes who read or wrote what.

    Attributes
    ----------
    counters : Counters
        What has been done.
    """

    def __init__(
        self,
        settings: Settings,
        listener: socket.socket,
        services: Sequence[Service],
        association_slots: AssociationSlots,
        audit: Audit | None = None,
    ) -> None:
        self.counters = Counters()
        self._listener = listener
        self._slots = association_slots
        self._around = Surroundings(
            settings=settings.dimse,
            remote_aes=settings.peers,
            services=services,
            slots=association_slots,
            counters=self.counters,
            audit=audit or Audit(None),
            associated=self._associated,
            unassociated=self._unassociated,
        )
        self._lock = threading.Lock()
        self._threads: dict[Association, threading.Thread] = {}
        self._without_association: dict[Association, None] = {}  # oldest first
        self._stop = threading.Event()
        self._waker, self._wake = os.pipe()
        self._acceptor = threading.Thread(target=self._accept, name="dimse-accept", daemon=True)

    def start(self) -> None:
        """Begin to accept; returns at once."""
        self._listener.setblocking(False)  # another process may be faster
        self._acceptor.start()

    def stop(self, drain_seconds: float = 10.0) -> None:
        """End cleanly: accept no more, let messages on their way come to their end, abort the rest. Again, it does nothing.

        Parameters
        ----------
        drain_seconds : float
            How long messages on their way may take.
        """
        if self._stop.is_set():
            return
        self._stop.set()
        os.write(self._wake, b"\0")
        self._acceptor.join()
        os.close(self._wake)
        os.close(self._waker)
        with self._lock:
            unassociated = list(self._without_association)
            threads = dict(self._threads)
        for association in threads:
            association.stop()
        for association in unassociated:
            association.drop()
        if not _join(threads, drain_seconds):
            for association in threads:
                association.stop_now()
            if not _join(threads, 2.0):
                for association in threads:
                    association.drop()
                _join(threads, 1.0)

    def _accept(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._waker, select.POLLIN)
        while not self._stop.is_set():
            poll.poll()
            if self._stop.is_set():
                return
            self._let_others_go_first()
            try:
                connection, address = self._listener.accept()
            except BlockingIOError:
                continue
            except OSError as error:
                # A connection that was reset meanwhile is nothing; no descriptors left is, and passes.
                log.warning("cannot accept: %s", error.strerror)
                time.sleep(_PAUSE_SECONDS)
                continue
            self._begin(connection, f"{address[0]}:{address[1]}")

    def _let_others_go_first(self) -> None:
        """Leave a connection to a process with fewer: two processes do twice the work of one. But not for long: it may hang."""
        for _ in range(_YIELDS_MAX):
            if not self._slots.is_ahead():
                return
            time.sleep(_YIELD_SECONDS)

    def _begin(self, connection: socket.socket, address: str) -> None:
        self.counters.add("connections")
        try:
            association = Association(connection, address, self._around)
            thread = threading.Thread(target=self._run, args=(association,), name=f"dimse-{address}", daemon=True)
        except OSError as error:
            connection.close()
            log.warning("connection lost before it began: peer=%s: %s", address, error.strerror)
            return
        with self._lock:
            self._threads[association] = thread
            self._slots.count_connection(1)
            self._add_without_association(association)
        try:
            thread.start()
        except RuntimeError as error:
            log.error("connection dropped: peer=%s: %s", address, error)
            self._forget(association)
            association.drop()
            connection.close()

    def _run(self, association: Association) -> None:
        try:
            association.run()
        finally:
            self._forget(association)

    def _forget(self, association: Association) -> None:
        with self._lock:
            del self._threads[association]
            self._slots.count_connection(-1)
            self._without_association.pop(association, None)

    def _associated(self, association: Association) -> None:
        with self._lock:
            self._without_association.pop(association, None)

    def _unassociated(self, association: Association) -> None:
        with self._lock:
            self._add_without_association(association)

    def _add_without_association(self, association: Association) -> None:
        self._without_association[association] = None
        if len(self._without_association) > UNASSOCIATED_MAX:
            oldest = next(iter(self._without_association))
            del self._without_association[oldest]
            oldest.drop()


def _join(threads: dict[Association, threading.Thread], seconds: float) -> bool:
    """Wait for all of them, so long at most; whether all ended."""
    deadline = time.monotonic() + seconds
    for thread in threads.values():
        thread.join(max(0.0, deadline - time.monotonic()))
    return not any(thread.is_alive() for thread in threads.values())
