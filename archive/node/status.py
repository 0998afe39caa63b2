"""What a data folder holds and who runs on it, at one look."""

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from archive.config import Settings
from archive.errors import Unavailable
from archive.node.lock import holder_of

if TYPE_CHECKING:
    from archive.flow.home import Home

TIER_SECONDS_MAX = 5.0


@dataclass(frozen=True, slots=True)
class Status:
    """A node at one moment.

    Attributes
    ----------
    running : bool
        Whether a node serves from the folder.
    holder : str
        Who has the folder, for people; empty where nobody has.
    studies, series : int
        Known, packed or not.
    instances : int
        Objects held, packed or not; each revision under one SOP Instance UID counts.
    pack_bytes : int
        Length of all packs together.
    waiting_instances, waiting_bytes : int
        Accepted and not packed yet: they rest in the journal.
    waiting_deletions : int
        Records of deletions that no pack holds yet; what they name is gone already.
    oldest_waiting_seconds : float
        Age of the oldest of them; 0 where none waits.
    set_aside : dict of str to str
        Journal records that cannot be packed, by sequence, and why.
    packing_problem : str
        Why packing does not go on; empty while it does.
    tier_problem : str
        Why packs cannot be read or written now; empty while they can.
    """

    running: bool
    holder: str
    node_name: str
    node_uuid: str
    data: str
    tier: str
    studies: int = 0
    series: int = 0
    instances: int = 0
    packs: int = 0
    pack_bytes: int = 0
    waiting_instances: int = 0
    waiting_bytes: int = 0
    waiting_deletions: int = 0
    oldest_waiting_seconds: float = 0.0
    set_aside: dict[str, str] = field(default_factory=dict)
    packing_problem: str = ""
    tier_problem: str = ""


def status_of(settings: Settings) -> Status:
    """Look at a data folder, whether its node runs or not.

    Raises
    ------
    Damaged
        The index cannot be read.
    """
    from archive.flow.home import Home

    holder = holder_of(settings.node.data)
    if holder is not None and holder.verb == "serve":  # Its tier counts, whatever this verb was told.
        settings = settings.model_copy(update={"node": settings.node.model_copy(update={"tier": holder.tier})})
    with Home(settings) as home:
        return look(home)


def look(home: "Home") -> Status:
    """As `status_of`, over what is open already."""
    settings, pending, packed = home.settings, home.index.pending, home.index.packed
    holder = holder_of(settings.node.data)
    # The pending part first: what the packer moves meanwhile is then counted twice for a moment rather than missed.
    with pending.environment.reading() as t:
        states = pending.states(t)
        waiting_instances, waiting_bytes = pending.totals(t)
        problem = pending.problem(t)
        set_aside = {str(sequence): reason for sequence, reason in pending.aside(t).items()}
        waiting_deletions = t.count("deletions")
    with packed.environment.reading() as t:
        counts = packed.counts(t)
        pack_bytes = packed.bytes_packed(t)
        new_studies = sum(packed.study(t, uid) is None for uid in {s.key.study_instance_uid for s in states})
        new_series = sum(packed.series(t, s.key) is None for s in states)
    return Status(
        running=holder is not None and holder.verb == "serve",
        holder=str(holder or ""),
        node_name=home.identity.name,
        node_uuid=home.identity.node,
        data=str(settings.node.data),
        tier=settings.node.tier or (settings.node.data / "packs").as_uri(),
        studies=counts["studies"] + new_studies,
        series=counts["series"] + new_series,
        instances=counts["instances"] + waiting_instances,
        packs=counts["packs"],
        pack_bytes=pack_bytes,
        waiting_instances=waiting_instances,
        waiting_bytes=waiting_bytes,
        waiting_deletions=waiting_deletions,
        oldest_waiting_seconds=max(0.0, time.time() - min(s.first_us for s in states) / 1e6) if states else 0.0,
        set_aside=set_aside,
        packing_problem=problem,
        tier_problem=_problem_of_tier(home),
    )


def _problem_of_tier(home: "Home") -> str:
    from archive.tier.probe import TierProbe

    try:
        TierProbe(home.tier).check(TIER_SECONDS_MAX)
    except Unavailable as error:
        return str(error)
    return ""
