"""The end of packs whose content goes on in others: deleted after a grace period, once those others are proved to be whole."""

import logging
import threading
import time
from collections.abc import Iterable, Iterator

from archive.errors import BadInput, Damaged, NotFound, Unavailable
from archive.flow.home import Home
from archive.flow.looks import Looks, digest_at_rest
from archive.index.packed import PackInfo
from archive.index.packed_writer import PackedWriter
from archive.pack.pack_reader import PackTail
from archive.pack.segment import now_us
from archive.tier.tails import read_pack_tail

logger = logging.getLogger(__name__)


class Superseded:
    """Deletes this node's packs that were superseded long ago and in which nothing is found any more; forgets those that others deleted.

    A pack is deleted when every byte of the packs that hold its content now was read and matched their digests.
    """

    def __init__(self, home: Home) -> None:
        self._home = home
        self._successors, self._kept = Looks(), Looks()

    def delete(self, grace_seconds: float, stop: threading.Event | None = None) -> Iterator[str]:
        """Why a pack is kept that is to be deleted, or nothing where it was; one for each that took reading, so that others may go first.

        What is kept is not looked at again for an hour.

        Raises
        ------
        Unavailable
            The tier does not answer, or `stop` was set.
        """
        packed = self._home.index.packed
        with packed.environment.reading() as t:
            waiting = packed.superseded(t)
        for info, since in waiting:
            with packed.environment.reading() as t:
                live = packed.live(t, info.pack_id)[0]
            if info.name.node != self._home.identity.name:
                if not live and _is_gone(self._home, info):  # Else its mount is away, or what it held comes with a pack not followed yet.
                    _forget(self._home, info)
            elif not live and now_us() - since >= grace_seconds * 1e6 and not self._kept.found(info):
                yield self._delete(info, stop)

    def _delete(self, info: PackInfo, stop: threading.Event | None) -> str:
        try:
            self._prove(info, stop)
        except (BadInput, Damaged, NotFound) as error:
            logger.error("superseded pack %s is kept: %s", info.name, error)
            self._kept.note(info, str(error), time.monotonic())
            return f"{info.name}: {error}"
        self._home.tier.delete(info.name)
        _forget(self._home, info)
        logger.info("deleted pack %s: its content rests in another", info.name)
        return ""

    def _prove(self, info: PackInfo, stop: threading.Event | None) -> None:
        """Everything that a pack holds rests elsewhere, or is deleted; where it is gone already there is nothing to prove.

        Raises
        ------
        Damaged, NotFound
            It does not, or cannot be seen to.
        """
        if _is_gone(self._home, info):
            return
        tail = read_pack_tail(self._home.tier, info.name)
        successors = _successors(self._home, info, tail)
        for successor in successors:
            wrong = self._successors.found(successor)
            if wrong is None:
                began = time.monotonic()
                wrong = _read_whole(self._home, successor, stop)
                self._successors.note(successor, wrong, began)
            if wrong:
                raise Damaged(wrong)
        if tail.deletions:
            carried = {d.revision for successor in successors for d in read_pack_tail(self._home.tier, successor.name).deletions}
            missing = [str(d.revision) for d in tail.deletions if d.revision not in carried]
            if missing:
                raise Damaged(f"deletion {missing[0]} rests in no other pack")


def delete_superseded(home: Home, grace_seconds: float, stop: threading.Event | None = None) -> list[str]:
    """All of `Superseded.delete` at once; what is kept, and why."""
    return [kept for kept in Superseded(home).delete(grace_seconds, stop) if kept]


def _is_gone(home: Home, info: PackInfo) -> bool:
    try:
        home.tier.length(info.name)
    except NotFound:
        return True
    return False


def _forget(home: Home, info: PackInfo) -> None:
    with home.index.packed.environment.writing() as t:
        PackedWriter(home.index.packed).forget_pack(t, info)
    home.pool.forget(info.pack_id)


def _successors(home: Home, info: PackInfo, tail: PackTail) -> Iterable[PackInfo]:
    """Packs that hold its content now."""
    packed = home.index.packed
    out: dict[int, PackInfo] = {}
    with packed.environment.reading() as t:
        for series in tail.series:
            for _, d in series.instances:
                if packed.is_revision_deleted(t, d.revision):
                    continue
                places = [i.place[0] for i in packed.find(t, d.sop_instance_uid) if i.revision == d.revision]
                if not places or places[0] == info.pack_id:
                    raise Damaged(f"instance {d.sop_instance_uid} is found in no other pack")
                out[places[0]] = packed.pack(t, places[0])
        successor = packed.successor(t, info.pack_id)
        out[successor.pack_id] = successor
    return list(out.values())


def _read_whole(home: Home, info: PackInfo, stop: threading.Event | None) -> str:
    """What is wrong with a pack; nothing where every byte of it is as it should be."""

    def go_on() -> None:
        if stop is not None and stop.is_set():
            raise Unavailable("the node is stopping; what is done stays done")

    try:
        digest = digest_at_rest(home.tier, info.name, home.tier.length(info.name), go_on)
    except (BadInput, Damaged, NotFound) as error:
        return str(error)
    return "" if digest == info.name.digest else f"pack {info.name}, which holds its content, does not match its digest"
