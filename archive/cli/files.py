"""Files on their way into the archive, several at once."""

import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path

from archive.dicom.part10 import PREAMBLE_LENGTH, read_file_meta
from archive.errors import BadInput, Exhausted
from archive.flow.ingest import Ingest, Reception

READERS = 4
"""Files read at once: one waits for its sync while the next is read."""
CHUNK_BYTES = 1 << 20
ROOM_TRIES_MAX = 20
DIRECTORY_SOP_CLASS_UID = "1.2.840.10008.1.3.10"
"""Media Storage Directory: a DICOMDIR lists files and is no instance (DICOM PS3.10 8.6)."""


class FileImport:
    """Offers files to an `Ingest` and counts what becomes of them.

    Parameters
    ----------
    ingest : Ingest
        Takes them.
    make_room : callable
        Called when a limit is reached: packs what waits.
    tell : callable
        Gets a line for each file that is skipped or refused.
    """

    def __init__(self, ingest: Ingest, make_room: Callable[[], object], tell: Callable[[str], None]) -> None:
        self._ingest, self._make_room, self._tell = ingest, make_room, tell
        self._room = threading.Lock()
        self._rounds = 0
        self.outcomes: Counter[str] = Counter()

    @property
    def refused(self) -> int:
        """Files that are DICOM and were not taken."""
        return self.outcomes["refused"]

    def __str__(self) -> str:
        return ", ".join(f"{self.outcomes[word]} {word}" for word in ("new", "same", "revision", "refused", "skipped"))

    def run(self, files: Sequence[Path]) -> Iterator[Path]:
        """Take the files in, some at once; yields each when its fate is known.

        Raises
        ------
        Exhausted
            No room comes free, however often `make_room` is called.
        OSError
            The archive's disk fails. (A file that cannot be read is refused.)
        """
        left = iter(files)
        running: dict[Future[tuple[str, str]], Path] = {}
        with ThreadPoolExecutor(READERS, "import") as pool:
            try:
                while True:
                    while len(running) < 2 * READERS and (path := next(left, None)) is not None:
                        running[pool.submit(self._take, path)] = path
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        path = running.pop(future)
                        outcome, reason = future.result()
                        self.outcomes[outcome] += 1
                        if reason:
                            self._tell(f"{outcome} {path}: {reason}")
                        yield path
            finally:
                pool.shutdown(cancel_futures=True)

    def _take(self, path: Path) -> tuple[str, str]:
        """What became of one file, and why where it was not taken."""
        for attempt in range(ROOM_TRIES_MAX):
            rounds = self._rounds
            try:
                return self._offer(path)
            except Exhausted as error:
                if attempt + 1 == ROOM_TRIES_MAX:
                    raise
                with self._room:
                    # One of the readers makes room for all.
                    if self._rounds == rounds:
                        self._make_room()
                        self._rounds += 1
                if attempt:
                    time.sleep(min(error.retry_after_seconds, attempt))
        raise AssertionError("unreachable")

    def _offer(self, path: Path) -> tuple[str, str]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            return "refused", f"cannot be read: {error.strerror}"
        with open(fd, "rb", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                return "skipped", "not a file"
            start = file.read(CHUNK_BYTES)
            if start[PREAMBLE_LENGTH : PREAMBLE_LENGTH + 4] != b"DICM":
                return "skipped", "not a DICOM Part 10 file"
            try:
                return self._ingest_file(file.readinto, start)
            except BadInput as error:
                return "refused", str(error)

    def _ingest_file(self, read_into: Callable[[memoryview], int | None], start: bytes) -> tuple[str, str]:
        meta = read_file_meta(start)
        if meta.sop_class_uid == DIRECTORY_SOP_CLASS_UID:
            return "skipped", "a DICOMDIR"
        reception = self._ingest.begin(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            source="import",
            source_ae_title=meta.source_ae_title,
        )
        try:
            reception.write(memoryview(start)[meta.length :])
            if len(start) == CHUNK_BYTES:
                _fill(reception, read_into)
            return reception.commit().outcome, ""
        finally:
            reception.abort()


def _fill(reception: Reception, read_into: Callable[[memoryview], int | None]) -> None:
    while count := read_into(reception.room(CHUNK_BYTES)):
        reception.filled(count)


def walk(paths: Sequence[Path]) -> Iterator[Path]:
    """The files among `paths` and all below its folders, in order of their names."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        for folder, folders, names in os.walk(path):
            folders.sort()
            yield from (Path(folder, name) for name in sorted(names))
