"""Several packs on their way at once, each of them published and committed after those with lower numbers."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from archive.errors import ArchiveError, Unavailable

Turn = Callable[[], None]
"""Waits until all that was begun before is done; raises `Unavailable` where that failed."""


def at_once() -> None:
    """The turn of what is on its way alone."""


class InOrder:
    """Use it as a context: what was begun is over when it ends, and raises then what the first that failed raised.

    Parameters
    ----------
    at_once_max : int
        Tasks at once; `begin` waits for the oldest where there are as many.
    """

    def __init__(self, at_once_max: int) -> None:
        self._max = at_once_max
        self._executor = ThreadPoolExecutor(at_once_max, "pack")
        self._running: deque[Future[None]] = deque()

    def __enter__(self) -> "InOrder":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._executor.shutdown(wait=True)
        if error is None:
            while self._running:
                self._running.popleft().result()

    def begin(self, task: Callable[[Turn], None], *, is_last: bool) -> None:
        """Start a task; raises what an earlier one raised. One that is alone is done in this thread."""
        while len(self._running) >= self._max:
            self._running.popleft().result()
        if is_last and not self._running or self._max == 1:
            task(at_once)
            return
        before = self._running[-1] if self._running else None

        def turn() -> None:
            if before is not None:
                try:
                    before.result()
                except (ArchiveError, OSError) as error:
                    raise Unavailable(f"a pack with a lower number failed: {error}") from error

        self._running.append(self._executor.submit(task, turn))
