"""From journal to packs: which series are ready, what goes into which pack, and what is finished after a crash."""

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from archive.errors import ArchiveError, Damaged, Unavailable
from archive.flow.commitment import AwaitedSeries
from archive.flow.commitment_requests import CommitmentRequests, requests_folder
from archive.flow.following import adopt_packs, next_sequence, settle_pending
from archive.flow.giving_way import GivingWay
from archive.flow.home import Home
from archive.flow.housekeeping import Housekeeping
from archive.flow.in_order import InOrder, Turn
from archive.flow.left_over import settle_deletions
from archive.flow.pack_content import Content, Waiting, prepare
from archive.flow.pack_steps import Overtaken, PackSteps, pack_header
from archive.flow.portions import order_in_pack, portions
from archive.flow.voiding import forget_voids
from archive.index.located import SeriesKey
from archive.index.pending import Pending, SeriesState
from archive.pack.descriptor import Deletion, Plan
from archive.pack.naming import PackName
from archive.pack.pack_writer import INSTANCES_PER_PACK_MAX, PackHeader, PackWriter, Read
from archive.pack.segment import now_us
from archive.tier.protocol import NumberTaken
from archive.tier.tails import read_pack_tail

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.5
RETRY_SECONDS = 5.0
HURRY_SHARE = 0.5
HURRY_SEGMENTS = 16


@dataclass(frozen=True, slots=True)
class PackingReport:
    """What one call of `pack_now` did.

    Attributes
    ----------
    set_aside : dict of int to str
        Journal sequences that could not be packed, and why.
    """

    packs: int
    instances: int
    length: int
    set_aside: dict[int, str]


