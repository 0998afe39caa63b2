"""JSON as everything here writes and reads it: compact UTF-8 (RFC 8259)."""

from typing import Any

import orjson

from archive.errors import NotUnderstood


def dumps(value: Any) -> bytes:
    """One line of UTF-8 JSON; the order of keys is kept, NaN and infinities become null.

    Raises
    ------
    TypeError
        The value holds something that JSON has no word for.
    """
    return orjson.dumps(value)


def loads(text: bytes | bytearray | memoryview | str) -> Any:
    """The value that a JSON text stands for.

    Raises
    ------
    NotUnderstood
        The text is not JSON.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NotUnderstood(f"not JSON: {error}") from error
