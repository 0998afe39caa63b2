"""Packs that are read whole at rest, and what was found, which is believed for an hour."""

import hashlib
import threading
import time
from collections.abc import Callable

from archive.index.packed import PackInfo
from archive.pack.naming import PackName
from archive.tier.protocol import Tier

BELIEVED_SECONDS = 3600.0


class Looks:
    """What packs were found to be: nothing wrong with them, or why not; any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[int, tuple[float, str]] = {}

    def note(self, info: PackInfo, wrong: str, began: float) -> None:
        """Remember it, for an hour from when the look began, by time.monotonic()."""
        with self._lock:
            self._found = {i: found for i, found in self._found.items() if began - found[0] < BELIEVED_SECONDS}
            self._found[info.pack_id] = began, wrong

    def found(self, info: PackInfo) -> str | None:
        """What is wrong with it, nothing where it is whole; None where it was not looked at."""
        with self._lock:
            began, wrong = self._found.get(info.pack_id, (-BELIEVED_SECONDS, ""))
        return wrong if time.monotonic() - began < BELIEVED_SECONDS else None


def digest_at_rest(tier: Tier, name: PackName, length: int, go_on: Callable[[], None]) -> str:
    """SHA-256 of a pack as its tier gives it.

    Parameters
    ----------
    go_on : callable
        Called for each piece; what it raises ends the reading.

    Raises
    ------
    Damaged, NotFound, Unavailable
        As the tier says.
    """
    whole = hashlib.sha256()
    for piece in tier.stream(name, 0, length):
        go_on()
        whole.update(piece)
    return whole.hexdigest()
