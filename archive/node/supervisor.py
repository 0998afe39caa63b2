"""The supervisor: one process that starts, watches and ends the others, and opens neither index nor images itself.

Start-up: lock, folders, bind, recovery in a child, listen, workers, the ready line. Stop: `dimse` workers first (no more
comes in), then `web`, then the packer. A worker that dies later is started again, the longer after the oftener it dies.
"""

import contextlib
import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

from archive.config import Settings, association_limits
from archive.dimse.slots import clear_slots, create_slots
from archive.errors import ArchiveError
from archive.node.access import alone, recover
from archive.node.child import Child, manner_of_death
from archive.node.layout import with_absolute_data
from archive.node.lock import DataLock
from archive.node.logs import log_to_stderr
from archive.node.messages import decode
from archive.node.sockets import CONTROL_SOCKET, address_of, bind, bind_control, listen, want_policy

START_SECONDS_MAX = 45.0
"""A worker that is not ready by then hangs."""
STOP_SECONDS_MAX = {"dimse": 15.0, "web": 10.0, "packer": 25.0}
"""In the order of stopping; what is still there after it is killed, which loses nothing."""
BACKOFF_SECONDS_FIRST = 0.1
BACKOFF_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0
"""A worker that lived this long starts with the first back-off again."""

_log = logging.getLogger(__name__)


class _Stopped(BaseException):
    """SIGTERM or SIGINT came before the workers were there."""


@dataclass
class _Slot:
    """The place of one worker, whoever fills it now."""

    kind: str
    index: int
    listener: socket.socket
    child: Child | None = None
    ready: bool = False
    heard: bytes = b""
    said: str = ""
    started: float = 0.0
    restart_at: float | None = None
    deaths: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.index}"


