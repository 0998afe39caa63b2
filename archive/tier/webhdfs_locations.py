"""Where NameNodes sent readers to lately: the next range of a file costs one request then, where it cost two."""

import re
import threading
import time
from collections import OrderedDict

REGION_BYTES = 64 << 20
"""A file's blocks lie on different DataNodes, so what is known of one region says nothing of another."""
KNOWN_SECONDS = 60.0
"""After so long the NameNode is asked again: it knows which DataNodes are near, and which have work enough."""
KNOWN_MAX = 4096
_RANGE = re.compile(r"([?&])(offset|length)=[0-9]+")


class Locations:
    """Addresses at DataNodes by file and region; any number of threads. A DataNode that does not have the range fetches it by itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int], tuple[float, str]] = OrderedDict()

    def get(self, path: str, offset: int, length: int) -> str:
        """The address of a range, empty where none is known."""
        with self._lock:
            until, location = self._known.get((path, offset // REGION_BYTES), (0.0, ""))
        if until < time.monotonic():
            return ""
        wanted = {"offset": offset, "length": length}
        return _RANGE.sub(lambda found: f"{found[1]}{found[2]}={wanted[found[2]]}", location)

    def put(self, path: str, offset: int, location: str) -> None:
        """A DataNode gave a range that begins here."""
        if len(_RANGE.findall(location)) != 2:
            return
        with self._lock:
            self._known[(path, offset // REGION_BYTES)] = (time.monotonic() + KNOWN_SECONDS, location)
            while len(self._known) > KNOWN_MAX:
                self._known.popitem(last=False)

    def drop(self, path: str, offset: int) -> None:
        """It gives none any more."""
        with self._lock:
            self._known.pop((path, offset // REGION_BYTES), None)
