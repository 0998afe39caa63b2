"""Taking packs into the index that rest in the tier and are not in it: after a crash, with a lost index, from other nodes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from archive.errors import BadInput, Damaged, Unavailable
from archive.flow.home import Home
from archive.index.packed_writer import PackedWriter
from archive.pack.naming import PackName
from archive.tier.protocol import NumberTaken
from archive.tier.tails import read_pack_tail


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


def adopt_packs(home: Home, progress: Callable[[str], None] = lambda _: None) -> Followed:
    """Take in every pack of every node whose number is higher than the last one known; pixels are not read.

    Raises
    ------
    Unavailable
        The tier does not answer.
    UnknownFormat
        A newer version wrote a pack.
    """
    out = Followed()
    packed, writer = home.index.packed, PackedWriter(home.index.packed)
    for node in home.tier.nodes():
        with packed.environment.reading() as t:
            first = packed.last_sequence(t, node) + 1
        for entry in home.tier.list_packs(node, first):
            try:
                tail = read_pack_tail(home.tier, entry.name)
            except (Damaged, BadInput) as error:
                out.damaged.append(f"pack {entry.name} cannot be taken into the index: {error}")
                continue
            with packed.environment.writing() as t:
                writer.add_pack(t, entry.name, tail)
            out.adopted += 1
            progress(f"indexed {entry.name}: {sum(len(s.instances) for s in tail.series)} instances")
    return out


def next_sequence(home: Home) -> int:
    """Number of this node's next pack: behind everything in the index, and behind damaged packs that are not in it.

    Raises
    ------
    NumberTaken
        Another node writes under this node's name.
    Unavailable
        The tier holds none of the packs that the index knows: what is written there now would be hidden once the right disk is mounted.
    """
    identity, packed = home.identity, home.index.packed
    with packed.environment.reading() as t:
        number = packed.last_sequence(t, identity.name) + 1
    if number > 1 and next(iter(home.tier.list_packs(identity.name)), None) is None:
        raise Unavailable(f"{home.tier.url} holds no pack of node {identity.name}, and the index knows {number - 1}: is it mounted?")
    for name, node in _unknown(home, number):
        if node not in ("", identity.node):
            raise NumberTaken(
                f"pack {name} was written by another node under the name {identity.name}: packing stops until one has another name"
            )
        number = name.sequence + 1
    return number


def _unknown(home: Home, first: int) -> Iterator[tuple[PackName, str]]:
    for entry in home.tier.list_packs(home.identity.name, first):
        try:
            yield entry.name, str(read_pack_tail(home.tier, entry.name).header["node"])
        except Damaged:
            yield entry.name, ""
