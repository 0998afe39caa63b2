"""Where C-MOVE and C-GET take instances from: found by their unique keys, opened in a transfer syntax that the peer takes."""

from archive.flow.deliverable import Delivery
from archive.flow.home import Home
from archive.flow.selection import Selection


class RetrieveSource:
    """Reading side of a process for retrieval over DIMSE; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._delivery = Delivery(home)
        self.select = Selection(home).select
        self.open = self._delivery.open

    def close(self) -> None:
        self._delivery.close()