class Packer:
    """The only writer of packs of a node, one in one process at a time; its methods may be called from several threads."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pending, self._packed = home.index.pending, home.index.packed
        self._steps = PackSteps(home)
        self._lock, self._counting = threading.Lock(), threading.Lock()
        self._callers = 0
        self._settled = False
        with self._pending.environment.reading() as t:
            self._missing = self._home.journal.missing()
            self._problem = self._pending.problem(t)  # of this node's packer before, or of its start
        self._awaited = AwaitedSeries(home, CommitmentRequests(requests_folder(home.settings), home.disk))
        self._housekeeping = Housekeeping(home)

    # --- when

    def run(self, stop: threading.Event) -> None:
        """Pack what is ready, until `stop` is set; what fails is said, to `status` and `/ready` too, and tried again."""
        pause = 0.0
        while not stop.wait(pause):
            try:
                with self._lock:
                    self._resume(stop)
                    self._pack(self._ready(), stop, now=False)
                self._say("")
                pause = POLL_SECONDS
            except (ArchiveError, OSError) as error:
                self._say(f"packing {'stopped' if isinstance(error, NumberTaken) else 'failed'}: {error}")
                pause = RETRY_SECONDS
            except Exception as error:  # A packer that ends is started again and meets the same: better to say it and go on.
                logger.exception("packing")
                self._say(f"packing failed: {type(error).__name__}: {error}")
                pause = RETRY_SECONDS
            # Whatever became of packing: where it fails because all is full, this is what makes room.
            if not stop.is_set():
                self._housekeeping.tend(stop)

    def _say(self, problem: str) -> None:
        if problem == self._problem:
            return
        if problem:
            logger.error("%s; trying again every %s s", problem, RETRY_SECONDS)
        else:
            logger.info("packing goes on")
        with self._pending.environment.writing() as t:
            self._pending.set_problem(t, problem)
        self._problem = problem

    def pack_now(self, progress: Callable[[str], None] = lambda _: None, stop: threading.Event | None = None) -> PackingReport:
        """Everything that was accepted before the call is COMMITTED when it returns, but for what is set aside by name.

        Raises
        ------
        ArchiveError
            The tier does not answer, the number of the next pack is taken, or `stop` was set.
        """
        with self._called(), self._lock:
            before = self._totals()
            self._resume(stop)
            with self._pending.environment.reading() as t:
                states = self._pending.states(t)
            progress(f"{sum(s.instances for s in states)} instances of {len(states)} series wait")
            self._pack([s.key for s in states], stop, progress)
            if stop is not None and stop.is_set():
                raise Unavailable("the packer was stopped before everything was packed")
            after = self._totals()
            with self._pending.environment.reading() as t:
                aside = self._pending.aside(t)
        return PackingReport(after[0] - before[0], after[1] - before[1], after[2] - before[2], aside)

    @contextlib.contextmanager
    def _called(self) -> Iterator[None]:
        """Somebody waits; a pass that is under way rests no more."""
        with self._counting:
            self._callers += 1
        try:
            yield
        finally:
            with self._counting:
                self._callers -= 1

    def is_awaited(self) -> bool:
        """Whether somebody waits until all is packed."""
        return self._callers > 0

    def _totals(self) -> tuple[int, int, int]:
        with self._packed.environment.reading() as t:
            counts = self._packed.counts(t)
            return counts["packs"], counts["instances"], self._packed.bytes_packed(t)

    def _ready(self) -> list[SeriesKey]:
        """Series that are quiet, old, or awaited by storage commitment; all of them where the journal presses."""
        limits, now = self._home.settings.packer, now_us()
        with self._pending.environment.reading() as t:
            states = self._pending.states(t)
        pressed, awaited = self._is_pressed(), self._awaited.series()

        def ready(state: SeriesState) -> bool:
            # A time to come is from before the clock was set back; the series need not wait until then.
            quiet = abs(now - state.last_us) >= limits.quiet_seconds * 1e6
            return pressed or quiet or state.key in awaited or now - state.first_us >= limits.age_seconds_max * 1e6

        return [s.key for s in states if ready(s)]

    def _is_pressed(self, share: float = 1.0) -> bool:
        """Whether as much waits as presses, or this share of it."""
        return self._home.waiting()[1] > share * self._home.settings.packer.pressure_ratio * self._home.settings.journal.bytes_max

    def _in_a_hurry(self) -> bool:
        """Whether somebody waits for what is packed, or the journal will press soon, or its disk be full."""
        scanty = self._home.room_bytes() < HURRY_SEGMENTS * self._home.settings.journal.segment_bytes
        return scanty or self.is_awaited() or self._is_pressed(HURRY_SHARE) or self._awaited.any_lately()

    # --- what

    def _pack(
        self, keys: Iterable[SeriesKey], stop: threading.Event | None, progress: Callable[[str], None] = lambda _: None, now: bool = True
    ) -> None:
        settings = self._home.settings.packer
        every = portions(map(self._waiting, keys), lambda p: p.descriptor.length, settings.pack_bytes_target)
        with InOrder(settings.packs_at_once_max) as packs:
            records = next(every, None)
            while records is not None:
                if stop is not None and stop.is_set():
                    return
                later = next(every, None)
                self._pack_portion(packs, records, progress, is_last=later is None)
                records = later
        while deletions := self._deletions():
            # They go with instances where some are packed; a pack of their own can wait for more of them.
            young = abs(now_us() - deletions[-1].deleted_us) < self._home.settings.packer.quiet_seconds * 1e6
            if young and not now or stop is not None and stop.is_set():
                break
            self._steps.fulfil(self._steps.plan([], deletions), Content(), None, deletions)
        self.release_segments()

    def _deletions(self) -> list[Deletion]:
        """Deletions that wait and are in no plan, as many as go into one pack."""
        out: list[Deletion] = []
        with self._pending.environment.reading() as t:
            planned = {s for _, plan in self._pending.plans(t) for s in plan.sequences}
            for deletion in self._pending.deletions(t):
                if deletion.revision.sequence in planned:
                    continue
                if out and sum(len(d.deleted) for d in out) + len(deletion.deleted) > INSTANCES_PER_PACK_MAX:
                    break
                out.append(deletion)
        return out

    def _waiting(self, key: SeriesKey) -> list[Pending]:
        """Records of a series that can be packed, in the order of a pack."""
        with self._pending.environment.reading() as t:
            aside = self._pending.aside(t)
            records = [p for p in self._pending.instances(t, key) if p.descriptor.revision.sequence not in aside]
        return sorted(records, key=lambda p: order_in_pack(p.descriptor))

    def _pack_portion(self, packs: InOrder, records: list[Pending], progress: Callable[[str], None], *, is_last: bool) -> None:
        waiting = Waiting(self._home.journal, GivingWay(self._pending.environment, self._in_a_hurry))

        def fulfil(turn: Turn) -> None:
            with contextlib.closing(waiting):
                name = self._steps.fulfil(planned, content, waiting, deletions, turn=turn)
            logger.info("packed %d instances into %s in %.2f s", len(sequences), name, time.monotonic() - started)
            progress(f"packed {len(sequences)} instances into {name}")

        with contextlib.ExitStack() as unless_begun:
            unless_begun.callback(waiting.close)
            content = prepare(self._home, waiting, records)
            self._set_aside(content.damaged)
            if not content.series:
                return
            sequences = [d.revision.sequence for s in content.series for d, _ in s.instances]
            started = time.monotonic()
            deletions = self._deletions()
            planned = self._steps.plan(sequences, deletions)
            packs.begin(fulfil, is_last=is_last)
            unless_begun.pop_all()

    def _set_aside(self, damaged: dict[int, str]) -> None:
        if not damaged:
            return
        for sequence, reason in damaged.items():
            logger.error("journal record %d cannot be packed and is set aside: %s", sequence, reason)
        with self._pending.environment.writing() as t:
            for sequence, reason in damaged.items():
                self._pending.set_aside(t, sequence, reason)

    # --- without a plan

    def publish(self, make: Callable[[PackHeader], PackWriter], read: Read, supersedes: list[tuple[str, int]]) -> PackName:
        """A pack of what rests in packs already: written, committed. It needs no plan, since nothing waits for it; cut off, it never was.

        Parameters
        ----------
        make : callable
            Lays the pack out under a header.
        supersedes : list of (str, int)
            Node names and numbers of the packs whose content goes on in it.
        """
        tier, identity = self._home.tier, self._home.identity
        with self._lock:
            self._resume(None)  # No number is given away that a plan has.
            sequence = next_sequence(self._home)
            writer = make(pack_header(identity, Plan(uuid.uuid4().hex, sequence, []), supersedes=supersedes))
            self._set_unfollowed(True)  # However this ends: what rests is taken in before the next number is given.
            name = tier.put(
                identity.name, sequence, writer.length, writer.stream(read), lambda digest: PackName(identity.name, sequence, digest)
            )
            self._steps.commit(name, writer.tail())
            self._set_unfollowed(False)
        return name

    def release_segments(self) -> int:
        """Give back journal segments that hold nothing that waits; returns how many."""
        forget_voids(self._home)
        sealed = self._home.journal.sealed()
        with self._pending.environment.reading() as t:
            done = [number for number in sealed if not self._pending.needed(t, number)]
        # What is missing since the start stays on the list.
        self._home.journal.held.write({*sealed, *self._missing}.difference(done))
        for number in done:
            self._home.journal.release(number)
        return len(done)

    # --- after a crash

    def _resume(self, stop: threading.Event | None) -> None:
        """Finish what was planned before: with the same records, order and number; void it where a record went bad."""
        if not self._settled:
            settle_deletions(self._home)
            self._settled = True
        with self._pending.environment.reading() as t:
            unfollowed = self._pending.unfollowed(t)
        if unfollowed:
            self._follow()
        with self._pending.environment.reading() as t:
            plans = sorted(self._pending.plans(t), key=lambda p: p[1].pack_sequence)
            deletions = {d.revision.sequence: d for d in self._pending.deletions(t)} if plans else {}
        for sequence, plan in plans:
            if stop is not None and stop.is_set():
                return
            with self._packed.environment.reading() as t:
                fulfilled = self._packed.is_fulfilled(t, self._home.identity.name, plan)
            if fulfilled:
                self._steps.forget_resting(sequence, plan)
                continue
            try:
                resting = self._steps.resting(plan)
            except Damaged as error:  # Its records go into another pack then.
                logger.error("pack %d is damaged; what the journal still has of it is packed again: %s", plan.pack_sequence, error)
                self._steps.forget(sequence, Plan(plan.plan_id, plan.pack_sequence, []))
                continue
            except Overtaken as error:
                # Its sync failed, so that its records were planned anew under the same number; it was written all the same.
                logger.warning("plan %s is done with: %s", plan.plan_id, error)
                self._steps.forget(sequence, Plan(plan.plan_id, plan.pack_sequence, []))
                continue
            if resting is not None:  # Whatever became of its records since: it was written whole.
                self._steps.commit(resting, read_pack_tail(self._home.tier, resting))
                self._steps.forget_resting(sequence, plan)
                continue
            with self._pending.environment.reading() as t:
                found = [self._pending.get(t, s) for s in plan.sequences if s not in deletions]
            logger.info("finishing plan %s of pack %d", plan.plan_id, plan.pack_sequence)
            records = [f for f in found if f is not None]
            with contextlib.closing(Waiting(self._home.journal)) as waiting:
                content = prepare(self._home, waiting, records)
                if len(records) == len(found) and not content.damaged:
                    self._steps.fulfil((sequence, plan), content, waiting, [deletions[s] for s in plan.sequences if s in deletions])
                    continue
            reason = "; ".join(content.damaged.values()) or "records of the plan are gone: deleted meanwhile, or damaged"
            self._set_aside(content.damaged)
            logger.error("plan %s of pack %d is void: %s", plan.plan_id, plan.pack_sequence, reason)
            # Its number is published as a pack that holds nothing, so that followers see no gap; the good records are planned anew.
            self._steps.fulfil((sequence, Plan(plan.plan_id, plan.pack_sequence, [])), Content(), None, [], void_reason=reason)

    def _follow(self) -> None:
        """What start-up could not do, as the tier did not answer, or `publish` did not come to."""
        for name in self._home.tier.delete_in_flight(self._home.identity.name):
            logger.info("left over and removed: %s", name)
        followed = adopt_packs(self._home)
        for text in followed.damaged:
            logger.error("%s", text)
        settled = settle_pending(self._home)
        self._set_unfollowed(False)
        logger.info(
            "%d packs taken into the index that were not in it; of what waited %d instances rest in packs", followed.adopted, settled
        )

    def _set_unfollowed(self, unfollowed: bool) -> None:
        with self._pending.environment.writing() as t:
            self._pending.set_unfollowed(t, unfollowed)
