"""Progress of long work on stderr: a bar on a terminal, a plain line now and then elsewhere."""

import sys
import time
from typing import Any

import click

PLAIN_SECONDS = 5.0


class Progress:
    """Counts steps of work of a known length.

    Parameters
    ----------
    total : int
        Steps in all.
    what : str
        What a step is, in the plural.
    """

    def __init__(self, total: int, what: str) -> None:
        self._total, self._what = total, what
        self._done = 0
        self._said = time.monotonic()
        self._bar: Any = None

    def __enter__(self) -> "Progress":
        if sys.stderr.isatty():
            self._bar = click.progressbar(length=self._total, label=self._what, file=sys.stderr, show_pos=True)
            self._bar.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        if self._bar is not None:
            self._bar.__exit__(*exception)

    def step(self, state: str = "") -> None:
        """One more is done; `state` goes into the plain line."""
        self._done += 1
        if self._bar is not None:
            self._bar.update(1)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self.line(f"{self._done} of {self._total} {self._what}" + (f" ({state})" if state else ""))

    def line(self, text: str) -> None:
        """Say something that stays."""
        if self._bar is not None:
            click.echo("\r\033[K", err=True, nl=False)
        click.echo(text, err=True)
        self._said = time.monotonic()
