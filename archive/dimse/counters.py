"""What the DIMSE wire of one process has done since it started; plain numbers for the metrics."""

from dataclasses import dataclass, field
from threading import Lock


@dataclass(slots=True)
class Counters:
    """Counts of one process.

    Attributes
    ----------
    connections : int
        TCP connections taken.
    connections_dropped : int
        Of these, dropped before an A-ASSOCIATE-RQ was understood: silent, garbage, or gone.
    associations_open : int
        Associations now.
    associations_accepted, associations_rejected, associations_released, associations_aborted : int
        How they began and ended; aborted by either side, or lost.
    echoes : int
        C-ECHO requests answered.
    objects_stored, objects_refused : int
        C-STORE requests answered with success, and with anything else.
    finds, finds_failed : int
        C-FIND requests answered, cancelled ones and those with too many results included; and with a failure.
    find_results : int
        Answers to them.
    data_set_bytes : int
        Bytes of data sets received with them.
    moves, gets : int
        C-MOVE and C-GET requests.
    objects_sent : int
        C-STORE sub-operations of them that came across.
    commitments, commitments_refused : int
        Requests for storage commitment taken, and not taken.
    """

    connections: int = 0
    connections_dropped: int = 0
    associations_open: int = 0
    associations_accepted: int = 0
    associations_rejected: int = 0
    associations_released: int = 0
    associations_aborted: int = 0
    echoes: int = 0
    objects_stored: int = 0
    objects_refused: int = 0
    finds: int = 0
    finds_failed: int = 0
    find_results: int = 0
    data_set_bytes: int = 0
    moves: int = 0
    gets: int = 0
    objects_sent: int = 0
    commitments: int = 0
    commitments_refused: int = 0
    _lock: Lock = field(default_factory=Lock, repr=False, compare=False)

    def add(self, name: str, n: int = 1) -> None:
        """Add to one of them; from any thread."""
        with self._lock:
            setattr(self, name, getattr(self, name) + n)

    def snapshot(self) -> dict[str, int]:
        """All of them by name."""
        with self._lock:
            return {name: getattr(self, name) for name in self.__slots__ if name != "_lock"}
