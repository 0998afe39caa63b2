"""The end of packs whose content goes on in others: deleted after a grace period, once those others are proved to be whole."""

import hashlib
import logging
from collections.abc import Iterable

from archive.errors import BadInput, Damaged, NotFound
from archive.flow.home import Home
from archive.index.packed import PackInfo
from archive.index.packed_writer import PackedWriter
from archive.pack.pack_reader import PackTail
from archive.pack.segment import now_us
from archive.tier.tails import read_pack_tail

logger = logging.getLogger(__name__)


def delete_superseded(home: Home, grace_seconds: float) -> list[str]:
    """Delete this node's packs that were superseded so long ago and in which nothing is found any more; forget those that others deleted.

    A pack is deleted when every byte of the packs that hold its content now was read and matched their digests.

    Returns
    -------
    list of str
        Names of packs that are to be deleted and cannot be, and why.
    """
    packed = home.index.packed
    with packed.environment.reading() as t:
        waiting = [(info, since, packed.live(t, info.pack_id)[0]) for info, since in packed.superseded(t)]
    kept: list[str] = []
    whole: set[int] = set()
    for info, since, live in waiting:
        if info.name.node != home.identity.name:
            if not live and _is_gone(home, info):  # Else its mount is away, or what it held comes with a pack that is not followed yet.
                _forget(home, info)
        elif not live and now_us() - since >= grace_seconds * 1e6:
            try:
                _prove(home, info, whole)
            except (BadInput, Damaged, NotFound) as error:
                logger.error("superseded pack %s is kept: %s", info.name, error)
                kept.append(f"{info.name}: {error}")
                continue
            home.tier.delete(info.name)
            _forget(home, info)
            logger.info("deleted pack %s: its content rests in another", info.name)
    return kept


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


def _prove(home: Home, info: PackInfo, whole: set[int]) -> None:
    """Everything that a pack holds rests elsewhere, or is deleted; where it is gone already there is nothing to prove.

    Raises
    ------
    Damaged, NotFound
        It does not, or cannot be seen to.
    """
    if _is_gone(home, info):
        return
    tail = read_pack_tail(home.tier, info.name)
    successors = _successors(home, info, tail)
    for successor in successors:
        if successor.pack_id not in whole:
            _read_whole(home, successor)
            whole.add(successor.pack_id)
    if tail.deletions:
        carried = {d.revision for successor in successors for d in read_pack_tail(home.tier, successor.name).deletions}
        missing = [str(d.revision) for d in tail.deletions if d.revision not in carried]
        if missing:
            raise Damaged(f"deletion {missing[0]} rests in no other pack")


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


def _read_whole(home: Home, info: PackInfo) -> None:
    whole = hashlib.sha256()
    for piece in home.tier.stream(info.name, 0, home.tier.length(info.name)):
        whole.update(piece)
    if whole.hexdigest() != info.name.digest:
        raise Damaged(f"pack {info.name}, which holds its content, does not match its digest")
