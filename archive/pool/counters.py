"""What a pool of one process counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class PoolCounters:
    """Plain numbers since the process started, of packs that lie on other machines.

    Attributes
    ----------
    hits, misses : int
        Views whose bytes were near, and those that had to wait for some.
    reads, read_bytes : int
        Ranged reads of the tier, for readers and ahead of them.
    ahead_bytes : int
        As many of `read_bytes` came ahead of a reader.
    adopted_bytes : int
        Came while a pack was written.
    evictions, evicted_bytes : int
        Extents given up for others.
    bad_extents : int
        Dropped because a block did not match its CRC.
    unkept_bytes : int
        Served without being kept, as the disk had no room.
    refused : int
        Views that were not waited for, as the tier does not answer.
    """

    hits: int = 0
    misses: int = 0
    reads: int = 0
    read_bytes: int = 0
    ahead_bytes: int = 0
    adopted_bytes: int = 0
    evictions: int = 0
    evicted_bytes: int = 0
    bad_extents: int = 0
    unkept_bytes: int = 0
    refused: int = 0
