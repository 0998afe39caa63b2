"""Whether a tier works, asked without waiting for one that hangs."""

import threading
import time
from concurrent.futures import Future

from archive.errors import ArchiveError, Unavailable
from archive.tier.protocol import Tier


class TierProbe:
    """Asks a tier whether packs could be read and written now: one question at a time, however many want to know.

    A tier that hangs keeps one thread; who asks meanwhile is told at once how long it has said nothing.
    """

    def __init__(self, tier: Tier) -> None:
        self._tier = tier
        self._lock = threading.Lock()
        self._asked = 0.0
        self._answer: Future[None] = Future()
        self._answer.set_result(None)

    def check(self, wait_seconds: float) -> None:
        """
        Raises
        ------
        Unavailable
            It does not work, or has not answered for `wait_seconds`.
        """
        with self._lock:
            if self._answer.done():
                self._asked, self._answer = time.monotonic(), Future()
                threading.Thread(target=self._ask, args=(self._answer,), name="tier-probe", daemon=True).start()
            answer, asked = self._answer, self._asked
        try:
            answer.result(max(0.0, asked + wait_seconds - time.monotonic()))
        except TimeoutError:
            raise Unavailable(f"{self._tier.url} has said nothing for {time.monotonic() - asked:.0f} s") from None

    def _ask(self, answer: "Future[None]") -> None:
        try:
            self._tier.check()
        except (ArchiveError, OSError) as error:
            answer.set_exception(error if isinstance(error, Unavailable) else Unavailable(str(error)))
        except BaseException as error:
            answer.set_exception(error)
        else:
            answer.set_result(None)
