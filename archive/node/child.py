"""One child process of a node, started clean (never by fork after LMDB is open) and tied to this process.

The two share a socket pair. The child is told what to do in the first message, says how it fares in messages of its own,
and ends at once when the pair closes: a parent that is killed takes its children with it, whatever they were doing.
"""

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from archive.config import Settings
from archive.node.messages import Message, send

INDEX_REMEDY = "stop, delete index/ and run rebuild-index"
CRASHES = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT, signal.SIGFPE, signal.SIGILL)


class Child:
    """A process of the node, seen from its parent.

    Parameters
    ----------
    name : str
        As it appears in log lines and in `ps`: `dimse-0`, `recover`.
    kind : str
        What `archive.node.worker` is to run.
    settings : Settings
        Handed over whole.
    order : dict
        What else the child must know; sent with the settings.
    inherit : sequence of int
        Descriptors that the child gets under the same numbers.
    """

    def __init__(self, name: str, kind: str, settings: Settings, order: Message | None = None, inherit: Sequence[int] = ()) -> None:
        self.name = name
        self.channel, theirs = socket.socketpair()
        with theirs:
            # -P: a folder named `archive` where the node is started must not be taken for this package.
            command = [sys.executable, "-P", "-m", "archive.node.worker", kind, name, str(theirs.fileno())]
            # stdout belongs to the ready line of the supervisor and the answers of a verb.
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=2, pass_fds=(theirs.fileno(), *inherit))
        # One that died already shows it to whoever waits for it next.
        with contextlib.suppress(OSError):
            send(self.channel, {**(order or {}), "settings": settings.model_dump(mode="json")})

    @property
    def pid(self) -> int:
        return self.process.pid

    def say_stop(self) -> None:
        """Ask for a clean end; one that ends by itself need not hear it."""
        with contextlib.suppress(OSError):
            send(self.channel, {"verb": "stop"})

    def kill(self) -> None:
        """End it now and collect it."""
        self.process.kill()
        self.process.wait()
        self.channel.close()


def manner_of_death(code: int) -> str:
    """What an exit code says, for people; a crash by signal is how a damaged LMDB file shows itself."""
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"crashed with {name}; the index is damaged: {INDEX_REMEDY}" if -code in CRASHES else f"was killed with {name}"


def is_crash(code: int) -> bool:
    """Whether the process fell over by itself, as one does that reads a damaged LMDB file."""
    return -code in CRASHES
