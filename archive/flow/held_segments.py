"""Journal segments that are held up by a few records which cannot be packed: those go on in another segment, byte for byte."""

import logging

from archive.errors import Damaged, Exhausted, NotFound
from archive.flow.home import Home
from archive.pack.journal import Appended, Location
from archive.pack.journal_reader import open_record

logger = logging.getLogger(__name__)

HELD_SHARE_MAX = 0.25
"""Of a segment: what is held up by more than this is left as it is."""


def rewrite_held(home: Home, *, every: bool = False) -> int:
    """Move records that are set aside out of sealed segments that nothing else needs, so that these can be released; how many segments.

    A damaged record stays as damaged as it is, under its sequence. One segment alone is left: its records would but fill another.
    One that holds damage between its records is left too.

    Parameters
    ----------
    every : bool
        Do it for one segment as well, and whatever its records' length.
    """
    pending = home.index.pending
    held: list[tuple[int, list[int]]] = []
    for number in home.journal.sealed():
        with pending.environment.reading() as t:
            sequences, aside = pending.sequences(t, number), pending.aside(t)
            length = sum(p.descriptor.length for p in (pending.get(t, sequence) for sequence in sequences) if p)
        short = length <= HELD_SHARE_MAX * home.settings.journal.segment_bytes
        if sequences and all(sequence in aside for sequence in sequences) and (every or short):
            held.append((number, sequences))
    if len(held) < 2 and not every:
        return 0
    return sum(_move(home, number, sequences) for number, sequences in held)


def _move(home: Home, number: int, sequences: list[int]) -> bool:
    """All of them, or none: a void record names one segment for each."""
    pending, journal = home.index.pending, home.journal
    appended: list[tuple[int, Appended]] = []
    try:
        for sequence in sequences:
            with pending.environment.reading() as t:
                found = pending.get(t, sequence)
            if found is not None:
                appended.append((sequence, _append_again(home, found.location, sequence)))
                journal.sync(appended[-1][1])
        with pending.environment.writing() as t:
            for sequence, copy in appended:
                pending.move(t, sequence, copy.location)
    except (Damaged, NotFound, Exhausted, OSError) as error:
        logger.warning("journal segment %d is kept: %s", number, error)
        return False
    finally:
        for _, copy in appended:
            journal.done(copy)
    logger.info("%d records that are set aside went on from journal segment %d", len(sequences), number)
    return True


def _append_again(home: Home, location: Location, sequence: int) -> Appended:
    with open_record(home.journal, location, sequence) as opened:
        payload, descriptor = opened.raw()
        header = opened.header
    return home.journal.append(header.kind, sequence, [payload], header.payload_crc, descriptor, header.flags)
