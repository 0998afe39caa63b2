"""Journal segments made ready ahead of need, beside the packer, which may be busy with a pack for a while."""

import contextlib
import logging
import threading
import time
from collections.abc import Callable

from archive.errors import ArchiveError
from archive.flow.giving_way import GivingWay
from archive.flow.home import Home

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0
REST_SECONDS = 0.05
ALWAYS_SEGMENTS = 4
ROOM_SEGMENTS = 16
"""Where the disk has not so much room, segments are made when they are needed."""
SCANTY_SEGMENTS = 4
"""Where it has not even so much, spares are given back to it: whoever refuses objects for want of room shall not hold it."""


class Spares:
    """Keeps segments ready whose blocks are written, where objects come in by more than a few.

    Into blocks that are only reserved an object takes up to half as long again.

    Parameters
    ----------
    others_wait : callable
        Whether somebody waits for other work that needs the disk: then it rests.
    """

    def __init__(self, home: Home, others_wait: Callable[[], bool] = lambda: False) -> None:
        self._home, self._others_wait = home, others_wait

    def run(self, stop: threading.Event) -> None:
        """Until `stop` is set; what fails is said, once, and tried again."""
        pause, problem = 0.0, ""
        while not stop.wait(pause):
            try:
                self.give_back()
                pause, problem = 0.0 if self.make_one() else POLL_SECONDS, ""
            except Exception as error:  # Without this thread every object would take longer, and nothing would say why.
                known = isinstance(error, ArchiveError | OSError)
                if str(error) != problem:
                    logger.error(
                        "no spare journal segment can be made: %s; trying again every %s s",
                        str(error) or type(error).__name__,
                        RETRY_SECONDS,
                        exc_info=None if known else error,
                    )
                pause, problem = RETRY_SECONDS, str(error)

    def give_back(self) -> None:
        """Remove spares as long as the disk has scanty room."""
        disk = self._home.journal.disk
        for _, path in self._home.journal.spares():
            if self._home.room_bytes() >= SCANTY_SEGMENTS * self._home.settings.journal.segment_bytes:
                return
            with contextlib.suppress(FileNotFoundError):  # It lives again.
                fd = disk.open_write(path)
                try:
                    if disk.lock(fd, shared=False, wait=False):  # Else it is just about to.
                        disk.unlink(path)
                finally:
                    disk.close(fd)

    def make_one(self) -> bool:
        """One more, where that is of use; whether it was.

        As much may come again as came lately, which is what waits to be packed.
        """
        limits = self._home.settings.journal
        waiting = self._home.waiting()[1]
        if waiting * 8 < limits.segment_bytes or self._others_wait():
            return False
        enough = ALWAYS_SEGMENTS + waiting // limits.segment_bytes
        room = self._home.room_bytes()
        # Here it is the disk that others wait for.
        give_way = GivingWay(self._home.index.pending.environment, lambda: False, time.monotonic)

        def between() -> None:
            give_way()
            while self._others_wait():
                time.sleep(REST_SECONDS)

        return room > ROOM_SEGMENTS * limits.segment_bytes and self._home.journal.make_spare(between, enough)
