"""The sockets that workers inherit, and the rule for binding them beyond loopback."""

import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from archive.errors import ArchiveError, WrongUse

if TYPE_CHECKING:
    from archive.config import Settings

CONTROL_SOCKET = "control.sock"
BACKLOG = 512


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket bound to an address, not yet listening: callers are refused until the node is ready.

    Raises
    ------
    WrongUse
        The host has no such address.
    ArchiveError
        The port is taken or not allowed.
    """
    family, address = _resolve(host, port)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ArchiveError(f"cannot bind {host}:{port}: {error.strerror}") from error
    return listener


def listen(listener: socket.socket) -> None:
    """Let callers in.

    Raises
    ------
    ArchiveError
        Another process listens there already.
    """
    try:
        listener.listen(BACKLOG)
    except OSError as error:
        raise ArchiveError(f"cannot listen on {address_of(listener)}: {error.strerror}") from error


def address_of(listener: socket.socket) -> str:
    """HOST:PORT as bound, port 0 resolved; an IPv6 host in brackets."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def want_policy(settings: "Settings") -> None:
    """Refuse to serve strangers unless the settings say that they are welcome (promise P8).

    On loopback every caller is welcome. Elsewhere DIMSE wants to know its calling AE titles, and HTTP, which cannot tell its
    callers apart yet, wants the explicit word.

    Raises
    ------
    WrongUse
        Bound beyond loopback without a policy.
    """
    host = settings.node.host
    if settings.node.open or ip_address(_resolve(host, 0)[1][0].partition("%")[0]).is_loopback:
        return
    dimse = settings.dimse
    missing = [] if dimse.calling_ae_titles or dimse.unknown_callers_rejected else ["DIMSE has no dimse.calling_ae_titles"]
    missing.append("HTTP has no access control")
    raise WrongUse(
        f"node.host = {host} is beyond loopback and the node would serve every caller: {', '.join(missing)}; "
        "bind to 127.0.0.1, or say that it may be open with --open (node.open = true)"
    )


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[str, int]]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise WrongUse(f"node.host = {host}: {error.strerror}") from error
    family, _, _, _, address = found[0]
    return family, address  # type: ignore[return-value]


def bind_control(data: Path) -> socket.socket:
    """The listening control socket of a data folder, for this user alone; a stale one is replaced.

    The caller holds the lock of the folder.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    (data / CONTROL_SOCKET).unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        _by_short_path(data, listener.bind)
    except OSError as error:
        listener.close()
        raise ArchiveError(f"control socket {data / CONTROL_SOCKET}: {error.strerror}") from error
    finally:
        os.umask(before)
    listener.listen(16)
    return listener


def connect_control(data: Path) -> socket.socket:
    """A connection to the node of a data folder.

    Raises
    ------
    OSError
        Nobody listens there.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _by_short_path(data, connection.connect)
    except BaseException:
        connection.close()
        raise
    return connection


def _by_short_path(data: Path, use: Callable[[str], None]) -> None:
    """A unix socket's path ends at 108 bytes, a data folder's need not: reach it through a descriptor of the folder."""
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{folder}/{CONTROL_SOCKET}")
    finally:
        os.close(folder)
