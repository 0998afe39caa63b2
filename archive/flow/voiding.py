"""Records that were written and refused: a void record behind each says so, or the next start would take them in.

A record may reach the disk although its write, its sync or its publication failed. Whoever sent it was told that it failed, and sends it
again: the journal has two records of one object then, and a deletion names the second alone; or it is a deletion that was said not to be.
The void record is durable before the sender has its answer. Where it cannot be written now, what is refused is noted, and every
process of the node writes it before it takes anything else in or deletes anything.
"""

import contextlib
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from archive.errors import ArchiveError, Damaged
from archive.flow.home import Home
from archive.pack.checksum import crc32
from archive.pack.descriptor import Void
from archive.pack.frame import FLAG_MUST_UNDERSTAND, Kind
from archive.pack.journal_reader import Found, scan_segment

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def void_on_error(home: Home, segment: int, sequence: int) -> Iterator[None]:
    """What raises in here, raises after the record is void."""
    try:
        yield
    except Exception:
        refuse(home, (segment, sequence))
        raise


def refuse(home: Home, *records: tuple[int, int]) -> None:
    """Records (segment and sequence) that are written and shall never be taken in: void when this returns, or noted to become it."""
    pending = home.index.pending
    try:
        with pending.environment.writing() as t:
            pending.refuse(t, records)
    except (ArchiveError, OSError) as error:
        logger.error("that journal records %s are refused cannot be noted: %s", records, error)
    try:
        settle_refused(home, *records)
    except (ArchiveError, OSError) as error:
        logger.error("journal records %s are refused and cannot be made void now; they are before anything else: %s", records, error)


def settle_refused(home: Home, *more: tuple[int, int]) -> None:
    """Nothing that was refused comes back, from here on.

    Raises
    ------
    Exhausted
        It cannot be written now: nothing may be acknowledged that contradicts it.
    """
    pending, journal = home.index.pending, home.journal
    with pending.environment.reading() as t:
        void = Void(sorted({*pending.refused(t), *more}))
    if not void.voided:
        return
    sequence, payload = journal.next_sequence(), void.to_bytes()
    # Behind what it names: segments are released in order, so that the void record is the last to go.
    behind = max(segment for segment, _ in void.voided)
    appended = journal.append(Kind.VOID, sequence, [payload], crc32(payload), b"", FLAG_MUST_UNDERSTAND, behind=behind)
    try:
        journal.sync(appended)
        with pending.environment.writing() as t:
            pending.add_void(t, appended.location, sequence, void)
    finally:
        journal.done(appended)
    logger.warning("journal records %s are void", [number for _, number in void.voided])


def forget_voids(home: Home) -> None:
    """Void records whose segments are released are needed no more."""
    pending = home.index.pending
    with pending.environment.reading() as t:
        waiting = list(pending.voids(t))
    if not waiting:
        return
    there = {number for number, _ in home.journal.segments()}.union(home.journal.missing())  # These may be put back.
    done = [sequence for sequence, location, void in waiting if not void.is_needed(location.segment, there)]
    if done:
        # What it named must not come back after a power cut that the void record does not outlive.
        home.journal.sync_released()
        with pending.environment.writing() as t:
            pending.remove_small(t, "voids", done)


def void_sequences(segments: Iterable[tuple[int, Path]]) -> set[int]:
    """Sequences of all records that whole void records name."""
    out: set[int] = set()
    for number, path in segments:
        with contextlib.suppress(Damaged):  # Others name it.
            for item in scan_segment(number, path, lambda _: True, only=(Kind.VOID,)):
                if isinstance(item, Found) and not item.damage:
                    out |= Void.from_bytes(item.payload).sequences
    return out
