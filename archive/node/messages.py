"""Messages between processes of a node: one JSON object a line, over a stream socket."""

import json
import socket
from collections.abc import Iterator
from typing import Any

from archive.errors import NotUnderstood

MESSAGE_BYTES_MAX = 4 << 20

Message = dict[str, Any]


def send(connection: socket.socket, message: Message) -> None:
    """Send one message whole.

    Raises
    ------
    OSError
        The other side is gone.
    """
    connection.sendall(encode(message))


def encode(message: Message) -> bytes:
    """One message as it goes over the wire."""
    return json.dumps(message).encode() + b"\n"


def receive(connection: socket.socket) -> Iterator[Message]:
    """The messages of the other side, until it closes; a last line without its end is no message.

    Raises
    ------
    NotUnderstood
        A line that is no JSON object, or one that never ends.
    OSError
        The connection broke.
    """
    with connection.makefile("rb") as stream:
        while (line := stream.readline(MESSAGE_BYTES_MAX)).endswith(b"\n"):
            yield decode(line)
        if len(line) >= MESSAGE_BYTES_MAX:
            raise NotUnderstood(f"a message of more than {MESSAGE_BYTES_MAX} bytes")


def decode(line: bytes) -> Message:
    """One line as a message.

    Raises
    ------
    NotUnderstood
        It is no JSON object.
    """
    try:
        message = json.loads(line)
    except ValueError as error:
        raise NotUnderstood(f"not a JSON message: {line[:80]!r}") from error
    if not isinstance(message, dict):
        raise NotUnderstood(f"not a JSON object: {line[:80]!r}")
    return message