class Supervisor:
    """One running node.

    Parameters
    ----------
    settings : Settings
        Checked already, except for what concerns this machine.
    announce : callable
        Gets the ready line, once.
    """

    def __init__(self, settings: Settings, announce: Callable[[str], None]) -> None:
        self.settings = with_absolute_data(settings)
        self.announce = announce
        self._slots: list[_Slot] = []
        self._selector = selectors.DefaultSelector()
        self._signals = 0
        self._interruptible = True
        self._associations = -1

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises
        ------
        WrongUse
            Bound beyond loopback without a policy, or a folder or address that cannot be.
        Locked
            Another process has the data folder.
        ArchiveError
            The node did not start.
        """
        log_to_stderr("node", self.settings.log.level)
        want_policy(self.settings)
        with contextlib.ExitStack() as stack:
            stack.callback(self._selector.close)
            stack.enter_context(self._signals_heard())
            try:
                self._serve(stack, stack.enter_context(alone(self.settings, "serve")))
            except _Stopped:
                _log.info("stopped before it was ready")

    def _serve(self, stack: contextlib.ExitStack, lock: DataLock) -> None:
        data, node = self.settings.node.data, self.settings.node
        control = stack.enter_context(bind_control(data))
        stack.callback((data / CONTROL_SOCKET).unlink, missing_ok=True)
        dimse = stack.enter_context(bind(node.host, self.settings.dimse.port))
        web = stack.enter_context(bind(node.host, self.settings.web.port))
        report = recover(self.settings, lock, _log.info)
        for line in report["lines"]:
            _log.info("recovery: %s", line)
        self._interruptible = False
        stack.callback(self._kill_all)
        for listener in (dimse, web):
            listen(listener)
        self._associations = create_slots(self.settings.dimse.workers, len(association_limits(self.settings)))
        stack.callback(os.close, self._associations)
        self._lock = lock
        self._slots += [_Slot("dimse", n, dimse) for n in range(self.settings.dimse.workers)]
        self._slots += [_Slot("web", n, web) for n in range(self.settings.web.workers)]
        self._slots.append(_Slot("packer", 0, control))
        for slot in self._slots:
            self._start(slot)
        if self._wait_until_ready():
            self.announce(f"ready dimse={address_of(dimse)} http=http://{address_of(web)}")
            while not self._signals:
                self._wait(self._next_due())
                self._tend()
        for listener in (dimse, web):
            listener.close()
        self._stop()

    # --- signals

    @contextlib.contextmanager
    def _signals_heard(self) -> Iterator[None]:
        """SIGTERM and SIGINT are counted, and wake the selector up."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ)
        before = {s: signal.signal(s, self._on_signal) for s in (signal.SIGTERM, signal.SIGINT)}
        wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)
            ours.close()
            theirs.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signals += 1
        if self._interruptible:
            self._interruptible = False
            raise _Stopped

    # --- workers

    def _start(self, slot: _Slot) -> None:
        slot.ready, slot.heard, slot.said, slot.restart_at = False, b"", "", None
        slot.started = time.monotonic()
        order = {"index": slot.index, "listener": slot.listener.fileno(), "association_slots": self._associations}
        inherit = (slot.listener.fileno(), self._associations, self._lock.fd)
        slot.child = Child(slot.name, slot.kind, self.settings, order, inherit)
        slot.child.channel.setblocking(False)
        self._selector.register(slot.child.channel, selectors.EVENT_READ, slot)
        _log.info("%s is process %d", slot.name, slot.child.pid)

    def _wait(self, until: float | None) -> None:
        """Hear what workers and signals say, until something is said or a moment of time.monotonic() comes."""
        timeout = None if until is None else max(0.0, until - time.monotonic())
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _Slot):
                self._hear(key.data)
            else:
                key.fileobj.recv(4096)  # type: ignore[union-attr]

    def _hear(self, slot: _Slot) -> None:
        assert slot.child is not None
        try:
            data = slot.child.channel.recv(65536)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""  # It died before it read all that it was told.
        if not data:
            self._collect(slot)
            return
        *lines, slot.heard = (slot.heard + data).split(b"\n")
        for line in lines:
            message = decode(line)
            slot.ready = slot.ready or bool(message.get("ready"))
            slot.said = str(message.get("error", slot.said))

    def _collect(self, slot: _Slot) -> None:
        """A worker closed its channel: it is dead, or as good as dead."""
        assert slot.child is not None
        child, slot.child = slot.child, None
        self._selector.unregister(child.channel)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.process.wait(2)
        child.kill()
        code = child.process.returncode
        if self._signals and code == 0:
            _log.info("%s ended", slot.name)
            return
        if slot.kind == "dimse":
            clear_slots(self._associations, slot.index, self.settings.dimse.workers)
        slot.said = slot.said or manner_of_death(code)
        _log.log(logging.ERROR if code else logging.WARNING, "%s (process %d) %s", slot.name, child.pid, slot.said)
        slot.deaths = 0 if time.monotonic() - slot.started > STEADY_SECONDS else slot.deaths + 1
        delay = min(BACKOFF_SECONDS_MAX, BACKOFF_SECONDS_FIRST * 2 ** max(0, slot.deaths - 1))
        slot.restart_at = time.monotonic() + delay

    def _wait_until_ready(self) -> bool:
        """True once every worker accepts; False where a signal came first.

        Raises
        ------
        ArchiveError
            One died or hangs.
        """
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._signals and not all(slot.ready for slot in self._slots):
            if time.monotonic() > deadline:
                hung = ", ".join(slot.name for slot in self._slots if not slot.ready)
                raise ArchiveError(f"not ready after {START_SECONDS_MAX:.0f} s: {hung}")
            self._wait(deadline)
            for slot in self._slots:
                if slot.child is None and not self._signals:
                    raise ArchiveError(f"{slot.name} did not start: {slot.said}")
        return not self._signals

    def _next_due(self) -> float | None:
        """When `_tend` has something to do next."""
        due = [slot.restart_at for slot in self._slots if slot.restart_at is not None]
        due += [slot.started + START_SECONDS_MAX for slot in self._slots if slot.child is not None and not slot.ready]
        return min(due, default=None)

    def _tend(self) -> None:
        """Start again what is due; end what was started again and hangs."""
        now = time.monotonic()
        for slot in self._slots:
            if slot.restart_at is not None and now >= slot.restart_at and not self._signals:
                self._start(slot)
            elif slot.child is not None and not slot.ready and now >= slot.started + START_SECONDS_MAX:
                slot.said = f"was not ready after {START_SECONDS_MAX:.0f} s"
                slot.child.process.kill()
                self._collect(slot)

    # --- the end

    def _stop(self) -> None:
        """Stop kind by kind, each within its time; a second signal cuts the wait short."""
        for kind, seconds in STOP_SECONDS_MAX.items():
            patience = self._signals
            slots = [slot for slot in self._slots if slot.kind == kind]
            for slot in slots:
                if slot.child is not None:
                    slot.child.say_stop()
            deadline = time.monotonic() + seconds
            while any(slot.child for slot in slots) and time.monotonic() < deadline and self._signals == patience:
                self._wait(deadline)
            for slot in slots:
                if slot.child is not None:
                    _log.warning("%s did not end within %.0f s and is killed", slot.name, seconds)
                    self._kill(slot)

    def _kill_all(self) -> None:
        for slot in self._slots:
            self._kill(slot)

    def _kill(self, slot: _Slot) -> None:
        if slot.child is not None:
            self._selector.unregister(slot.child.channel)
            slot.child.kill()
            slot.child = None


def serve(settings: Settings, announce: Callable[[str], None]) -> None:
    """Run a node until it is told to stop; see `Supervisor.run`."""
    Supervisor(settings, announce).run()
