"""Instances on their way to the destination of a C-MOVE: one association or several, each in a thread of its own.

One more association is requested where that is likely to pay off, by how long the destination takes for greeting and instances; one that
takes one at a time answers the others late or never, and they are dropped in the end. Where an association ends, the instance on its way
failed; another association is requested as long as each of them brings something across.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence

from archive.config import DimseSection, RemoteAe
from archive.dicom.recode import TARGETS
from archive.dimse.outgoing import Outgoing
from archive.dimse.pdu import AssociationEnded
from archive.dimse.requesting import CONTEXTS_MAX, Wanted
from archive.dimse.status import comment_of
from archive.dimse.suboperations import Source, SubOperations, Tally
from archive.index.located import Located

log = logging.getLogger(__name__)

HELP_FACTOR = 8
"""Another association is requested where what is left takes so many times as long as the greeting of this one took."""
INSTANCES_PER_ASSOCIATION_MIN = 8
"""Fewer instances than this are no reason for a further association."""

Kind = tuple[str, str]


class Transfer:
    """The sub-operations of one C-MOVE.

    Parameters
    ----------
    source : Source
        Opens instances.
    title, remote_ae
        The destination.
    settings : DimseSection
        Of this node.
    instances : sequence of Located
        All of them.
    tally : Tally
        Counts them.
    originator : mapping of int to int or bytes
        Elements that tell the destination who asked for them.
    """

    def __init__(
        self,
        source: Source,
        title: str,
        remote_ae: RemoteAe,
        settings: DimseSection,
        instances: Sequence[Located],
        tally: Tally,
        originator: Mapping[int, int | bytes],
    ) -> None:
        self._source, self._title, self._remote_ae, self._settings = source, title, remote_ae, settings
        self._instances, self._tally, self._originator = instances, tally, originator
        self._queue: deque[Located] = deque()
        self._open: set[Outgoing] = set()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Begin; returns at once."""
        threading.Thread(target=self._run, name=f"move-{self._title}", daemon=True).start()

    def wait(self, seconds: float) -> bool:
        """Whether it is over within that time: every instance is counted, or it was stopped. Associations are released after that."""
        return self._tally.over.wait(seconds)

    def stop(self) -> None:
        """Let what is on its way come to its end, and begin nothing more."""
        self._stopped = True

    def drop(self) -> None:
        """End what is on its way, too."""
        self._stopped = True
        with self._lock:
            for one in self._open:
                one.drop()

    def _run(self) -> None:
        batches = deque(batches_of(self._instances))
        try:
            while batches:
                self._send_batch(batches.popleft())
        except Exception as error:
            log.exception("C-MOVE to %s fails inside", self._title)
            for batch in batches:
                self._queue.extend(batch.instances)
            self._give_up(comment_of(error))
        finally:
            self._tally.over.set()

    def _send_batch(self, batch: "Batch") -> None:
        self._queue.extend(batch.instances)
        most = min(self._settings.move_associations_max, len(batch.instances) // INSTANCES_PER_ASSOCIATION_MIN)
        threads = [threading.Thread(target=self._help, args=(batch,), name=f"move-{self._title}", daemon=True) for _ in range(most - 1)]
        reason = self._work(batch, list(threads))
        with self._lock:  # Who still waits for an association now has nothing to do with it.
            waiting = [one for one in self._open if not one.contexts]
        for one in waiting:
            one.drop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        if self._queue and not reason:  # An association of the others ended with this taken and not tried.
            reason = self._work(batch, [])
        if not self._stopped:
            self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        rest = list(self._queue)
        self._queue.clear()
        self._tally.give_up(rest, reason)

    def _help(self, batch: "Batch") -> None:
        reason = self._work(batch, [])
        if reason and self._queue:
            log.info("C-MOVE goes on with fewer associations: %s", reason)

    def _work(self, batch: "Batch", helpers: list[threading.Thread]) -> str:
        """Send from the queue until it is empty; why it is not, where it is not."""
        while self._queue and not self._stopped:
            outgoing = Outgoing(self._title, self._remote_ae, self._settings)
            with self._lock:
                self._open.add(outgoing)
            answered = 0
            try:
                started = time.monotonic()
                outgoing.open(batch.wanted)
                operations = SubOperations(outgoing.messages, outgoing.contexts.values(), self._source, self._tally, self._originator)
                try:
                    operations.run(self._queue, self._may_call(helpers, time.monotonic() - started, operations))
                finally:
                    answered = operations.answered
                outgoing.release()
            except AssociationEnded as end:
                outgoing.abort()
                if not answered:
                    return str(end)
                log.warning("C-MOVE goes on in another association: %s", end)
            finally:
                with self._lock:
                    self._open.discard(outgoing)
        return ""

    def _may_call(self, helpers: list[threading.Thread], greeting_seconds: float, operations: SubOperations) -> Callable[[], bool]:
        """Whether to go on; asked between two instances, it calls for help where that pays off."""
        started = next_help = time.monotonic()
        working = 1

        def go_on() -> bool:
            nonlocal next_help, working
            now, waiting = time.monotonic(), len(self._queue)
            if helpers and operations.answered and now >= next_help and waiting >= INSTANCES_PER_ASSOCIATION_MIN:
                left_seconds = waiting * (now - started) / operations.answered / working
                if left_seconds > HELP_FACTOR * greeting_seconds:
                    next_help, working = now + greeting_seconds, working + 1
                    helpers.pop().start()
            return not self._stopped

        return go_on


class Batch:
    """Instances that one set of presentation contexts serves."""

    def __init__(self) -> None:
        self.instances: list[Located] = []
        self._kinds: dict[Kind, None] = {}
        self._classes: dict[str, None] = {}

    def takes(self, stored: Located) -> bool:
        """Add an instance, unless that makes more presentation contexts than an association has."""
        kind, sop_class = (stored.sop_class_uid, stored.transfer_syntax_uid), stored.sop_class_uid
        if len({*self._kinds, kind}) + len({*self._classes, sop_class}) > CONTEXTS_MAX:
            return False
        self._kinds[kind] = self._classes[sop_class] = None
        self.instances.append(stored)
        return True

    @property
    def wanted(self) -> list[Wanted]:
        """A context for each SOP class in each stored transfer syntax, and one in what can be made of any."""
        stored = [Wanted(sop_class, (transfer_syntax,)) for sop_class, transfer_syntax in self._kinds]
        return stored + [Wanted(sop_class, TARGETS) for sop_class in self._classes]


def batches_of(instances: Sequence[Located]) -> Iterator[Batch]:
    """All instances in order, in as few batches as that allows."""
    batch = Batch()
    for stored in instances:
        if not batch.takes(stored):
            yield batch
            batch = Batch()
            batch.takes(stored)
    if batch.instances:
        yield batch
