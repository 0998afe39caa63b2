"""What goes into one pack: its instances read once for their metadata, and again piece by piece while the pack is written."""

import errno
import logging
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from archive.dicom.metadata import MetadataWriter
from archive.errors import Exhausted
from archive.flow.home import Home
from archive.index.pending import Pending
from archive.pack.descriptor import InstanceDescriptor
from archive.pack.journal import Journal
from archive.pack.journal_reader import OpenRecord, OpenSegment
from archive.pack.pack_writer import GZIP_LEVEL, SeriesContent

logger = logging.getLogger(__name__)

PIECE_BYTES = 1 << 20
SEGMENTS_OPEN_MAX = 8


class Waiting:
    """What waits in the journal, read where it lies: nothing of it is copied. The packer reads it, which alone releases segments.

    Parameters
    ----------
    give_way : callable
        Called between two pieces.
    """

    def __init__(self, journal: Journal, give_way: Callable[[], None] = lambda: None) -> None:
        self._journal, self.give_way = journal, give_way
        self._open: OrderedDict[int, OpenSegment] = OrderedDict()

    def open(self, record: Pending) -> OpenRecord:
        """A record; raises as `open_record`."""
        number = record.location.segment
        segment = self._open.pop(number, None) or OpenSegment(self._journal, number)
        self._open[number] = segment
        if len(self._open) > SEGMENTS_OPEN_MAX:
            self._open.popitem(last=False)[1].close()
        return segment.record(record.location.offset, record.descriptor.revision.sequence, record.descriptor.block_crcs)

    def pieces(self, opened: OpenRecord, length: int) -> Iterator[memoryview]:
        """The payload of a record in checked pieces of up to 1 MiB."""
        for offset in range(0, length, PIECE_BYTES):
            yield opened.view_in_place(offset, min(PIECE_BYTES, length - offset))
            self.give_way()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


@dataclass(frozen=True, slots=True)
class Content:
    """
    Attributes
    ----------
    series : list of SeriesContent
        In the order of the pack.
    records : dict of int to Pending
        By sequence.
    damaged : dict of int to str
        Sequences that cannot be packed, and why.
    """

    series: list[SeriesContent] = field(default_factory=list)
    records: dict[int, Pending] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)


def metadata_array(documents: list[bytes]) -> bytes:
    """A JSON array with one document a line, so that one can be cut out without parsing."""
    return b"[\n" + b",\n".join(documents) + b"\n]"


class MetadataArray:
    """The gzipped `metadata_array` of documents that come one by one, compressed as they come: those of a series may be large."""

    def __init__(self) -> None:
        self._deflater = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS | 16)  # Its time stamp is zero.
        self._parts: list[bytes] = []
        self._between = b"[\n"

    def add(self, document: bytes) -> None:
        """One more, one line."""
        for data in (self._between, document):
            self._parts.append(self._deflater.compress(data))
        self._between = b",\n"

    def finish(self) -> bytes:
        """One gzip member, once at least one document was added."""
        self._parts += (self._deflater.compress(b"\n]"), self._deflater.flush())
        return b"".join(self._parts)


def instance_metadata(writer: MetadataWriter, opened: OpenRecord, descriptor: InstanceDescriptor) -> bytes:
    """DICOM JSON of one instance in the journal, one line."""
    data_set = opened.mapped()[descriptor.data_set_offset :]
    try:
        return writer.write(data_set, descriptor.transfer_syntax_uid)
    finally:
        data_set.release()


def prepare(home: Home, waiting: Waiting, records: list[Pending]) -> Content:
    """Read each record, check it, and make the metadata of its series.

    A record that cannot be read is left out and named; the others are not held up by it.
    """
    content = Content()
    writer = MetadataWriter(home.settings.limits.inflated_bytes_max)
    for (study, series), group in groupby(records, key=lambda p: (p.descriptor.study_instance_uid, p.descriptor.series_instance_uid)):
        instances: list[tuple[InstanceDescriptor, bool]] = []
        metadata = MetadataArray()
        names: set[str] = set()
        for record in group:
            d = record.descriptor
            try:
                opened = waiting.open(record)
                for _ in waiting.pieces(opened, d.length):
                    pass
                document = instance_metadata(writer, opened, d)
            except (Exhausted, MemoryError):
                raise  # That is wrong with the machine, not with the record.
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                content.damaged[d.revision.sequence] = f"{d.sop_instance_uid}: {error}"
                continue
            except Exception as error:  # Whatever is wrong with one record must not hold up the others.
                logger.debug("record %d", d.revision.sequence, exc_info=error)
                content.damaged[d.revision.sequence] = f"{d.sop_instance_uid}: {type(error).__name__}: {error}"
                continue
            metadata.add(document)
            instances.append((d, record.further or d.sop_instance_uid in names))
            names.add(d.sop_instance_uid)
            content.records[d.revision.sequence] = record
        if instances:
            content.series.append(SeriesContent(study, series, instances, metadata.finish()))
    return content
