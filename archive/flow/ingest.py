"""Taking objects in: buffered or streamed, checked, journalled, fsynced, found; only then is success true (P1)."""

import contextlib
import logging
import threading
from typing import Literal, NamedTuple

from archive.dicom.describe import Description, describe, describe_begun
from archive.dicom.json import dumps
from archive.dicom.part10 import write_file_meta
from archive.dicom.uid import check_uid
from archive.disk import Bytes
from archive.errors import Duplicate, Mismatch
from archive.flow.home import Home
from archive.flow.retrieve import Retrieval
from archive.flow.voiding import refuse, settle_refused, void_on_error
from archive.index.located import DIGEST_CHARACTERS, Located, PackPlace
from archive.pack.checksum import DIGEST_KIND, DIGEST_STEP_BYTES, DIGESTS, crc32
from archive.pack.descriptor import InstanceDescriptor, Revision
from archive.pack.frame import HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind
from archive.pack.journal import Location
from archive.pack.segment import LargeRecord, now_us

logger = logging.getLogger(__name__)

STREAM_BUFFER_BYTES = 256 * 1024
Outcome = Literal["new", "same", "revision"]
_NOTHING_YET = (None, 0)


class Accepted(NamedTuple):
    """An object that is durable and findable.

    Attributes
    ----------
    outcome : {'new', 'same', 'revision'}
        'same': the very data set was here already; 'revision': another one was here under this UID, and is still.
    """

    revision: Revision
    outcome: Outcome


