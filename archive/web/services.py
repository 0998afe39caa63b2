"""What every handler needs, found in the application under one key."""

from collections.abc import Callable
from dataclasses import dataclass, field

from aiohttp import web

from archive.config import Settings
from archive.flow.audit import Audit
from archive.flow.query import Search
from archive.flow.retrieve import Retrieval
from archive.web.counters import Counters
from archive.web.threads import Threads

DICOMWEB = "/dicomweb"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold for the node to be ready.

    Parameters
    ----------
    name : str
        What was looked at.
    ok : bool
        Whether it holds.
    detail : str
        For people.
    """

    name: str
    ok: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """One number about the whole node, the same from every worker.

    Parameters
    ----------
    name : str
        Without the prefix, in Prometheus' manner (`journal_bytes`).
    help : str
        One sentence.
    value : float
        Now.
    labels : dict of str to str
        By name.
    """

    name: str
    help: str
    value: float
    labels: dict[str, str]


@dataclass(frozen=True)
class Services:
    """What the handlers of one worker share."""

    settings: Settings
    retrieval: Retrieval
    search: Search
    checks: Callable[[], list[Check]]
    figures: Callable[[], list[Figure]]
    threads: Threads
    counters: Counters
    audit: Audit = field(default_factory=lambda: Audit(None))


INSTANCES, STUDY = web.RequestKey("instances", int), web.RequestKey("study", str)
"""What a handler leaves with its request for the audit log: how many instances it gave (a search: answers), the study it was about."""

BROKEN_OFF = web.RequestKey("broken_off", str)
"""Left where an answer that had begun did not come to its end: the outcome, for the audit log."""

SERVICES = web.AppKey("services", Services)
