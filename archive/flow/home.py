"""Everything that one process of a node has open: settings, identity, journal, index, tier, pool."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from archive.config import Settings
from archive.disk import LOCAL_DISK, Disk
from archive.errors import Exhausted, Locked
from archive.flow.identity import identify
from archive.flow.mirroring import journal_disk
from archive.index.index import Index
from archive.index.located import hash_uid
from archive.pack.journal import Journal
from archive.pool.pool import Pool
from archive.tier.opening import open_tier

ROOM_SECONDS = 0.1
ROOM_SHARES = 64
"""Each process looks at the journal's bound again when it took so large a part of it, however fast objects come."""


class Home:
    """One process over `DIR`.

    Parameters
    ----------
    settings : Settings
        Of the node; `settings.node.data` is `DIR`.
    slot : str
        Place of a process that writes to the journal, as `dimse-0`; empty for one that only reads.

    Attributes
    ----------
    looked_back_at : float
        When packs were last looked for behind the last one known too, by time.monotonic(); recovery does it before this is opened.

    Raises
    ------
    Locked
        A process that writes is asked for while recovery runs.
    """

    def __init__(self, settings: Settings, slot: str = "", disk: Disk = LOCAL_DISK) -> None:
        self.settings, self.slot, self.disk = settings, slot, disk
        data = settings.node.data
        self.identity = identify(data, settings.node.name, disk)
        mirrored = journal_disk(settings, disk) if slot else disk
        self._writers = _lock_writers(data, disk, shared=True) if slot else -1
        j = settings.journal
        self.journal = Journal(data / "journal", self.identity.node_bytes, slot, j.segment_bytes, j.spare_segments_max, mirrored)
        self.index = Index(data / "index", settings.index.map_bytes_max, settings.index.revision_served)
        self.tier = open_tier(settings.node.tier, data / "packs", disk, settings.webhdfs)
        self.pool = Pool(self.tier, data / "pool", settings.pool, disk)
        self.looked_back_at = time.monotonic()
        self._room_until, self._unlooked_bytes = 0.0, 0

    def close(self) -> None:
        try:
            self.pool.close()
            self.journal.close()
        finally:
            self.index.close()
            if self._writers >= 0:
                self.disk.close(self._writers)
                self._writers = -1

    def __enter__(self) -> "Home":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextlib.contextmanager
    def sole_sender(self, sop_instance_uid: str) -> Iterator[None]:
        """No other thread or process of the node takes in an object under this UID while this is held."""
        fd = self.disk.open_write(self.settings.node.data / "journal" / "writers")
        try:
            self.disk.lock_byte(fd, int.from_bytes(hash_uid(sop_instance_uid)) >> 1)
            yield
        finally:
            self.disk.close(fd)

    def waiting(self) -> tuple[int, int]:
        """Instances and bytes that are accepted and not packed."""
        with self.index.pending.environment.reading() as t:
            return self.index.pending.totals(t)

    def room_bytes(self) -> int:
        """What the journal's disk, or its mirror's, has left above `journal.free_bytes_min`; negative where it has less."""
        return self.journal.disk.free_bytes(self.journal.folder) - self.settings.journal.free_bytes_min

    def check_room(self) -> None:
        """Looked at ten times a second, and with every 64th part of the journal's bound that this process took.

        What is on its way does not count: that may exceed the bound.

        Raises
        ------
        Exhausted
            The journal or the disk has reached its bound, so nothing more can be accepted now.
        """
        now = time.monotonic()
        limits = self.settings.journal
        if now < self._room_until and self._unlooked_bytes < limits.bytes_max // ROOM_SHARES:
            return
        self._room_until, self._unlooked_bytes = 0.0, 0
        if self.waiting()[1] >= limits.bytes_max:
            raise Exhausted(f"the journal holds journal.bytes_max = {limits.bytes_max} bytes that wait to be packed", 30)
        room = self.room_bytes()
        if room < 0:
            raise Exhausted(
                f"the journal's disk, or its mirror's, has {room + limits.free_bytes_min} bytes free,"
                f" less than journal.free_bytes_min = {limits.free_bytes_min}",
                30,
            )
        self._room_until = now + ROOM_SECONDS

    def took(self, length: int) -> None:
        """So many bytes went to the journal."""
        self._unlooked_bytes += length


def _lock_writers(data: Path, disk: Disk, *, shared: bool) -> int:
    path = data / "journal" / "writers"
    disk.make_folder(path.parent)
    with contextlib.suppress(FileExistsError):
        disk.close(disk.create(path))
    fd = disk.open_read(path)
    if not disk.lock(fd, shared=shared, wait=False):
        disk.close(fd)
        raise Locked(
            "the journal is being recovered by another process" if shared else "processes still write to the journal: stop them first"
        )
    return fd


@contextlib.contextmanager
def sole_writer(data: Path, disk: Disk = LOCAL_DISK) -> Iterator[None]:
    """No process writes to the journal while this is held.

    Raises
    ------
    Locked
        One does.
    """
    fd = _lock_writers(data, disk, shared=False)
    try:
        yield
    finally:
        disk.close(fd)
