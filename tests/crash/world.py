"""A node on a simulated disk, and a dictionary that knows what it was told: whatever happens, the two have to agree."""

import random
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from archive.errors import ArchiveError, Damaged, Exhausted, NotFound
from archive.flow.check import verify
from archive.flow.compaction import Compactor
from archive.flow.deletion import Deleter
from archive.flow.home import Home
from archive.flow.ingest import Accepted
from archive.flow.query import Query, Search
from archive.flow.recovery import rebuild_index, recover
from archive.flow.repair import How, repair
from archive.pack.descriptor import Revision
from tests.crash.cutting import Cut
from tests.crash.lmdb_cut import CommitCutter
from tests.crash.simulated import ERRORS, SimulatedDisk
from tests.flow.objects import LARGE_BYTES, Life, Object, make_object, pack_files, settings_of

STUDIES, SERIES, NUMBERS = 3, 2, 6


@dataclass
class Told:
    """What the node was told, and what it said.

    Attributes
    ----------
    kept : dict
        Acknowledged objects by revision id: these have to be there.
    perhaps : list of Object
        Sent without an answer: may be there.
    deleted : dict
        Deleted with an answer: none of these may be there.
    unsure : set of Revision
        In a deletion without an answer: may be there, or may be gone once and for all.
    """

    kept: dict[Revision, Object] = field(default_factory=dict)
    perhaps: list[Object] = field(default_factory=list)
    deleted: dict[Revision, Object] = field(default_factory=dict)
    unsure: set[Revision] = field(default_factory=set)

    def live(self) -> list[Revision]:
        return [revision for revision in self.kept if revision not in self.unsure]


