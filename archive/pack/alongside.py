"""Work on bytes that pass by, in a thread of its own behind whoever sends them on: digests and copies do not hold up the way."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator

from archive.pack.checksum import Bytes

BEHIND_BYTES_MAX = 64 << 20
"""What the thread may be behind; then the sender waits for it."""
NICENESS = 10
"""The sender and the other side of its connection go first; work that piled up is done while they wait for disks."""


class Alongside:
    """Use it as a context, or end it with `abandon`: then the thread is gone.

    Parameters
    ----------
    work : callable
        Gets each chunk, in order. A chunk must stay what it is until `finish` returned.
    """

    def __init__(self, work: Callable[[memoryview], object]) -> None:
        self._work = work
        self._chunks: deque[memoryview] = deque()
        self._behind = 0
        self._changed = threading.Condition()
        self._over = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "Alongside":
        return self

    def __exit__(self, *_: object) -> None:
        self.abandon()

    def through(self, chunks: Iterable[Bytes]) -> Iterator[Bytes]:
        """The same chunks; raises what the work on an earlier one raised."""
        self._thread = threading.Thread(target=self._run, name="alongside", daemon=True)
        self._thread.start()
        for chunk in chunks:
            view = memoryview(chunk)
            with self._changed:
                while self._behind > BEHIND_BYTES_MAX and self._error is None:
                    self._changed.wait()
                self._raise()
                self._behind += len(view)
                self._chunks.append(view)
                self._changed.notify_all()
            yield chunk

    def finish(self) -> None:
        """Returns when every chunk was worked on; raises what the work raised."""
        self._end()
        self._raise()

    def abandon(self) -> None:
        """Returns when the thread is gone; what it had not begun is left out."""
        with self._changed:
            self._chunks.clear()
        self._end()

    def _end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)  # Linux: of this thread alone.
        try:
            while True:
                with self._changed:
                    while not self._chunks and not self._over:
                        self._changed.wait()
                    if not self._chunks:
                        return
                    chunk = self._chunks.popleft()
                self._work(chunk)
                with self._changed:
                    self._behind -= len(chunk)
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._chunks.clear()
                self._changed.notify_all()
