"""Ranges of packs as mapped memory: packs of a tier on this machine in place, others by extents that come near."""

import contextlib
import logging
import mmap
import resource
import threading
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path

from archive.config import PoolSection
from archive.disk import LOCAL_DISK, Disk
from archive.errors import Exhausted, NotFound, Unavailable
from archive.index.packed import PackInfo
from archive.pack.naming import PackName
from archive.pool.adoption import Adoption
from archive.pool.counters import PoolCounters
from archive.pool.extent import Extent
from archive.pool.extent_name import KEPT, NEW
from archive.pool.fetching import Fetcher
from archive.pool.filling import Filler, Room
from archive.pool.flights import Outlook
from archive.pool.health import TierHealth
from archive.pool.mapped import MappedPack
from archive.pool.remote import RemotePack
from archive.pool.shelf import Shelf
from archive.pool.swapping import Swapping
from archive.tier.protocol import Tier

MAPPED_PACKS_MAX = 256
MAPPED_EXTENTS_MAX = 8192
"""Of one process, and never more than a quarter of the file descriptors that it may have."""
SWEEP_SECONDS = 2.0
RETRY_SECONDS = 5.0
ANONYMOUS_BYTES_MAX = 64 << 20

Pack = MappedPack | RemotePack

logger = logging.getLogger(__name__)


