"""Stand-ins for `archive.flow.ingest` on the other side of the wire tests: what arrives is kept in memory, or nowhere."""

from dataclasses import dataclass, field
from threading import Lock

ROOM_BYTES = 4 << 20


@dataclass
class Arrived:
    """What one C-STORE brought."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source: str
    source_ae_title: str
    data_set: bytes


class MemoryReception:
    """Keeps a data set in memory; raises what the test planted where the test planted it."""

    def __init__(self, ingest: "MemoryIngest", names: dict[str, str]) -> None:
        self._ingest, self._names = ingest, names
        self._data = bytearray()
        self._room = bytearray()
        self.over = ""
        self.study_instance_uid = ""

    def room(self, n: int) -> memoryview:
        assert n > 0 and not self.over
        self._ingest.fail("room")
        # No more than the test allows, so that the caller has to ask again.
        self._room = bytearray(min(n, self._ingest.room_bytes))
        return memoryview(self._room)

    def filled(self, n: int) -> None:
        assert 0 < n <= len(self._room) and not self.over
        self._ingest.fail("filled")
        self._data += self._room[:n]
        self._room.clear()  # raises BufferError while someone holds a view of it

    def commit(self) -> object:
        assert not self.over
        self._ingest.fail("commit")
        self.over = "committed"
        with self._ingest.lock:
            self._ingest.arrived.append(Arrived(**self._names, data_set=bytes(self._data)))
        return None

    def abort(self) -> None:
        assert self.over != "committed"
        self.over = "aborted"
        with self._ingest.lock:
            self._ingest.aborted += 1


@dataclass
class MemoryIngest:
    """Ingest of `MemoryReception`.

    Attributes
    ----------
    failures : dict
        What to raise, by where: begin, room, filled, commit; one for every call.
    """

    room_bytes: int = ROOM_BYTES
    arrived: list[Arrived] = field(default_factory=list)
    aborted: int = 0
    failures: dict[str, BaseException] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def begin(
        self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str, source_ae_title: str = ""
    ) -> MemoryReception:
        self.fail("begin")
        names = {
            "sop_class_uid": sop_class_uid,
            "sop_instance_uid": sop_instance_uid,
            "transfer_syntax_uid": transfer_syntax_uid,
            "source": source,
            "source_ae_title": source_ae_title,
        }
        return MemoryReception(self, names)

    def fail(self, where: str) -> None:
        if where in self.failures:
            raise self.failures[where]


class NullReception:
    """Takes a data set and forgets it, for measuring what the wire costs."""

    def __init__(self) -> None:
        self._room = memoryview(bytearray(ROOM_BYTES))

    def room(self, n: int) -> memoryview:
        return self._room[:n]

    def filled(self, n: int) -> None:
        pass

    def commit(self) -> object:
        return None

    def abort(self) -> None:
        pass


class NullIngest:
    """Ingest of `NullReception`; for one association."""

    def __init__(self) -> None:
        self._reception = NullReception()

    def begin(
        self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str, source_ae_title: str = ""
    ) -> NullReception:
        return self._reception
