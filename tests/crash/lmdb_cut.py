"""A power cut inside a commit of LMDB: pages of the new state are on the disk, or not, or in part, under the old meta page or the new one.

LMDB writes pages that nobody uses, syncs, then writes one of the two meta pages at the file's start, in one sector, and syncs.
"""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

from archive.errors import Exhausted
from archive.index.environment import Environment, Transaction
from tests.crash.cutting import Cut
from tests.crash.simulated import SECTOR_BYTES, SimulatedDisk

PAGE_BYTES = 4096
META_BYTES = 2 * PAGE_BYTES


class CommitCutter:
    """Counts each synced commit as a call to the disk, and can be cut there.

    Attributes
    ----------
    torn : bytes or None
        What the file of the packed index is after the cut.
    """

    def __init__(self, disk: SimulatedDisk, rng: random.Random) -> None:
        self._disk, self._rng = disk, rng
        self.torn: tuple[Path, bytes] | None = None

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        writing, cutter = Environment.writing, self

        @contextlib.contextmanager
        def cut_writing(environment: Environment) -> Iterator[Transaction]:
            if environment.folder.name != "packed":
                with writing(environment) as t:
                    yield t
                return
            path = environment.folder / "data.mdb"
            before = path.read_bytes()
            with writing(environment) as t:
                yield t
            try:
                with contextlib.suppress(OSError, Exhausted):  # Errors are for files of ours; LMDB's own stay whole.
                    cutter._disk._count(f"commit {path}")
            except Cut:
                cutter.torn = (path, cutter._mixed(before, path.read_bytes()))
                raise

        with mock.patch.object(Environment, "writing", cut_writing):
            yield

    def _mixed(self, before: bytes, after: bytes) -> bytes:
        """Synced pages and the new meta page, or the old one over whatever of the pages came down."""
        if self._rng.random() < 0.3:
            return after
        out = bytearray(before.ljust(len(after), b"\0"))
        share = self._rng.choice((0.0, 0.5, 1.0))
        for at in range(META_BYTES, len(after), SECTOR_BYTES):
            if self._rng.random() < share:
                out[at : at + SECTOR_BYTES] = after[at : at + SECTOR_BYTES]
        return bytes(out)

    def apply(self) -> None:
        """After every handle on the file is closed."""
        if self.torn is not None:
            path, content = self.torn
            path.write_bytes(content)
            self.torn = None
