"""A verb's end of the control socket: whether a node has the folder, and having it do something.

It imports little: a verb that a node answers reads no settings of its own.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from archive.errors import Locked, Unavailable
from archive.node.lock import holder_of
from archive.node.messages import Message, error_of, receive, send
from archive.node.sockets import connect_control

CONNECT_SECONDS_MAX = 10.0
"""Wait for the socket of a node that just took the lock."""

Progress = Callable[[str], None]


def node_runs(data: Path) -> bool:
    """Whether a node has the folder."""
    holder = holder_of(data)
    return holder is not None and holder.verb == "serve"


def ask_or_do(data: Path, request: Message, progress: Progress, do: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Have the node of a data folder do something, as `ask`; where none runs, do it here.

    Parameters
    ----------
    do : callable
        Does it under the lock; raises `Locked` where it does not get that.
    """
    if not node_runs(data):
        try:
            return do()
        except Locked:
            # A node may have started in between: then it is the one to ask.
            if not node_runs(data):
                raise
    return ask(data, request, progress)


def ask(data: Path, request: Message, progress: Progress) -> dict[str, Any]:
    """Have the node of a data folder do something and wait until it is done.

    Returns
    -------
    dict
        The node's report.

    Raises
    ------
    Unavailable
        No node answers, or it went away before it was done.
    ArchiveError
        What the node says no with.
    """
    try:
        with _connect(data) as connection:
            send(connection, request)
            for message in receive(connection):
                if "error" in message:
                    raise error_of(message)
                if message.get("done"):
                    return message
                progress(str(message.get("progress", "")))
    except OSError as error:
        raise Unavailable(f"the node of {data} does not answer: {error.strerror or error}") from error
    raise Unavailable(f"the node of {data} went away before it was done")


def _connect(data: Path) -> socket.socket:
    deadline = time.monotonic() + CONNECT_SECONDS_MAX
    while True:
        try:
            return connect_control(data)
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline or holder_of(data) is None:
                raise
            time.sleep(0.05)