class Pool:
    """Packs that this process has open, the least recently used given up beyond a bound.

    Parameters
    ----------
    folder : Path
        `DIR/pool`; made and used once a pack is asked for that does not lie on this machine.
    """

    def __init__(self, tier: Tier, folder: Path, limits: PoolSection | None = None, disk: Disk = LOCAL_DISK) -> None:
        self._tier, self._folder, self._disk = tier, folder, disk
        self.limits = limits or PoolSection()
        self.counters = PoolCounters()
        self._lock = threading.RLock()
        self._packs: OrderedDict[int, Pack] = OrderedDict()
        self._opened: Room | None = None
        self._open_again = 0.0
        self._seen = 0
        self._told = astuple(self.counters)
        self._closing = threading.Event()
        self._sweeping: threading.Thread | None = None
        health = TierHealth(tier.url, self.counters)
        filler = Filler(tier, self.room, self.counters, health)
        self._fetcher = Fetcher(filler, self.room, self.limits, self.counters, health)

    @property
    def before_waiting(self) -> Callable[[], None]:
        """Called by a reader, in its thread, before it waits for bytes that come from elsewhere; what it raises ends the read."""
        return self._fetcher.before_waiting

    @before_waiting.setter
    def before_waiting(self, call: Callable[[], None]) -> None:
        self._fetcher.before_waiting = call

    # --- packs

    def open(self, info: PackInfo, block_crcs: Callable[[], Sequence[int]]) -> Pack:
        """A pack, ready to be viewed.

        Raises
        ------
        NotFound
            The pack is not in the tier: look the instance up again, it may have been compacted. One that lies on another machine
            says so when it is viewed.
        Damaged
            It has another length than it should.
        """
        with self._lock:
            found = self._packs.get(info.pack_id)
            if found is not None:
                self._packs.move_to_end(info.pack_id)
                return found
        path = self._tier.local_path(info.name)
        opened = (
            RemotePack(self, info, array("I", block_crcs()), self.limits.extent_bytes)
            if path is None
            else self._map(path, info, block_crcs)
        )
        with self._lock:
            opened = self._packs.setdefault(info.pack_id, opened)
            if isinstance(opened, MappedPack):
                self._start_sweeping()
            while len(self._packs) > MAPPED_PACKS_MAX:
                _, given_up = self._packs.popitem(last=False)  # Views that are out keep their mapping alive.
                self._tell_use_of(given_up)
        return opened

    def _map(self, path: Path, info: PackInfo, block_crcs: Callable[[], Sequence[int]]) -> MappedPack:
        try:
            return MappedPack(path, info, block_crcs(), self._disk)
        except FileNotFoundError:
            raise NotFound(f"pack {info.name} is not in {self._tier.url}") from None
        except OSError as error:
            raise Unavailable(f"pack {info.name}: {error.strerror}") from error

    def _start_sweeping(self) -> None:
        """With the lock held."""
        if self._sweeping is None and not self._closing.is_set():
            self._sweeping = threading.Thread(target=self._sweep_on, name="pool-sweep", daemon=True)
            self._sweeping.start()

    def _let_go_of_gone(self) -> None:
        """Packs on this machine that were deleted or moved away: as long as they are mapped the disk does not get their space back."""
        with self._lock:
            mapped = [(pack_id, pack) for pack_id, pack in self._packs.items() if isinstance(pack, MappedPack)]
        for pack_id, pack in mapped:
            if not pack.path.exists():
                self.forget(pack_id)

    def forget(self, pack_id: int) -> None:
        """Open it anew when it is next asked for."""
        with self._lock, contextlib.suppress(KeyError):
            del self._packs[pack_id]

    def adopt(self, length: int) -> Adoption:
        """Keep a pack of this length while it is written; one that goes to a tier on this machine needs no keeping."""
        fits = length <= self.limits.bytes_max // 2
        return Adoption(self.room() if fits and self.is_needed else None, length, self.limits.extent_bytes, self.counters)

    @property
    def is_needed(self) -> bool:
        """Whether packs lie elsewhere; `DIR/pool` stays empty where they do not."""
        return self._tier.local_path(PackName("any", 0, "0" * 64)) is None

    @property
    def used_bytes(self) -> int:
        """Of all processes together, on the disk."""
        room = self.room() if self.is_needed else None
        return room.shelf.state.used if room else 0

    def totals(self) -> PoolCounters:
        """What all processes of the node counted since `DIR/pool` was made; a few seconds old."""
        room = self.room() if self.is_needed else None
        return PoolCounters(*room.shelf.state.totals()) if room else PoolCounters()

    # --- for packs and fetchers

    def bring(self, pack: RemotePack, start: int, end: int, outlook: Callable[[], Outlook] | None) -> list[Extent]:
        """What of a pack is not near."""
        found = self._fetcher.bring(pack, start, end, outlook)
        self._unmap_some()
        return found

    def drop(self, extent: Extent) -> None:
        """An extent whose bytes are wrong."""
        self.counters.bad_extents += 1
        logger.warning("extent %s of the pool is damaged; it is dropped and fetched again", extent.name)
        if extent.shelf is not None:
            for part in (NEW, KEPT):
                extent.shelf.remove(extent.shelf.path(extent.name, part))

    def assemble(self, length: int, pieces: Iterator[memoryview]) -> memoryview:
        """Pieces in one, in a file without a name.

        Raises
        ------
        Exhausted
            Neither the disk nor memory has room for that much.
        """
        room = self.room()
        try:
            if room is None:
                raise Exhausted("the pool cannot be used")
            fd = room.swapping.scratch(length)
        except (Exhausted, OSError) as error:
            if length > ANONYMOUS_BYTES_MAX:
                raise Exhausted(f"{length} bytes in one piece need a file, and there is no room for one: {error}", 30) from error
            return memoryview(b"".join(pieces))
        try:
            at = 0
            for piece in pieces:
                at += self._disk.write(fd, [piece], at)
            mapped: mmap.mmap = self._disk.map_read(fd, length)
        finally:
            self._disk.close(fd)
        return memoryview(mapped)

    def room(self) -> Room | None:
        """The folder, opened at the first call; None while it cannot be used, for reading must go on without it."""
        if self._opened is not None:
            return self._opened
        with self._lock:
            if self._opened is None and not self._closing.is_set() and time.monotonic() >= self._open_again:
                try:
                    shelf = Shelf(self._folder, self.limits, self._disk)
                except (Exhausted, OSError) as error:
                    self._open_again = time.monotonic() + RETRY_SECONDS
                    logger.warning("the pool cannot be used, what is read is not kept: %s", error)
                else:
                    self._opened = Room(shelf, Swapping(shelf, self.counters, self.tell_use))
                    self._start_sweeping()
            return self._opened

    # --- what other processes should know, and what they did

    def tell_use(self) -> None:
        """Write down when this process last used its extents, and what it counted."""
        with self._lock:
            packs = list(self._packs.values())
            counted = astuple(self.counters)
            if self._opened is not None and counted != self._told:
                with contextlib.suppress(TimeoutError):  # Told the next time.
                    self._opened.shelf.state.add_totals([a - b for a, b in zip(counted, self._told, strict=True)])
                    self._told = counted
        for pack in packs:
            self._tell_use_of(pack)

    def _tell_use_of(self, pack: Pack) -> None:
        room = self._opened
        if room is not None and isinstance(pack, RemotePack):
            for extent in list(pack.cells.values()):
                if extent.used_at > extent.told_at:
                    room.swapping.tell_use(extent)

    def sweep(self) -> None:
        """Tell what was used; let go of what was given up or deleted, by whichever process, so that the disk gets its space back."""
        self._let_go_of_gone()
        room = self._opened
        if room is not None and not room.shelf.is_there():
            self._let_go_of(room)
            room = None
        if room is None:
            return
        if room.swapping.pressed.is_set():
            room.swapping.pressed.clear()
            room.swapping.make_room(0)
        self.tell_use()
        generation = room.shelf.state.generation
        with self._lock:
            packs = [pack for pack in self._packs.values() if isinstance(pack, RemotePack)]
        if generation != self._seen:
            self._seen = generation
            for pack in packs:
                for cell, extent in list(pack.cells.items()):
                    if not room.swapping.is_there(extent):
                        pack.cells.pop(cell, None)
        self._unmap_some()

    def _let_go_of(self, room: Room) -> None:
        """Of a folder that somebody removed; it is made anew for who needs it next."""
        logger.warning("%s is gone, with what was near; it is made anew", self._folder)
        with self._lock:
            self._opened = None
            for pack in self._packs.values():
                if isinstance(pack, RemotePack):
                    pack.cells.clear()
        room.shelf.let_go()

    def _unmap_some(self) -> None:
        """Let go of extents that were not used for long where too many are mapped: each holds a file descriptor."""
        most = min(MAPPED_EXTENTS_MAX, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)
        with self._lock:
            packs = [pack for pack in self._packs.values() if isinstance(pack, RemotePack)]
        if sum(len(pack.cells) for pack in packs) <= most:
            return
        self.tell_use()
        mapped = [(extent.used_at, number, cell) for number, pack in enumerate(packs) for cell, extent in list(pack.cells.items())]
        for _, number, cell in sorted(mapped)[: len(mapped) - most * 7 // 8]:
            packs[number].cells.pop(cell, None)

    def _sweep_on(self) -> None:
        while not self._closing.is_set():
            room = self._opened
            (room.swapping.pressed if room is not None else self._closing).wait(SWEEP_SECONDS)
            try:
                if not self._closing.is_set():
                    self.sweep()
            except OSError as error:
                logger.warning("the pool could not be swept: %s", error)
            except Exception:  # Nobody starts this thread again, and without it the pool only grows.
                logger.exception("the pool could not be swept")

    def close(self) -> None:
        """End the threads; views that are out stay valid."""
        self._closing.set()
        self._fetcher.close()
        room = self._opened
        if room is not None:
            room.swapping.pressed.set()
        if self._sweeping is not None:
            self._sweeping.join(SWEEP_SECONDS)
        if room is not None:
            with contextlib.suppress(OSError):
                self.tell_use()
            self._opened = None
            room.shelf.close()
