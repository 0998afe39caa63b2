"""Journal segments that are held up by a few records which cannot be packed: those go on in another segment, byte for byte."""

import logging

from archive.errors import Damaged, NotFound
from archive.flow.home import Home
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
    try:
        for sequence in sequences:
            _append_again(home, sequence)
    except (Damaged, NotFound, OSError) as error:
        logger.warning("journal segment %d is kept: %s", number, error)
        return False
    logger.info("%d records that are set aside went on from journal segment %d", len(sequences), number)
    return True


def _append_again(home: Home, sequence: int) -> None:
    pending, journal = home.index.pending, home.journal
    with pending.environment.reading() as t:
        found = pending.get(t, sequence)
    if found is None:
        return
    with open_record(journal, found.location, sequence) as opened:
        payload, descriptor = opened.raw()
        header = opened.header
    appended = journal.append(header.kind, sequence, [payload], header.payload_crc, descriptor, header.flags)
    try:
        journal.sync(appended)
        with pending.environment.writing() as t:
            pending.move(t, sequence, appended.location)
    finally:
        journal.done(appended)
