"""A node against a dictionary: whatever is pushed, packed, deleted, compacted, killed, cut off and lost, in any order, the two agree."""

import logging
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.crash.world import NUMBERS, SERIES, STUDIES, World


class Machine(RuleBasedStateMachine):
    """Hypothesis chooses what happens and shortens what fails; the disk's own choices come from a seed that it prints."""

    @initialize(seed=st.integers(0, 1 << 32))
    def begin(self, seed: int) -> None:
        logging.disable(logging.CRITICAL)
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="machine-", dir=memory if memory.is_dir() else None))
        self.world = World(self.folder / "data", random.Random(seed))
        self.world.start()

    def teardown(self) -> None:
        logging.disable(logging.NOTSET)
        if hasattr(self, "world"):
            try:
                self.world.stop()
                self.world.check_at_rest()
            finally:
                self.world.stop()
                shutil.rmtree(self.folder)

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
                self.world.start()
            else:
                self.world.tolerant(self.world.compact if then == "compact" else self.world.pack)

        if not self.world.until_cut(calls, act, power=power):
            self.world.die(power=power)
        self.world.start()
        self.world.check()

    @rule(index=st.booleans())
    def restart(self, index: bool) -> None:
        """An ordinary one; with the index lost, or not."""
        self.world.disk.forget_failures()
        self.world.stop()
        if index:
            self.world.lose_index()
        self.world.start()
        self.world.check()

    @rule()
    def look(self) -> None:
        self.world.check()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_node_and_the_dictionary_agree() -> None:
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck))
    )
