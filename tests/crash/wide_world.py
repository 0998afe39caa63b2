"""A world with more in it: two processes that take objects in, a tier that goes away and comes back, packs of some series alone, a mirror.

What is random in it comes from the same generator in other places, so that a seed tells another story here than in `World`.
"""

import contextlib
import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from archive.config import WebhdfsSection
from archive.disk import Disk
from archive.errors import Duplicate, Unavailable
from archive.flow.held_segments import rewrite_held
from archive.flow.ingest import Accepted, Ingest
from archive.flow.repair import How, repair
from archive.pack.journal import Journal
from archive.tier.opening import open_tier
from archive.tier.protocol import Tier
from tests.crash.world import NUMBERS, SERIES, STUDIES, World
from tests.flow.objects import Object, begin_at_once, make_object, send, settings_of


class _Tier:
    """A tier that does not answer while its world says so."""

    def __init__(self, tier: Tier, world: "WideWorld") -> None:
        self._tier, self._world = tier, world

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._tier, name)
        if not callable(found):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            if self._world.tier_is_away:
                raise Unavailable("the tier is away")
            return found(*arguments, **named)

        return call


class WideWorld(World):
    """As `World`; `journal.mirror` and `index.revision_refused` are set in some."""

    def __init__(self, data: Path, rng: random.Random) -> None:
        super().__init__(data, rng)
        self.tier_is_away = False
        self._second: Ingest | None = None
        self._at_rest = False
        mirror = data.parent / "mirror" if rng.random() < 0.3 else None
        if mirror:
            mirror.mkdir(parents=True)
        self.settings = settings_of(
            data,
            deletion={"allowed": True},
            packer={"pack_bytes_target": 1 << 20},
            compaction={"grace_seconds": 0},
            index={"revision_refused": rng.random() < 0.2},
            journal={"mirror": str(mirror) if mirror else ""},
        )

    # --- lives

    def start(self) -> None:
        self.tier_is_away = not self._at_rest and self.rng.random() < 0.25
        with mock.patch("archive.flow.home.open_tier", self._open_tier):
            try:
                super().start()
            except Unavailable:  # The index is to be made anew.
                assert self.tier_is_away
                self.tier_is_away = False
                super().start()
        home = self.life.home
        beside = copy.copy(home)
        journal = home.settings.journal
        beside.slot = "test-1"
        beside.journal = Journal(
            self.data / "journal", home.identity.node_bytes, "test-1", journal.segment_bytes, journal.spare_segments_max, home.journal.disk
        )
        self._second = Ingest(beside)

    def _open_tier(self, url: str, embedded: Path, disk: Disk, webhdfs: WebhdfsSection) -> Any:
        return _Tier(open_tier(url, embedded, disk, webhdfs), self)

    def stop(self) -> None:
        if self._second is not None:
            self._second.home.journal.close()
        self._second = None
        super().stop()

    def die(self, *, power: bool) -> None:
        self._second = None
        super().die(power=power)

    def repair(self) -> None:
        """While nothing runs; nothing is damaged but what the cut tore, so nothing is given up."""
        if not (self.data / "node.json").exists():
            return  # There is no archive yet.
        self.tier_is_away = False
        repair(self.settings, How(apply=True), disk=self.disk)

    # --- what it is told

    def take_in(self, one: Object) -> Accepted:
        assert self._second is not None
        return send(self.rng.choice((self.life.ingest, self._second)), one)

    def send(self, study: int, series: int, number: int, version: int = 0, *, large: bool = False) -> None:
        try:
            super().send(study, series, number, version, large=large)
        except Duplicate:
            refused = self.told.perhaps.pop()
            others = [one for one in (*self.told.kept.values(), *self.told.perhaps) if one.sop_instance_uid == refused.sop_instance_uid]
            assert any(one.data_set != refused.data_set for one in others), "refused, though no other is known under its UID"

    def send_twice_at_once(self) -> None:
        """The same object to both processes; each looks for it before the other has it."""
        if self.settings.index.revision_refused:
            return
        assert self._second is not None
        rng = self.rng
        one = make_object(rng.randint(1, STUDIES), rng.randint(1, SERIES), rng.randint(1, NUMBERS))
        self.told.perhaps.append(one)
        receptions = begin_at_once((self.life.ingest, self._second), one)
        try:
            accepted = [reception.commit().revision for reception in receptions]
        finally:
            for reception in receptions:
                reception.abort()
        assert accepted[0] == accepted[1], "one object under two revision ids"
        self.told.perhaps.pop()
        self.told.kept[accepted[0]] = one
        self.told.unsure.discard(accepted[0])

    def pack_some(self) -> None:
        """Series that are quiet, as the packer does by itself."""
        packer = self.life.packer
        with self.life.home.index.pending.environment.reading() as t:
            keys = [state.key for state in self.life.home.index.pending.states(t)]
        with packer._lock:
            packer._resume(None)
            packer._pack(self.rng.sample(keys, self.rng.randint(0, len(keys))), None, now=False)

    def do_more(self) -> None:
        """One of the things that only happen here."""
        things = self.pack_some, self.send_twice_at_once, self._turn_tier, lambda: rewrite_held(self.life.home, every=True)
        self.rng.choice(things)()

    def _turn_tier(self) -> None:
        self.tier_is_away = not self.tier_is_away

    def tolerant(self, action: Callable[[], None]) -> None:
        def act() -> None:
            with contextlib.suppress(Unavailable) if self.tier_is_away else contextlib.nullcontext():
                action()

        super().tolerant(act)

    # --- what has to hold

    def check_at_rest(self) -> None:
        self._at_rest = True
        super().check_at_rest()

    def check(self) -> None:
        self.tier_is_away = False
        self.life.packer._resume(None)  # Packs that a start without the tier did not see.
        super().check()
