"""A DIMSE server for each test that wants one."""

import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from archive.config import Settings, association_limits
from archive.dimse.server import Server
from archive.dimse.service import Service
from archive.dimse.slots import AssociationSlots, create_slots
from archive.dimse.storage import Ingest, Storage
from archive.dimse.verification import Verification
from tests.dimse.receptions import MemoryIngest
from tests.kit import Noted, free_port


@dataclass
class Served:
    """A running server and what it stores into."""

    server: Server
    ingest: MemoryIngest
    port: int
    noted: Noted


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start a server: `serve(artim_seconds=0.5, ingest=MemoryIngest(...))`; settings are those of the dimse section."""
    running: list[tuple[Server, socket.socket]] = []

    def start(
        ingest: Ingest | None = None, services: Sequence[Service] = (), peers: dict[str, Any] | None = None, **settings: Any
    ) -> Served:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", free_port()))
        listener.listen(256)
        everything = Settings.model_validate({"dimse": {"artim_seconds": 2, "stall_seconds_max": 2, **settings}, "peers": peers or {}})
        noted = Noted()
        used, limits = ingest or MemoryIngest(), association_limits(everything)
        server = Server(
            everything,
            listener,
            [Verification(), Storage(used), *services],
            AssociationSlots(create_slots(1, len(limits)), 0, everything.dimse.associations_max, limits),
            noted,
        )
        server.start()
        running.append((server, listener))
        return Served(server, used, listener.getsockname()[1], noted)  # type: ignore[arg-type]

    yield start
    for server, listener in running:
        with listener:
            server.stop(1.0)


@pytest.fixture
def served(serve: Callable[..., Served]) -> Served:
    """A server with default settings and an ingest in memory."""
    return serve()
