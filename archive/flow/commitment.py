"""Storage commitment: what is committed, what never will be, what is still to be packed (promise P6, DICOM PS3.4 annex J).

Committed is an instance all of whose revisions lie in packs that were looked at, at rest, in their tier: there, of the length that the
index says, and with the SHA-256 that stands in their name. A pack that was found whole is believed for an hour.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from archive.dicom.commitment import FailureReason, Reference, Verdict
from archive.errors import Damaged, NotFound
from archive.flow.commitment_requests import CommitmentRequests
from archive.flow.home import Home
from archive.flow.looks import Looks, digest_at_rest
from archive.index.located import Located, PackPlace, SeriesKey
from archive.index.packed import PackInfo

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.5
LOOK_RESTS = 20
"""What is awaited is looked for so rarely, however many references all requests have, that it costs packing a small share."""


class Commitment:
    """Judges requests; any number of threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._looks = Looks()

    def judge(self, references: Sequence[Reference], go_on: Callable[[], None] = lambda: None) -> Verdict | None:
        """What is to be told; None while something waits to be packed.

        Parameters
        ----------
        go_on : callable
            Asked now and then; what it raises ends the work.

        Raises
        ------
        Unavailable
            The tier does not answer: ask again later.
        """
        found = {one: self._home.index.revisions(one.sop_instance_uid) for one in references}
        with self._home.index.pending.environment.reading() as t:
            aside = self._home.index.pending.aside(t)
        if any(self._waits(i, aside) for revisions in found.values() for i in revisions):
            return None
        verdict = Verdict([], [])
        bad: dict[int, str] = {}
        for one, revisions in found.items():
            reason = self._failure(one, revisions, bad, go_on)
            if reason is None:
                verdict.committed.append(one)
            else:
                verdict.failed.append((one, reason))
        return verdict

    @staticmethod
    def _waits(instance: Located, aside: dict[int, str]) -> bool:
        return not isinstance(instance.place, PackPlace) and instance.revision.sequence not in aside

    def _failure(self, wanted: Reference, revisions: list[Located], bad: dict[int, str], go_on: Callable[[], None]) -> FailureReason | None:
        if not revisions:
            return FailureReason.NO_SUCH_OBJECT_INSTANCE
        if all(i.sop_class_uid != wanted.sop_class_uid for i in revisions):
            return FailureReason.CLASS_INSTANCE_CONFLICT
        for instance in revisions:
            if not isinstance(instance.place, PackPlace):
                logger.error("instance %s is not committed: it cannot be packed", wanted.sop_instance_uid)
                return FailureReason.PROCESSING_FAILURE
            pack_id = instance.place.pack_id
            if pack_id not in bad:
                bad[pack_id] = self._look_at(pack_id, go_on)
            if bad[pack_id]:
                logger.error("instance %s is not committed: %s", wanted.sop_instance_uid, bad[pack_id])
                return FailureReason.PROCESSING_FAILURE
        return None

    def _look_at(self, pack_id: int, go_on: Callable[[], None]) -> str:
        """What is wrong with a pack; nothing where it rests as it should."""
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            info = packed.pack(t, pack_id)
        if self._looks.found(info) is not None:
            return ""
        began = time.monotonic()
        try:
            self._check(info, go_on)
        except (Damaged, NotFound) as error:
            return f"pack {info.name}: {error}"
        self._looks.note(info, "", began)  # Only what is whole: who mends a pack is not made to wait.
        return ""

    def _check(self, info: PackInfo, go_on: Callable[[], None]) -> None:
        tier = self._home.tier
        length = tier.length(info.name)
        if length != info.length:
            raise Damaged(f"is {length} bytes long, should be {info.length}")
        if self._home.settings.commitment.check == "length":
            return
        digest = digest_at_rest(tier, info.name, info.length, go_on)
        if digest != info.name.digest:
            raise Damaged(f"its SHA-256 is {digest}, not the one in its name")


class AwaitedSeries:
    """Which series the packer shall not let wait because somebody asked for their commitment; any number of threads."""

    def __init__(self, home: Home, requests: CommitmentRequests) -> None:
        self._home, self._requests = home, requests
        self._settled: set[str] = set()
        self._lock = threading.RLock()
        self._any, self._believed_until = False, 0.0

    def series(self) -> set[SeriesKey]:
        """Series of the journal that hold something asked for."""
        with self._lock:
            began = time.monotonic()
            awaited = self._look()
            ended = time.monotonic()
            self._any, self._believed_until = bool(awaited), ended + max(LOOK_SECONDS, LOOK_RESTS * (ended - began))
        return awaited

    def any_lately(self) -> bool:
        """Whether there is any, as it was at the last look, which may be a while ago: for what asks again and again."""
        with self._lock:
            return self._any if time.monotonic() < self._believed_until else bool(self.series())

    def _look(self) -> set[SeriesKey]:
        names = self._requests.names()
        self._settled &= set(names)
        awaited: set[SeriesKey] = set()
        for name in names:
            if name in self._settled:
                continue
            with self._home.index.pending.environment.reading() as t:
                found = [p for one in self._requests.references(name) for p in self._home.index.pending.find(t, one.sop_instance_uid)]
            awaited.update(p.located().series_key for p in found)
            if not found:
                self._settled.add(name)
        return awaited
