"""Taking packs into the index that rest in the tier and are not in it: after a crash, with a lost index, from other nodes."""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from archive.errors import BadInput, Damaged, NotFound, Unavailable, UnknownFormat
from archive.flow.home import Home
from archive.flow.ingest import same_as_located
from archive.index.environment import Transaction
from archive.index.packed import PackedIndex
from archive.index.packed_writer import PackedWriter
from archive.pack.descriptor import InstanceDescriptor
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, TailBytes, parse_tail
from archive.tier.protocol import NumberTaken
from archive.tier.tails import fetch_pack_tail, read_pack_tail

PACKS_PER_TRANSACTION = 32
"""Each commit is synced."""
TAILS_AHEAD = 2
LOOK_BACK_SECONDS = 3600.0
"""How often a working node looks for packs behind the last one known too: each listing names every pack of the tier."""


@dataclass(slots=True)
class Followed:
    """
    Attributes
    ----------
    adopted : int
        Packs that are in the index now.
    damaged : list of str
        Packs whose tail cannot be read, by name, and why.
    """

    adopted: int = 0
    damaged: list[str] = field(default_factory=list)


def adopt_packs(home: Home, progress: Callable[[str], None] = lambda _: None, *, own: bool = True) -> Followed:
    """Take in every pack of every node (of every other one) that is not in the index; pixels are not read.

    A working node looks behind the last number known only now and then: there may lie what was damaged, or away, when it was looked for.

    Raises
    ------
    Unavailable
        The tier does not answer.
    UnknownFormat
        A newer version wrote a pack; where other nodes alone are followed, it is named in the report, and that node is followed no further.
    """
    out = Followed()
    started_at = time.monotonic()
    all_numbers = own or started_at - home.looked_back_at >= LOOK_BACK_SECONDS
    for node in home.tier.nodes():
        if not own and node == home.identity.name:
            continue
        try:
            _adopt(home, node, out, progress, PACKS_PER_TRANSACTION if own else 1, all_numbers=all_numbers)
        except UnknownFormat as error:
            if own:
                raise
            out.damaged.append(f"packs of node {node} are not followed: {error}")
    if all_numbers:
        home.looked_back_at = started_at
    return out


def _adopt(home: Home, node: str, out: Followed, progress: Callable[[str], None], at_once: int, *, all_numbers: bool) -> None:
    packed, writer = home.index.packed, PackedWriter(home.index.packed)
    with packed.environment.reading() as t:
        known = packed.sequences(t, node) if all_numbers else set()
        first = 0 if all_numbers else packed.last_sequence(t, node) + 1
    entries = (entry for entry in home.tier.list_packs(node, first) if entry.name.sequence not in known)
    # At start nobody else writes to the index; while the node runs nobody shall wait for more than one pack, nor for the tier.
    while some := list(islice(entries, at_once)):
        names = [entry.name for entry in some]
        home.tier.settle(names)  # Journal segments are released for what the index has.
        tails: Iterable[tuple[PackName, PackTail]] = _tails(home, names, out)
        tails = tails if at_once > 1 else list(tails)
        with packed.environment.writing() as t, _no_collector():
            for name, tail in tails:
                writer.add_pack(t, name, tail)
                out.adopted += 1
                progress(f"indexed {name}: {sum(len(s.instances) for s in tail.series)} instances")


def _tails(home: Home, names: list[PackName], out: Followed) -> Iterator[tuple[PackName, PackTail]]:
    for name, fetched in zip(names, _fetched(home, names), strict=True):
        try:
            tail = parse_tail(fetched())
        except (Damaged, BadInput) as error:
            out.damaged.append(f"pack {name} cannot be taken into the index: {error}")
            continue
        except NotFound:
            continue  # It was compacted meanwhile: what it held comes with another.
        yield name, tail


def _fetched(home: Home, names: list[PackName]) -> Iterator[Callable[[], TailBytes]]:
    """The bytes of each pack's tail; read and inflated ahead where there are many, for neither needs the interpreter."""
    fetch = partial(fetch_pack_tail, home.tier)
    if len(names) <= TAILS_AHEAD:
        yield from (partial(fetch, name) for name in names)
        return
    with ThreadPoolExecutor(TAILS_AHEAD, "tail") as executor:
        ahead = deque(executor.submit(fetch, name) for name in names[:TAILS_AHEAD])
        for name in names[TAILS_AHEAD:]:
            yield ahead.popleft().result
            ahead.append(executor.submit(fetch, name))
        yield from (future.result for future in ahead)


@contextmanager
def _no_collector() -> Iterator[None]:
    """A tail is many thousand dictionaries and no cycle: looking for one over and over takes half of the time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def settle_pending(home: Home) -> int:
    """Forget what waits in the journal and rests in packs too, as those of a life before show; how many instances that were.

    Start-up does it as it reads the journal. Where it could not look at the packs, this does, once they were taken into the index.
    """
    pending, packed = home.index.pending, home.index.packed
    with pending.environment.reading() as t:
        keys = [state.key for state in pending.states(t)]
    settled = 0
    for key in keys:
        with pending.environment.writing() as t, packed.environment.reading() as p:
            waiting = [record.descriptor for record in pending.instances(t, key)]
            done = [d.revision.sequence for d in waiting if is_done_with(packed, p, d)]
            pending.remove(t, done)
        settled += len(done)
    with pending.environment.writing() as t, packed.environment.reading() as p:
        known = [d.revision.sequence for d in pending.deletions(t) if packed.is_deletion_known(p, d.revision)]
        pending.remove_small(t, "deletions", known)
    return settled


def is_done_with(packed: PackedIndex, t: Transaction, waiting: InstanceDescriptor) -> bool:
    """Whether a record of the journal rests in a pack, or is deleted."""
    return packed.is_revision_deleted(t, waiting.revision) or any(
        found.revision == waiting.revision and same_as_located(waiting, found) for found in packed.find(t, waiting.sop_instance_uid)
    )


def next_sequence(home: Home) -> int:
    """Number of this node's next pack: behind everything in the index and every plan, and behind damaged packs that are not in it.

    Raises
    ------
    NumberTaken
        Another node writes under this node's name.
    Unavailable
        The tier holds none of the packs that the index knows: what is written there now would be hidden once the right disk is mounted.
    """
    identity, packed, pending = home.identity, home.index.packed, home.index.pending
    with packed.environment.reading() as t:
        last = packed.last_sequence(t, identity.name)
    with pending.environment.reading() as t:
        number = max([last, *(plan.pack_sequence for _, plan in pending.plans(t))]) + 1
    resting = [entry.name for entry in home.tier.list_packs(identity.name, last)]
    if last and not resting and next(iter(home.tier.list_packs(identity.name)), None) is None:
        raise Unavailable(f"{home.tier.url} holds no pack of node {identity.name}, and the index knows {last}: is it mounted?")
    for name in resting:
        if name.sequence >= number:
            if _writer_of(home, name) not in ("", identity.node):
                raise NumberTaken(
                    f"pack {name} was written by another node under the name {identity.name}: packing stops until one has another name"
                )
            number = name.sequence + 1
    return number


def _writer_of(home: Home, name: PackName) -> str:
    """UUID of the node that wrote a pack; empty where it is damaged."""
    try:
        return str(read_pack_tail(home.tier, name).header["node"])
    except Damaged:
        return ""
