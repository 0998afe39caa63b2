"""What the packer does besides packing, now and then."""

import logging
import threading
import time
from collections.abc import Callable, Iterator

from archive.errors import ArchiveError, Unavailable
from archive.flow.following import adopt_packs
from archive.flow.held_segments import rewrite_held
from archive.flow.home import Home
from archive.flow.superseded import Superseded

logger = logging.getLogger(__name__)


class Housekeeping:
    """Packs of other nodes are followed, superseded ones deleted, journal segments freed that a few records hold up."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._next = time.monotonic() + home.settings.packer.follow_seconds
        self._superseded = Superseded(home)
        self._deleting: Iterator[str] = iter(())
        self._due = False

    def tend(self, stop: threading.Event | None = None) -> None:
        """Do it, where `packer.follow_seconds` have passed; what fails is said, ends nothing else, and is tried again then.

        Of the packs to be deleted one goes at each call until all are gone: what took their place is read whole for it, and what is
        ready to be packed shall not wait for all of that.
        """
        if time.monotonic() >= self._next:
            self.tend_now(stop)
        else:
            self._guarded("deleting superseded packs", lambda: self._delete_one(stop))

    def tend_now(self, stop: threading.Event | None = None) -> None:
        """Do it."""
        self._next = time.monotonic() + self._home.settings.packer.follow_seconds
        self._due = True
        self._guarded("freeing journal segments", lambda: rewrite_held(self._home))
        self._guarded("following the packs of other nodes", self._follow)
        self._guarded("deleting superseded packs", lambda: self._delete_one(stop))

    def _follow(self) -> None:
        for text in adopt_packs(self._home, own=False).damaged:
            logger.error("%s", text)

    def _delete_one(self, stop: threading.Event | None) -> None:
        if next(self._deleting, None) is None and self._due:
            self._due = False
            self._deleting = self._superseded.delete(self._home.settings.compaction.grace_seconds, stop)
            next(self._deleting, None)

    @staticmethod
    def _guarded(what: str, do: Callable[[], object]) -> None:
        try:
            do()
        except Unavailable as error:
            logger.warning("%s: later, for %s", what, error)
        except (ArchiveError, OSError) as error:
            logger.error("%s failed: %s", what, error)
        except Exception:
            logger.exception(what)
