"""What the web room stands on, in memory: as much of `flow` as its handlers call, with damage and slowness on demand."""

import gzip
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from archive.dicom.frames import PixelData
from archive.dicom.json import dumps
from archive.dicom.part10 import write_file_meta
from archive.errors import ArchiveError, Damaged, NotFound

EXPLICIT = "1.2.840.10008.1.2.1"
JPEG_2000 = "1.2.840.10008.1.2.4.90"


@dataclass
class FakeInstance:
    """One stored instance: its Part 10 bytes and what `Stored` says of it."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    data_set: bytes
    transfer_syntax_uid: str = EXPLICIT
    sop_class_uid: str = "1.2.840.10008.5.1.4.1.1.2"
    pixel_data: PixelData | None = None
    attributes: dict[str, Any] = field(default_factory=dict)
    revision: int = 1
    damaged_from: int | None = None
    damage: Exception = Damaged("a block does not match its checksum")

    def __post_init__(self) -> None:
        meta = write_file_meta(self.sop_class_uid, self.sop_instance_uid, self.transfer_syntax_uid)
        self.data_set_offset = len(meta)
        self.part10 = meta + self.data_set

    @property
    def length(self) -> int:
        return len(self.part10)


class FakeOpened:
    def __init__(self, stored: FakeInstance) -> None:
        self.stored = stored

    def view(self, offset: int, length: int) -> memoryview:
        if self.stored.damaged_from is not None and offset + length > self.stored.damaged_from:
            raise self.stored.damage
        return memoryview(self.stored.part10)[offset : offset + length]

    def chunks(self, offset: int, length: int) -> Iterator[memoryview]:
        for start in range(offset, offset + length, 1 << 20):
            yield self.view(start, min(1 << 20, offset + length - start))

    def pixel_data(self) -> PixelData | None:
        return self.stored.pixel_data

    def data_set(self) -> memoryview:
        return memoryview(self.stored.data_set)

    def frame(self, frame_number: int) -> list[memoryview]:
        if self.stored.pixel_data is None:
            raise NotFound("the instance has no pixel data")
        ranges = self.stored.pixel_data.frame_ranges(frame_number)
        return [self.view(self.stored.data_set_offset + offset, length) for offset, length in ranges]


class FakeRetrieval:
    """`flow.retrieve.Retrieval` over a list of instances; counts what is open."""

    def __init__(self, instances: list[FakeInstance]) -> None:
        self.all = instances
        self.open_now = 0
        self.opened_most = 0
        self.seconds = 0.0
        self.failing: ArchiveError | Exception | None = None

    def instances(self, study: str, series: str | None = None, sop: str | None = None) -> list[FakeInstance]:
        if self.failing is not None:
            raise self.failing
        found = [
            i
            for i in self.all
            if i.study_instance_uid == study and series in (None, i.series_instance_uid) and sop in (None, i.sop_instance_uid)
        ]
        if not found:
            raise NotFound(f"nothing is known of {sop or series or study}")
        return found

    @contextmanager
    def open(self, stored: FakeInstance, frame_number: int = 0, *, through: bool = False) -> Iterator[FakeOpened]:
        time.sleep(self.seconds)
        self.open_now += 1
        self.opened_most = max(self.opened_most, self.open_now)
        try:
            yield FakeOpened(stored)
        finally:
            self.open_now -= 1

    def instance_metadata(self, study: str, series: str, sop: str) -> bytes:
        return dumps([self.instances(study, series, sop)[0].attributes])

    def series_metadata(self, study: str, series: str) -> bytes:
        return self._packed(self.instances(study, series))

    def study_metadata(self, study: str) -> bytes:
        return self._packed(self.instances(study))

    def _packed(self, found: list[FakeInstance]) -> bytes:
        return gzip.compress(b"[\n" + b",\n".join(dumps(i.attributes) for i in found) + b"\n]")


class FakeSearch:
    """`flow.query.Search` that answers with prepared rows and keeps what it was asked."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.asked: list[Any] = []
        self.wait: Callable[[], object] = lambda: None

    def search(self, query: Any) -> Any:
        self.asked.append(query)
        self.wait()
        rows = self.rows[query.offset :]
        return SimpleNamespace(rows=rows[: query.limit], more=len(rows) > query.limit)
