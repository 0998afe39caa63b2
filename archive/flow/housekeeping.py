"""What the packer does besides packing, now and then."""

import logging
import time

from archive.errors import Unavailable
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
        """Do it, where `packer.follow_seconds` have passed; a tier that is away is no error here."""
        if time.monotonic() >= self._next:
            self.tend_now()

    def tend_now(self) -> None:
        """Do it."""
        settings = self._home.settings
        self._next = time.monotonic() + settings.packer.follow_seconds
        rewrite_held(self._home)
        try:
            for text in adopt_packs(self._home, own=False).damaged:
                logger.error("%s", text)
            delete_superseded(self._home, settings.compaction.grace_seconds)
        except Unavailable as error:
            logger.warning("packs of other nodes and superseded packs are looked at later: %s", error)