class World:
    """The node, its disk, and what it was told. Every random choice comes from one generator."""

    def __init__(self, data: Path, rng: random.Random) -> None:
        self.data, self.rng = data, rng
        self.settings = settings_of(
            data, deletion={"allowed": True}, packer={"pack_bytes_target": 1 << 20}, compaction={"grace_seconds": 0}
        )
        self.disk = SimulatedDisk(rng)
        self._cutter = CommitCutter(self.disk, rng)
        self.told = Told()
        self._home: Home | None = None
        self._life: Life | None = None
        self.cuts = self.kills = self.failed_calls = 0
        self.log: list[str] = []

    # --- lives

    def start(self) -> None:
        """Recovery, then a process that does everything."""
        recover(self.settings, disk=self.disk)
        self.go_on()

    def go_on(self) -> None:
        """Such a process alone, as when one of a node's died and the others went on."""
        self._home = Home(self.settings, "test-0", self.disk)
        self._life = Life(self._home)

    def stop(self) -> None:
        """An ordinary end, if it lives."""
        if self._home is not None:
            self._home.close()
        self._home = self._life = None

    def until_cut(self, calls: int, action: Callable[[], None], *, power: bool) -> bool:
        """Do something on a disk that stops after so many calls; whether it came to that."""
        self.disk.revive(calls)
        self.disk.torn = self.rng.random() < 0.5
        try:
            with self._cutter.installed():
                action()
        except Cut as cut:
            self.log.append(f"{'power cut' if power else 'kill'} at {re.sub(r'/.*/data/', '', str(cut))}")
            self.die(power=power)
            return True
        finally:
            self.disk.revive()
        return False

    def die(self, *, power: bool) -> None:
        """All processes end; with the power, what was not synced is there or not."""
        if self._home is not None:
            self._home.pool.close()
            self._home.index.close()
        self._home = self._life = None
        self.disk.close_all()
        self.disk.forget_failures()
        self.cuts += power
        self.kills += not power
        if power:
            self.disk.lose_power()
            self._cutter.apply()
            self._tear_pending()
        self._cutter.torn = None
        self.disk.revive()

    def _tear_pending(self) -> None:
        """The part of the index that is never synced: any pages of it, or nothing."""
        path = self.data / "index/pending/data.mdb"
        if path.exists():
            content = bytearray(path.read_bytes())
            for at in range(0, len(content), 4096):
                if self.rng.random() < 0.3:
                    content[at : at + 4096] = self.rng.randbytes(len(content[at : at + 4096]))
            path.write_bytes(content)
            (path.parent / "boot").write_text("another run of the machine")

    # --- what it is told

    @property
    def life(self) -> Life:
        assert self._life is not None
        return self._life

    def send(self, study: int, series: int, number: int, version: int = 0, *, large: bool = False) -> None:
        """One object; another version is another object under the same UID."""
        size = LARGE_BYTES + 5000 if large else 200
        pixels = (f"{study}/{series}/{number} version {version} ".encode() * (size // 8))[:size]
        one = make_object(study, series, number, pixels=pixels)
        self.told.perhaps.append(one)
        accepted = self.take_in(one)
        self.told.perhaps.pop()
        known = self.told.kept.get(accepted.revision)
        assert known is None or known.data_set == one.data_set, "one revision id for two objects"
        assert accepted.revision not in self.told.deleted, "a deleted object is called the same"
        self.told.kept[accepted.revision] = one
        self.told.unsure.discard(accepted.revision)  # It said that it has it.

    def take_in(self, one: Object) -> Accepted:
        (accepted,) = self.life.send(one)
        return accepted

    def pack(self) -> None:
        aside = self.life.packer.pack_now().set_aside
        kept = {revision.sequence for revision in self.told.live()}
        assert not kept & set(aside), aside

    def delete(self, revision: Revision) -> None:
        """The instance, all revisions of it."""
        uid = self.told.kept[revision].sop_instance_uid
        all_of_it = [r for r, one in self.told.kept.items() if one.sop_instance_uid == uid]
        self.told.unsure.update(all_of_it)
        try:
            Deleter(self.life.home).delete([uid], "test")
        except NotFound as error:
            raise AssertionError(f"acknowledged and lost: {revision.sequence}, {uid}") from error
        for one in all_of_it:
            self.told.deleted[one] = self.told.kept.pop(one)
            self.told.unsure.discard(one)
        self.told.perhaps = [one for one in self.told.perhaps if one.sop_instance_uid != uid]

    def compact(self) -> None:
        """Packs are joined, deleted bytes left out, old packs deleted."""
        Compactor(self.life.home, self.life.packer).compact()

    def fail_some(self) -> None:
        """Calls to come fail."""
        for _ in range(self.rng.randint(1, 2)):
            self.disk.fail(self.rng.randrange(12), self.rng.choice(ERRORS))

    def tolerant(self, action: Callable[[], None]) -> None:
        """An error of the disk is no acknowledgement, and nothing else."""
        try:
            action()
        except (ArchiveError, OSError) as error:
            assert self.disk.failures > self.failed_calls or isinstance(error, Exhausted), error
            self.log.append(f"failed: {error}")
        self.failed_calls = self.disk.failures

    # --- what has to hold

    def check(self) -> None:
        """Everything acknowledged is there, byte for byte; nothing deleted is; nothing that was never sent is."""
        found: set[Revision] = set()
        by_uid: dict[str, list[Object]] = {one.sop_instance_uid: [] for one in self.told.deleted.values()}
        for one in [*self.told.kept.values(), *self.told.perhaps]:
            by_uid.setdefault(one.sop_instance_uid, []).append(one)
        for uid, candidates in by_uid.items():
            for stored in self.life.home.index.revisions(uid):
                assert stored.revision not in self.told.deleted, f"{uid} {stored.revision} is back after its deletion"
                assert candidates, f"{uid} {stored.revision}: all of it was deleted, it is back"
                wanted = self.told.kept.get(stored.revision)
                found.add(stored.revision)
                try:
                    with self.life.retrieval.open(stored) as opened:
                        data_set = bytes(opened.stored_data_set())
                except Damaged:
                    assert wanted is None, f"{uid} {stored.revision} was acknowledged and cannot be read"
                    continue  # Torn, but for its descriptor: refused until it is sent again.
                if wanted is not None:
                    assert data_set == wanted.data_set, f"wrong bytes under {uid} {stored.revision}"
                else:
                    assert any(data_set == one.data_set for one in candidates), f"bytes that nobody sent under {uid}"
        for revision in self.told.unsure - found:  # Gone, and for good.
            self.told.deleted[revision] = self.told.kept.pop(revision)
        self.told.unsure &= found
        lost = set(self.told.live()) - found
        assert not lost, f"acknowledged and lost: {[(r.sequence, self.told.kept[r].sop_instance_uid) for r in lost]}"
        self._check_searches({self.told.kept[r].sop_instance_uid for r in self.told.live()}, {uid for uid in by_uid if by_uid[uid]})

    def _check_searches(self, wanted: set[str], possible: set[str]) -> None:
        rows = Search(self.life.home).search(Query("instance", {}, "all", 1000, 0)).rows
        uids = [row["00080018"]["Value"][0] for row in rows]
        assert len(uids) == len(set(uids))
        assert wanted <= set(uids) <= possible
        for row in rows:  # No two patients are mixed.
            assert row["00100020"]["Value"][0] == f"P{row['0020000D']['Value'][0].split('.')[2]}"

    def check_at_rest(self) -> None:
        """Packed, verified, with the index made anew too: nothing is damaged, and all is as before."""
        self.start()
        self.pack()
        torn = self.life.home.waiting()[0]
        self.check()
        self.stop()
        if torn:  # Never acknowledged, and cannot be told from what rotted: the one thing that is given up.
            done = repair(self.settings, How(apply=True, accept_loss=True), disk=self.disk)
            assert done.left == [] and len(done.lost) == torn, done
        self.assert_nothing_damaged()
        rebuild_index(self.settings, disk=self.disk)
        self.assert_nothing_damaged()
        self.start()
        self.check()
        self.stop()

    def assert_nothing_damaged(self) -> None:
        found = [f"{finding.item}: {finding.detail}" for finding in verify(self.settings) if finding.severity == "damage"]
        assert not found, found

    def check_one_bit(self) -> None:
        """Any bit of packs or journal flips: nothing wrong is served, and repair has all of it again."""
        files = [*pack_files(self.data), *(path for n in ("open", "sealed") for path in (self.data / "journal" / n).iterdir())]
        path = self.rng.choice(files)
        at = self.rng.randrange(path.stat().st_size)
        with path.open("r+b") as file:
            file.seek(at)
            byte = file.read(1)[0]
            file.seek(at)
            file.write(bytes([byte ^ 1 << self.rng.randrange(8)]))
        self.log.append(f"a bit of {path.relative_to(self.data)} at {at} flipped")
        for revision, one in self.told.kept.items():
            home = Home(self.settings)
            try:
                life = Life(home)
                for stored in home.index.revisions(one.sop_instance_uid):
                    if stored.revision == revision:
                        with life.retrieval.open(stored) as opened:
                            assert bytes(opened.stored_data_set()) == one.data_set, "wrong bytes"
            except Damaged:
                pass
            finally:
                home.close()
        done = repair(self.settings, How(apply=True))
        assert (done.lost, done.left) == ([], []), (done.lost, done.left)
        self.disk = SimulatedDisk(self.rng)
        self.adopt_files()

    def adopt_files(self) -> None:
        """All that lies there is durable."""
        for path in sorted(p for p in self.data.rglob("*") if p.is_file() and "index" not in p.parts):
            self.disk._files += 1
            self.disk._names[path] = self.disk._durable[path] = self.disk._files
            self.disk._images[self.disk._files] = bytearray(path.read_bytes())
        self._cutter = CommitCutter(self.disk, self.rng)

    def lose_index(self) -> None:
        """While nothing runs; and all else that may be deleted then."""
        for name in ("index", "pool", "derived"):
            shutil.rmtree(self.data / name, ignore_errors=True)
