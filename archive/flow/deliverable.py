"""Data sets on their way to a peer: as they are stored where it takes that, else written anew in a transfer syntax that it takes."""

import contextlib
import mmap
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from archive.dicom.encode import length_of
from archive.dicom.recode import TARGETS, recode
from archive.dicom.scan import Buffer
from archive.errors import NotUnderstood
from archive.flow.decoding import Decoder
from archive.flow.derived import scratch_folder
from archive.flow.home import Home
from archive.flow.opened import Opened
from archive.flow.retrieve import Retrieval
from archive.index.located import Located

AT_ONCE_BYTES_MAX = 4 << 20
"""A data set of up to this length is checked as a whole before the first byte of it goes out."""
IN_MEMORY_BYTES_MAX = 4 << 20
"""More decoded pixels than this lie in a file that is mapped."""


@dataclass(frozen=True, slots=True)
class Deliverable:
    """A data set that can go out.

    Attributes
    ----------
    pieces : iterable of Buffer
        In order; where it is large they come as they are taken, and may raise `Damaged` in the middle.
    length : int
        Bytes of all of them.
    """

    transfer_syntax_uid: str
    pieces: Iterable[Buffer]
    length: int


class Delivery:
    """Opens instances for sending; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._retrieval = Retrieval(home)
        self._decoder = Decoder(home.settings.limits.inflated_bytes_max)

    def close(self) -> None:
        self._decoder.close()

    @contextlib.contextmanager
    def open(self, stored: Located, accepted: Sequence[str]) -> Iterator[Deliverable]:
        """An instance's data set in one of the transfer syntaxes that a peer accepted.

        Raises
        ------
        NotUnderstood
            It can be given in none of them.
        Damaged, Unavailable, NotFound
            As `Retrieval.open`.
        """
        with self._retrieval.open(stored) as opened:
            if stored.transfer_syntax_uid in accepted:
                yield self._as_stored(opened)
                return
            target = next((uid for uid in TARGETS if uid in accepted), None)
            if target is None:
                raise NotUnderstood(f"the peer takes neither {stored.transfer_syntax_uid} nor an uncompressed transfer syntax")
            parts = recode(opened.data_set(), stored.transfer_syntax_uid, target, self._decoder.decode, self._memory)
            yield Deliverable(target, parts, length_of(parts))

    @staticmethod
    def _as_stored(opened: Opened) -> Deliverable:
        stored = opened.stored
        length = stored.length - stored.data_set_offset
        pieces: Iterable[Buffer] = opened.chunks(stored.data_set_offset, length)
        return Deliverable(stored.transfer_syntax_uid, list(pieces) if length <= AT_ONCE_BYTES_MAX else pieces, length)

    def _memory(self, n: int) -> memoryview:
        """Writable memory; of a file without a name where it is much, which is gone with the last use of it."""
        if n <= IN_MEMORY_BYTES_MAX:
            return memoryview(bytearray(n))
        folder = scratch_folder(self._home.settings)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # Without its blocks a full disk would kill the process that writes to the mapped file.
            self._home.disk.allocate(file.fileno(), n)
            mapped = mmap.mmap(file.fileno(), n)
        return memoryview(mapped)
