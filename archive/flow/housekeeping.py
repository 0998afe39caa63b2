"""What the packer does besides packing, now and then."""

import logging
import time

from archive.errors import ArchiveError, Unavailable
from archive.flow.following import adopt_packs
from archive.flow.held_segments import rewrite_held
from archive.flow.home import Home
from archive.flow.superseded import delete_superseded

logger = logging.getLogger(__name__)


class Housekeeping:
    """Packs of other nodes are followed, superseded ones deleted, journal segments freed that a few records hold up."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._next = time.monotonic() + home.settings.packer.follow_seconds

    def tend(self) -> None:
        """Do it, where `packer.follow_seconds` have passed; what fails is said, ends nothing else, and is tried again then."""
        if time.monotonic() >= self._next:
            self.tend_now()

    def tend_now(self) -> None:
        """Do it."""
        self._next = time.monotonic() + self._home.settings.packer.follow_seconds
        for what, do in (
            ("freeing journal segments", self._rewrite),
            ("following the packs of other nodes", self._follow),
            ("deleting superseded packs", self._delete),
        ):
            try:
                do()
            except Unavailable as error:
                logger.warning("%s: later, for %s", what, error)
            except (ArchiveError, OSError) as error:
                logger.error("%s failed: %s", what, error)
            except Exception:
                logger.exception(what)

    def _rewrite(self) -> None:
        rewrite_held(self._home)

    def _follow(self) -> None:
        for text in adopt_packs(self._home, own=False).damaged:
            logger.error("%s", text)

    def _delete(self) -> None:
        delete_superseded(self._home, self._home.settings.compaction.grace_seconds)
