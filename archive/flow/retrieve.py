"""Finding instances and reading them, wherever they lie: journal first, then packs."""

import contextlib
import functools
from collections.abc import Callable, Iterator

from archive.dicom.frames import PixelData
from archive.dicom.syntax import encoding_of
from archive.errors import Damaged, NotFound, Unavailable
from archive.flow.home import Home
from archive.flow.opened import Opened
from archive.flow.series_metadata import SeriesMetadata
from archive.flow.series_view import SeriesView, instances_of_series, series_of_study
from archive.index.located import Located, PackPlace, SeriesKey
from archive.pack.journal_reader import open_record
from archive.pool.flights import Outlook
from archive.pool.pool import Pack

Stored = Located

AT_ONCE_BYTES_MAX = 1 << 20
"""An object of up to this size comes near as a whole, as one ranged read costs more than its bytes do."""


class PackedPayload:
    """An instance's range of a pack.

    Parameters
    ----------
    outlook : callable
        What else will be read; asked where the pack's bytes are not near.
    """

    def __init__(self, pack: Pack, start: int, length: int, outlook: Callable[[], Outlook]) -> None:
        self._pack, self._start, self._length, self._outlook = pack, start, length, outlook

    def view(self, offset: int, length: int) -> memoryview:
        self._check(offset, length)
        return self._pack.view(self._start + offset, length, self._outlook)

    def views(self, offset: int, length: int) -> list[memoryview]:
        self._check(offset, length)
        return self._pack.views(self._start + offset, length, self._outlook)

    def whole(self) -> memoryview:
        return self._pack.whole(self._start, self._length)

    def _check(self, offset: int, length: int) -> None:
        if offset < 0 or length < 0 or offset + length > self._length:
            raise Damaged(f"bytes {offset}..{offset + length} lie outside of an object of {self._length}")


class Retrieval:
    """Reading side of a node; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._metadata = SeriesMetadata(home, self.open)

    # --- finding

    def instances(
        self, study_instance_uid: str, series_instance_uid: str | None = None, sop_instance_uid: str | None = None
    ) -> list[Stored]:
        """Instances of a study, a series, or one; by SeriesNumber, then by InstanceNumber.

        Raises
        ------
        NotFound
            There are none.
        """
        if sop_instance_uid is not None:
            return [self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)]
        out = [stored for view in self._views(study_instance_uid, series_instance_uid) for stored in view.instances()]
        if not out:
            raise NotFound(
                f"there is no study {study_instance_uid}" + (f" with a series {series_instance_uid}" if series_instance_uid else "")
            )
        return out

    def _instance(self, study: str, series: str | None, sop: str) -> Stored:
        found = [
            i for i in self._home.index.revisions(sop) if i.study_instance_uid == study and series in (None, i.series_instance_uid)
        ]  # fmt: skip
        if not found:
            raise NotFound(f"there is no instance {sop} in study {study}" + (f", series {series}" if series else ""))
        return self._home.index.served(found)

    def _views(self, study: str, series: str | None) -> list[SeriesView]:
        keys = series_of_study(self._home.index, study) if series is None else [SeriesKey(study, series)]
        return [instances_of_series(self._home.index, key) for key in keys]

    # --- reading

    @contextlib.contextmanager
    def open(self, stored: Stored, frame_number: int = 0, *, through: bool = False) -> Iterator[Opened]:
        """An instance to be read; one that moved from journal to pack, or to another pack, is followed.

        Parameters
        ----------
        frame_number : int
            The frame that will be read, so that one that is not near comes together with what is looked at first; 0 for all.
        through : bool
            The rest of its series will be read too, and now.

        Raises
        ------
        Damaged
            Its bytes are not what was stored.
        Unavailable
            Its tier does not answer.
        NotFound
            It is gone.
        """
        with contextlib.ExitStack() as stack:
            try:
                opened = self._enter(stack, stored, frame_number, through)
            except NotFound:
                again = [i for i in self._home.index.revisions(stored.sop_instance_uid) if i.revision == stored.revision]
                if not again:
                    raise
                try:
                    opened = self._enter(stack, again[0], frame_number, through)
                except NotFound as error:
                    text = f"instance {stored.sop_instance_uid} is in the index and cannot be read: {error}"
                    raise (Unavailable if self._may_come_back(again[0]) else Damaged)(text) from error
            yield opened

    def _may_come_back(self, stored: Stored) -> bool:
        """Whether another node wrote its pack, and may have compacted it: this one hears of that when it next looks."""
        if not isinstance(stored.place, PackPlace):
            return False
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            return packed.pack(t, stored.place.pack_id).name.node != self._home.identity.name

    def can_be_read(self, stored: Stored) -> bool:
        """Whether every byte of an instance matches its checksums; what a tier that is away holds is believed."""
        try:
            with self.open(stored) as opened:
                for _ in opened.chunks(0, stored.length):
                    pass
        except Unavailable:
            return True
        except (Damaged, NotFound):
            return False
        return True

    def _enter(self, stack: contextlib.ExitStack, stored: Stored, frame_number: int, through: bool) -> Opened:
        limit = self._home.settings.limits.inflated_bytes_max
        place = stored.place
        if isinstance(place, PackPlace):
            outlook = functools.partial(self._outlook, stored, place, frame_number, through)
            return Opened(stored, PackedPayload(self._open_pack(place.pack_id), place.offset, stored.length, outlook), limit)
        record = stack.enter_context(open_record(self._home.journal, place, stored.revision.sequence, stored.block_crcs))
        return Opened(stored, record, limit)

    def _outlook(self, stored: Stored, place: PackPlace, frame_number: int, through: bool) -> Outlook:
        """The object, or its frame, at once; the rest of its series ahead."""
        ranges = [(0, min(stored.length, AT_ONCE_BYTES_MAX))]
        if stored.length > AT_ONCE_BYTES_MAX and frame_number and stored.pixels and not encoding_of(stored.transfer_syntax_uid).deflated:
            base = stored.data_set_offset
            ranges = [(base + at, base + at + length) for at, length in PixelData.from_json(stored.pixels).frame_ranges(frame_number)]
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            span = packed.span(t, stored.series_key, place)
        return Outlook(tuple((place.offset + start, place.offset + end) for start, end in ranges), span, through)

    def _open_pack(self, pack_id: int) -> Pack:
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            return self._home.pool.open(packed.pack(t, pack_id), lambda: packed.block_crcs(t, pack_id))

    # --- metadata

    def series_metadata(self, study_instance_uid: str, series_instance_uid: str) -> bytes:
        """Gzipped JSON array, one instance a line, one gzip member: the pack's own bytes where the whole series lies in one."""
        return self._metadata.of_series([SeriesKey(study_instance_uid, series_instance_uid)])

    def study_metadata(self, study_instance_uid: str) -> bytes:
        """As `series_metadata`, for every series of a study."""
        keys = series_of_study(self._home.index, study_instance_uid)
        if not keys:
            raise NotFound(f"there is no study {study_instance_uid}")
        return self._metadata.of_series(keys)

    def document(self, stored: Stored) -> bytes:
        """Metadata of one object, made of its bytes: one line."""
        return self._metadata.made(stored)

    def instance_metadata(self, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str) -> bytes:
        """JSON array of one document, not compressed."""
        stored = self._instance(study_instance_uid, series_instance_uid, sop_instance_uid)
        return b"[\n" + self._metadata.of_instance(stored) + b"\n]"
