"""A pack's tail, read from its tier."""

from archive.pack.naming import PackName
from archive.pack.pack_reader import PackTail, TailBytes, fetch_tail, parse_tail
from archive.tier.protocol import Tier


def read_pack_tail(tier: Tier, name: PackName) -> PackTail:
    """The tail of a pack; raises `NotFound`, `Damaged`, `UnknownFormat`, `Unavailable`."""
    return parse_tail(fetch_pack_tail(tier, name))


def fetch_pack_tail(tier: Tier, name: PackName) -> TailBytes:
    """Its bytes alone; raises as `read_pack_tail`."""
    return fetch_tail(tier.length(name), lambda offset, length: tier.read(name, offset, length))