class Buffers:
    """Memory for objects on their way in, bounded for the whole process and used again."""

    def __init__(self, each: int, bytes_max: int) -> None:
        self._each, self._left = each, max(1, bytes_max // each)
        self._free: list[bytearray] = []
        self._lock = threading.Lock()

    def take(self) -> bytearray | None:
        """A buffer, or None where all are taken."""
        with self._lock:
            if self._free:
                return self._free.pop()
            if not self._left:
                return None
            self._left -= 1
        return bytearray(self._each)

    def give(self, buffer: bytearray) -> None:
        with self._lock:
            self._free.append(buffer)


class Ingest:
    """The way in, one for each process; `begin` gives one `Reception` for each object. Thread-safe."""

    def __init__(self, home: Home) -> None:
        self.home, self.retrieval = home, Retrieval(home)
        self.buffers = Buffers(home.settings.journal.large_bytes, home.settings.dimse.buffer_bytes_max)

    def begin(
        self, *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str, source_ae_title: str = ""
    ) -> "Reception":
        """Room for one object.

        Raises
        ------
        BadInput
            A UID is ill-formed.
        Exhausted
            The journal or the disk has reached its bound.
        """
        check_uid(sop_class_uid, "SOP Class UID")
        check_uid(sop_instance_uid, "SOP Instance UID")
        check_uid(transfer_syntax_uid, "Transfer Syntax UID")
        self.home.check_room()
        return Reception(self, sop_class_uid, sop_instance_uid, transfer_syntax_uid, source, source_ae_title)


class Reception:
    """One object while it comes in. Bytes of the data set go in by `room` and `filled` (or `write`), then `commit` or `abort`.

    Up to `journal.large_bytes` it is held in memory, beyond it streams to a journal segment of its own.
    """

    def __init__(
        self, ingest: Ingest, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source: str, ae_title: str
    ) -> None:
        self._ingest, self._home = ingest, ingest.home
        self.study_instance_uid = ""
        self._sop_class_uid, self._sop_instance_uid, self._syntax, self._source = (
            sop_class_uid,
            sop_instance_uid,
            transfer_syntax_uid,
            source,
        )
        self._meta = write_file_meta(sop_class_uid, sop_instance_uid, transfer_syntax_uid, ae_title)
        self._digest = DIGESTS[DIGEST_KIND]()
        self._pooled = ingest.buffers.take()
        self._buffer = memoryview(self._pooled if self._pooled is not None else bytearray(STREAM_BUFFER_BYTES))
        self._begun: tuple[Description, int] | tuple[None, int] | None = None
        self._used = self._hashed = 0
        self._looked = -1
        self._large: LargeRecord | None = None
        if self._pooled is None:
            try:
                self._start_large()
            except BaseException:
                self.abort()
                raise

    def _start_large(self) -> None:
        self._large = self._home.journal.stream()
        self._large.write(self._meta)

    def room(self, n: int) -> memoryview:
        """Writable memory for the next 1 to `n` bytes of the data set."""
        if self._used == len(self._buffer):
            self._home.check_room()  # An object without an end meets the bounds too.
            self._flush()
        return self._buffer[self._used : self._used + n]

    def filled(self, n: int) -> None:
        """The first `n` bytes of the last `room` are data."""
        self._used += n
        if self._used - self._hashed >= DIGEST_STEP_BYTES:
            self._hash(self._used - self._used % DIGEST_STEP_BYTES)
            if self._begun is None:
                # While the sender is still at it, there is time for what is wanted at the end.
                self._begun = describe_begun(self._buffer[: self._used], self._syntax) or _NOTHING_YET

    def write(self, chunk: Bytes) -> None:
        """Both at once, by copying."""
        view = memoryview(chunk)
        while len(view):
            room = self.room(len(view))
            room[:] = view[: len(room)]
            self.filled(len(room))
            view = view[len(room) :]

    def _hash(self, end: int) -> None:
        """Go on with the digest up to here."""
        self._digest.update(self._buffer[self._hashed : end])
        self._hashed = end

    def _flush(self) -> None:
        self._hash(self._used)
        if self._large is None:
            self._start_large()
        assert self._large is not None
        self._large.write(self._buffer[: self._used])
        self._home.took(self._used)
        self._used = self._hashed = 0

    def abort(self) -> None:
        """Give everything back; nothing of the object stays."""
        large, self._large = self._large, None
        pooled, self._pooled = self._pooled, None
        if pooled is not None:
            self._buffer.release()
            self._ingest.buffers.give(pooled)
        if large is not None:
            large.close()

    def commit(self) -> Accepted:
        """Durable and findable when this returns.

        Raises
        ------
        NotUnderstood
            The data set cannot be parsed, or lacks a UID.
        Mismatch
            It names another SOP Instance or SOP Class than the command.
        Duplicate
            Another object is known under its UID and the settings refuse a second.
        Exhausted
            A bound is reached or the disk failed.
        """
        # Where a second object is refused, what is known must not change between the look and the answer.
        refused = self._home.settings.index.revision_refused
        try:
            with self._home.sole_sender(self._sop_instance_uid) if refused else contextlib.nullcontext():
                return self._commit_large() if self._large is not None else self._commit_small()
        finally:
            self.abort()

    def _commit_small(self) -> Accepted:
        data = self._buffer[: self._used]
        self._hash(self._used)
        description = self._describe(data)
        known = self._known(description)
        if isinstance(known, Accepted):
            return known
        crc = crc32(data, crc32(self._meta))
        descriptor = self._descriptor(description, len(self._meta) + len(data), crc, None)
        journal = self._home.journal
        encoded = dumps(descriptor.to_json())
        appended = journal.append(Kind.INSTANCE, descriptor.revision.sequence, [self._meta, data], crc, encoded)
        self._home.took(descriptor.length)
        try:
            with void_on_error(self._home, appended.location.segment, descriptor.revision.sequence):
                journal.sync(appended)
                return self._publish(appended.location, descriptor, encoded, known)
        finally:
            journal.done(appended)

    def _commit_large(self) -> Accepted:
        assert self._large is not None
        self._flush()
        crc, block_crcs = self._large.finish()
        start = SEGMENT_HEADER_BYTES + HEADER_BYTES
        mapped = self._home.disk.map_read(self._large.fd, start + self._large.length)
        with memoryview(mapped) as whole, whole[start + len(self._meta) :] as data:
            description = self._describe(data)
        mapped.close()
        known = self._known(description)
        if isinstance(known, Accepted):
            return known
        descriptor = self._descriptor(description, self._large.length, crc, block_crcs)
        encoded = dumps(descriptor.to_json())
        large, sequence = self._large, descriptor.revision.sequence
        try:
            with void_on_error(self._home, large.number, sequence):
                offset = large.commit(Kind.INSTANCE, sequence, crc, encoded)
                return self._publish(Location(large.number, offset), descriptor, encoded, known)
        finally:
            large.seal()

    def _describe(self, data: Bytes) -> Description:
        begun, enough = self._begun or _NOTHING_YET
        found = begun if begun and enough <= len(data) else describe(data, self._syntax, self._home.settings.limits.inflated_bytes_max)
        if found.sop_instance_uid != self._sop_instance_uid:
            raise Mismatch(f"the data set is SOP Instance {found.sop_instance_uid}, the command said {self._sop_instance_uid}")
        if found.sop_class_uid != self._sop_class_uid:
            raise Mismatch(f"the data set is of SOP Class {found.sop_class_uid}, the command said {self._sop_class_uid}")
        return found

    def _known(self, description: Description) -> Accepted | list[Located]:
        """The same object where it is here and whole; else whatever is known under its UID.

        What was sent again because the copy here is damaged is taken in: its sender may have the only whole one.
        """
        self.study_instance_uid = description.study_instance_uid
        pending = self._home.index.pending
        self._looked = self._home.index.packed.environment.last_transaction()
        with pending.environment.reading() as t:
            aside, refused = pending.aside(t), pending.refused(t)
        if refused:
            settle_refused(self._home)
        digest = self._digest.hexdigest()[:DIGEST_CHARACTERS]
        known: list[Located] = []
        same: list[Located] = []
        for other in self._home.index.revisions(description.sop_instance_uid):
            (same if (other.digest, other.transfer_syntax_uid) == (digest, self._syntax) else known).append(other)
        for other in same:
            packed = isinstance(other.place, PackPlace)
            if not packed and (other.revision.sequence in aside or self._is_deleted(other.revision)):
                continue
            if self._ingest.retrieval.can_be_read(other):
                return Accepted(other.revision, "same")
            logger.error("the copy of %s that is here cannot be read; it is taken in again from %s", other.sop_instance_uid, self._source)
            if packed:
                known.append(other)
            else:
                with pending.environment.writing() as t:
                    pending.set_aside(t, other.revision.sequence, f"{other.sop_instance_uid}: it cannot be read, and was sent again")
        if self._home.settings.index.revision_refused and len(known) > len([k for k in known if k in same]):
            raise Duplicate(f"another object is known under SOP Instance UID {description.sop_instance_uid}")
        return known

    def _descriptor(self, found: Description, length: int, crc: int, block_crcs: list[int] | None) -> InstanceDescriptor:
        return InstanceDescriptor(
            Revision(self._home.identity.node, self._home.journal.next_sequence()),
            found.study_instance_uid,
            found.series_instance_uid,
            found.sop_instance_uid,
            found.sop_class_uid,
            self._syntax,
            len(self._meta),
            length,
            crc,
            self._digest.hexdigest(),
            now_us(),
            self._source,
            found.attributes,
            found.pixel_data.to_json() if found.pixel_data else None,
            block_crcs,
        )

    def _is_deleted(self, revision: Revision) -> bool:
        """A deletion that was cut short by an error may have left it among what waits; it is gone with the next start."""
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            return packed.is_revision_deleted(t, revision)

    def _publish(self, location: Location, descriptor: InstanceDescriptor, encoded: bytes, known: list[Located]) -> Accepted:
        """Make it findable; the same object that came on another association meanwhile stays the only one."""
        needless: list[tuple[int, int]] = []
        accepted = self._add(location, descriptor, encoded, known, needless)
        if accepted.revision != descriptor.revision:
            needless.append((location.segment, descriptor.revision.sequence))
        if needless:
            refuse(self._home, *needless)
        return accepted

    def _add(
        self, location: Location, descriptor: InstanceDescriptor, encoded: bytes, known: list[Located], needless: list[tuple[int, int]]
    ) -> Accepted:
        """The records that it takes the place of go into `needless`."""
        pending = self._home.index.pending
        with pending.environment.writing() as t:
            others = pending.find(t, descriptor.sop_instance_uid)
            aside = pending.aside(t) if others else {}
            for other in [o for o in others if same_object(o.descriptor, descriptor)]:
                if other.descriptor.revision.sequence not in aside and not self._is_deleted(other.descriptor.revision):
                    return Accepted(other.descriptor.revision, "same")
                pending.remove(t, [other.descriptor.revision.sequence])  # Damaged, or deleted: this one takes its place.
                others.remove(other)
                needless.append((other.location.segment, other.descriptor.revision.sequence))
            for found in self._packed_meanwhile(descriptor.sop_instance_uid, known):
                if same_as_located(descriptor, found):
                    return Accepted(found.revision, "same")
                known.append(found)
            pending.add(t, location, descriptor, encoded, further=bool(others or known))
        if others or known:
            logger.warning(
                "revision: another object came under SOP Instance UID %s from %s; both are kept", descriptor.sop_instance_uid, self._source
            )
            return Accepted(descriptor.revision, "revision")
        return Accepted(descriptor.revision, "new")

    def _packed_meanwhile(self, sop_instance_uid: str, known: list[Located]) -> list[Located]:
        """What came under the UID and was packed since it was looked for."""
        packed = self._home.index.packed
        if packed.environment.last_transaction() == self._looked:
            return []
        with packed.environment.reading() as t:
            return [i for i in packed.find(t, sop_instance_uid) if i.revision not in {k.revision for k in known}]


def same_object(a: InstanceDescriptor, b: InstanceDescriptor) -> bool:
    """Equal data sets in one transfer syntax."""
    return (a.digest, a.transfer_syntax_uid) == (b.digest, b.transfer_syntax_uid)


def same_as_located(a: InstanceDescriptor, b: Located) -> bool:
    """As `same_object`, with one that the index found."""
    return (a.digest[:DIGEST_CHARACTERS], a.transfer_syntax_uid) == (b.digest, b.transfer_syntax_uid)
