"""Log lines: one event, one line, whatever is in it."""

import logging
import re
import sys

from archive.node.logs import OneLine


def format_record(message: str, *arguments: object, error: BaseException | None = None) -> str:
    info = (type(error), error, error.__traceback__) if error else None
    return OneLine("dimse-0").format(logging.LogRecord("archive.x", logging.WARNING, __file__, 1, message, arguments, info))


def test_a_line_says_when_how_bad_and_who() -> None:
    line = format_record("%d associations", 3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z WARNING dimse-0 archive\.x: 3 associations", line)


def test_nobody_forges_a_line() -> None:
    line = format_record("peer %s", "EVIL\r\n2026-01-01T00:00:00.000Z INFO node: all is well")
    assert "\n" not in line and "\r" not in line
    assert "EVIL\\r\\n2026" in line


def test_a_traceback_stays_on_the_line() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        error = sys.exc_info()[1]
    line = format_record("failed", error=error)
    assert "\n" not in line
    assert "Traceback" in line and "ValueError: bad" in line
