"""How a verb gets at a data folder: alone under the lock, as a guest of the running node, or only to read."""

import contextlib
import os
import secrets
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from archive.config import Settings
from archive.errors import Damaged, Locked
from archive.node.asking import ask, node_runs
from archive.node.child import INDEX_REMEDY
from archive.node.jobs import run_job
from archive.node.layout import make_layout
from archive.node.lock import DataLock, lock_data

if TYPE_CHECKING:
    from archive.flow.home import Home

WRITERS_SECONDS_MAX = 10.0
"""Wait for the last writers of a node that is gone: an import beside it notices at its next file."""

Progress = Callable[[str], None]


@contextlib.contextmanager
def alone(settings: Settings, verb: str) -> Iterator[DataLock]:
    """The data folder under the lock, with its subfolders made.

    Raises
    ------
    Locked
        Another process has it.
    """
    make_layout(settings)
    with lock_data(settings.node.data, verb, settings.node.tier) as lock:
        yield lock


def recover(settings: Settings, lock: DataLock, progress: Progress) -> Any:
    """Settle what an unclean stop left, in a child of its own; returns its report.

    Raises
    ------
    Damaged
        The index crashed the process that read it.
    Locked
        An import that was started beside an earlier node still writes.
    """
    deadline = time.monotonic() + WRITERS_SECONDS_MAX
    while True:
        try:
            return run_job("recover", settings, progress, inherit=(lock.fd,))
        except Damaged as error:
            # Recovery reports damage of packs and journal, and raises what it cannot work without.
            raise error if INDEX_REMEDY in str(error) else Damaged(f"{error}; {INDEX_REMEDY}") from error
        except Locked:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.2)


@contextlib.contextmanager
def home_alone(settings: Settings, verb: str, progress: Progress) -> Iterator["Home"]:
    """A `Home` under the lock, recovered first.

    Raises
    ------
    Locked
        Another process has the folder.
    Damaged
        Recovery found the index unreadable.
    """
    from archive.flow.home import Home

    with alone(settings, verb) as lock:
        recover(settings, lock, progress)
        with contextlib.closing(Home(settings, verb)) as home:
            home.index.check_readers()
            yield home


@contextlib.contextmanager
def home_as_guest(settings: Settings, verb: str) -> Iterator["Home"]:
    """A `Home` to write with beside the running node.

    Raises
    ------
    Unavailable
        The node does not answer.
    """
    from archive.flow.home import Home

    # An answer means that its recovery is over.
    ask(settings.node.data, {"verb": "ping"}, progress=lambda text: None)
    # A process id alone is not enough: containers that share the folder give theirs the same ones.
    with contextlib.closing(Home(settings, f"{verb}-{os.getpid()}-{secrets.token_hex(4)}")) as home:
        # Asked again, now that no recovery can begin: the first answer may have been of a node that is gone, and another be recovering.
        ask(settings.node.data, {"verb": "ping"}, progress=lambda text: None)
        yield home


@contextlib.contextmanager
def reading_home(settings: Settings, verb: str, progress: Progress) -> Iterator["Home"]:
    """A `Home` to read with. Where no node runs, recovery comes first: what an unclean stop left must be findable.

    Raises
    ------
    Locked
        A verb that writes has the folder.
    """
    from archive.flow.home import Home

    if node_runs(settings.node.data):
        ask(settings.node.data, {"verb": "ping"}, progress)
    else:
        with alone(settings, verb) as lock:
            recover(settings, lock, progress)
    with contextlib.closing(Home(settings)) as home:
        yield home
