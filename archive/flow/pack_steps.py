"""The steps of one pack: plan, write, publish, commit, forget. `docs/recovery.md` says what start-up does about a cut between two.

Each is durable before the next: the plan is fsynced in the journal; the pack is streamed, synced, checked and renamed into place by its
tier; the index takes it in one synced transaction; what waited is forgotten. Journal segments that nobody needs are released then.
"""

import uuid
from collections.abc import Iterator

from archive.dicom.attributes import ATTRIBUTES_VERSION
from archive.dicom.metadata import METADATA_VERSION
from archive.disk import Bytes
from archive.errors import ArchiveError
from archive.flow.following import is_done_with, next_sequence
from archive.flow.home import Home
from archive.flow.identity import Identity
from archive.flow.in_order import Turn, at_once
from archive.flow.pack_content import Content, Waiting
from archive.index.packed_writer import PackedWriter
from archive.pack.descriptor import Deletion, InstanceDescriptor, Plan
from archive.pack.frame import Kind
from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail
from archive.pack.pack_writer import PackHeader, PackWriter
from archive.pack.segment import now_us
from archive.tier.protocol import NumberTaken
from archive.tier.tails import read_pack_tail


class Overtaken(ArchiveError):
    """A plan's number was used by another plan of this node."""


class PackSteps:
    """Of the packs of one node; several may be on their way, each in a thread of its own."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._pending, self._packed = home.index.pending, home.index.packed
        self._writer = PackedWriter(home.index.packed)

    def plan(self, sequences: list[int], deletions: list[Deletion]) -> tuple[int, Plan]:
        """The next plan, durable in the journal."""
        plan = Plan(uuid.uuid4().hex, next_sequence(self._home), [*sequences, *(d.revision.sequence for d in deletions)])
        data = plan.to_bytes()
        sequence = self._home.journal.next_sequence()
        appended = self._home.journal.append_small(Kind.PLAN, sequence, data)
        try:
            self._home.journal.sync(appended)
            with self._pending.environment.writing() as t:
                self._pending.add_plan(t, appended.location, sequence, plan)
        finally:
            self._home.journal.done(appended)
        return sequence, plan

    def fulfil(
        self,
        planned: tuple[int, Plan],
        content: Content,
        waiting: Waiting | None,
        deletions: list[Deletion],
        *,
        void_reason: str = "",
        turn: Turn = at_once,
    ) -> PackName:
        """Write the pack of a plan, which does not rest in the tier yet; in its turn publish and commit it; forget what waited."""
        sequence, plan = planned
        node, number = self._home.identity.name, plan.pack_sequence
        writer = PackWriter(pack_header(self._home.identity, plan, void_reason), content.series, deletions)

        def read(descriptor: InstanceDescriptor) -> Iterator[Bytes]:
            assert waiting is not None
            return waiting.pieces(waiting.open(content.records[descriptor.revision.sequence]), descriptor.length)

        def chunks() -> Iterator[Bytes]:
            yield from writer.stream(read)
            writer.tail()  # Parsed while the tier still syncs what it got.

        def final(digest: str) -> PackName:
            turn()
            return PackName(node, number, digest)

        give_way = waiting.give_way if waiting is not None else lambda: None
        with self._home.pool.adopt(writer.length) as adoption:
            name = self._home.tier.put(node, number, writer.length, adoption.tee(chunks()), final, give_way)
            adoption.keep(name, writer.covered)
        self.commit(name, writer.tail())
        self.forget(sequence, plan)
        return name

    def resting(self, plan: Plan) -> PackName | None:
        """The plan's own pack, where it rests in the tier already."""
        tier, node = self._home.tier, self._home.identity.name
        for entry in tier.list_packs(node, plan.pack_sequence):
            if entry.name.sequence != plan.pack_sequence:
                return None
            header = read_pack_tail(tier, entry.name).header
            if header["plan_id"] != plan.plan_id and header["node"] == self._home.identity.node:
                raise Overtaken(f"pack {entry.name} fulfils another plan than {plan.plan_id}")
            if header["plan_id"] != plan.plan_id:
                raise NumberTaken(f"pack {entry.name} was written by another node under the name {node}")
            tier.settle([entry.name])
            return entry.name
        return None

    def commit(self, name: PackName, tail: PackTail) -> None:
        with self._packed.environment.writing() as t:
            self._writer.add_pack(t, name, tail)

    def forget_resting(self, sequence: int, plan: Plan) -> None:
        """Forget a plan whose number was published, and what it named as far as that rests in packs or is deleted.

        The pack may have been published as void: then its records still wait, for another plan.
        """
        named = set(plan.sequences)
        with self._pending.environment.reading() as t, self._packed.environment.reading() as p:
            waiting = [found.descriptor for s in plan.sequences if (found := self._pending.get(t, s)) is not None]
            done = [d.revision.sequence for d in waiting if is_done_with(self._packed, p, d)]
            deletions = [d.revision for d in self._pending.deletions(t) if self._packed.is_deletion_known(p, d.revision)]
            done += named.intersection(revision.sequence for revision in deletions)
        self.forget(sequence, Plan(plan.plan_id, plan.pack_sequence, done))

    def forget(self, sequence: int, plan: Plan) -> None:
        """Forget a plan and all that it names."""
        with self._pending.environment.writing() as t:
            self._pending.remove(t, plan.sequences)
            self._pending.remove_small(t, "deletions", plan.sequences)
            self._pending.remove_small(t, "plans", [sequence])


def pack_header(identity: Identity, plan: Plan, void_reason: str = "", supersedes: list[tuple[str, int]] | None = None) -> PackHeader:
    """First line of the content index of a plan's pack."""
    versions = METADATA_VERSION, ATTRIBUTES_VERSION
    return PackHeader(identity.name, identity.node, plan.pack_sequence, plan.plan_id, now_us(), *versions, supersedes or [], void_reason)
