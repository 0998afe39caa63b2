"""Messages between processes of a node: one JSON object a line, over a stream socket."""

import dataclasses
import json
import socket
from collections.abc import Iterator
from typing import Any

from archive import errors
from archive.errors import ArchiveError, NotUnderstood

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


def error_message(error: ArchiveError) -> Message:
    """An error as a message, for the other side to raise again."""
    return {"error": str(error), "kind": type(error).__name__}


def error_of(message: Message) -> ArchiveError:
    """The error that a message carries."""
    kind = getattr(errors, str(message.get("kind")), ArchiveError)
    if not (isinstance(kind, type) and issubclass(kind, ArchiveError)):
        kind = ArchiveError
    return kind(str(message["error"]))


def to_json(value: object) -> Any:
    """A report as JSON values: dataclasses and tuples with what they hold, anything else that JSON lacks as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_json(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
