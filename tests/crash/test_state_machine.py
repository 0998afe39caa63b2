"""A node against a dictionary: whatever is pushed, packed, deleted, compacted, killed, cut off and lost, in any order, the two agree.

A short run is a test; a long one is `python -m tests.crash.test_state_machine --examples 2000 --seed 1`.
"""

import argparse
import logging
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.crash.world import NUMBERS, SERIES, STUDIES, World


class Machine(RuleBasedStateMachine):
    """Hypothesis chooses what happens and shortens what fails; the disk's own choices come from a number that it prints."""

    counts: ClassVar[Counter[str]] = Counter()

    @initialize(chance=st.integers(0, 1 << 32))
    def begin(self, chance: int) -> None:
        logging.disable(logging.CRITICAL)
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="machine-", dir=memory if memory.is_dir() else None))
        self.world = World(self.folder / "data", random.Random(chance))
        self.world.start()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        if hasattr(self, "world"):
            try:
                self.world.disk.forget_failures()
                self.world.stop()
                self.world.check_at_rest()
                self._count()
            finally:
                self.world.stop()
                shutil.rmtree(self.folder)

    def _count(self) -> None:
        world = self.world
        self.counts.update(
            {
                "stories": 1,
                "acknowledged": len(world.told.kept) + len(world.told.deleted),
                "deleted": len(world.told.deleted),
                "power cuts": world.cuts,
                "kills": world.kills,
                "failed calls": world.disk.failures,
            }
        )

    @rule(
        study=st.integers(1, STUDIES),
        series=st.integers(1, SERIES),
        number=st.integers(1, NUMBERS),
        version=st.integers(0, 1),
        large=st.booleans(),
    )
    def push(self, study: int, series: int, number: int, version: int, large: bool) -> None:
        self.world.tolerant(lambda: self.world.send(study, series, number, version, large=large))

    @rule()
    def pack(self) -> None:
        self.world.tolerant(self.world.pack)

    @rule()
    def compact(self) -> None:
        self.world.tolerant(self.world.compact)

    @precondition(lambda self: hasattr(self, "world") and self.world.told.live())
    @rule(choice=st.integers(0, 1000))
    def delete(self, choice: int) -> None:
        live = self.world.told.live()
        self.world.tolerant(lambda: self.world.delete(live[choice % len(live)]))

    @rule()
    def calls_fail(self) -> None:
        self.world.fail_some()

    @rule(calls=st.integers(0, 60), power=st.booleans(), then=st.sampled_from(["push", "pack", "compact", "delete", "start"]))
    def cut_off(self, calls: int, power: bool, then: str) -> None:
        """While it does something, or as it stands there."""

        def act() -> None:
            live = self.world.told.live()
            if then == "push":
                self.world.tolerant(lambda: self.world.send(1, 1, 1, 2))
            elif then == "delete" and live:
                self.world.tolerant(lambda: self.world.delete(live[0]))
            elif then == "start":
                self.world.stop()
                self.world.tolerant(self.world.start)
            else:
                self.world.tolerant(self.world.compact if then == "compact" else self.world.pack)

        if not self.world.until_cut(calls, act, power=power):
            self.world.die(power=power)
        self.world.disk.forget_failures()
        self.world.start()
        self.world.check()

    @rule(calls=st.integers(0, 5) | st.integers(6, 40), then=st.sampled_from(["pack", "compact", "delete"]), pack=st.booleans())
    def packer_killed(self, calls: int, then: str, pack: bool) -> None:
        """While it does something; another is started, and packs, and the node is not."""

        def act() -> None:
            live = self.world.told.live()
            if then == "delete" and live:
                self.world.tolerant(lambda: self.world.delete(live[0]))
            else:
                self.world.tolerant(self.world.compact if then == "compact" else self.world.pack)

        if not self.world.until_cut(calls, act, power=False):
            self.world.die(power=False)
        self.world.disk.forget_failures()
        self.world.go_on()
        self.counts["packers killed"] += 1
        self.world.check()
        if pack:
            self.world.pack()
            self.world.check()

    @rule(index=st.booleans())
    def restart(self, index: bool) -> None:
        """An ordinary one; with the index lost, or not."""
        self.world.disk.forget_failures()
        self.world.stop()
        if index:
            self.world.lose_index()
            self.counts["indexes lost"] += 1
        self.world.start()
        self.world.check()

    @rule()
    def look(self) -> None:
        self.world.check()


def run(examples: int, steps: int, chance: int | None = None) -> Counter[str]:
    """So many random stories; what happened in all of them."""
    Machine.counts.clear()
    machine = Machine if chance is None else seed(chance)(Machine)
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=list(HealthCheck)),
    )
    return Machine.counts


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_node_and_the_dictionary_agree() -> None:
    counts = run(examples=150, steps=25)
    assert min(counts[what] for what in ("acknowledged", "deleted", "power cuts", "kills", "failed calls", "indexes lost")) > 10, counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    counts = run(options.examples, options.steps, options.seed)
    print(f"seed {options.seed}, up to {options.steps} steps each: " + ", ".join(f"{count} {what}" for what, count in counts.items()))
    print(f"node and dictionary agree; {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
