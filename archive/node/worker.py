"""What a child process of a node runs: `python -m archive.node.worker KIND NAME FD`.

FD is its end of the socket pair (`archive.node.child`). The first message holds the settings; `{"verb": "stop"}` asks for a
clean end; when the pair closes the parent is dead, and this process ends on the spot: what was acknowledged is on the disk.
SIGTERM and SIGINT are left to the supervisor, which a terminal or a service manager signals too and which stops workers in
order.
"""

import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator

from archive.config import Settings, association_limits
from archive.errors import ArchiveError, Unavailable
from archive.node.jobs import JOBS
from archive.node.logs import log_to_stderr
from archive.node.messages import Message, error_message, receive, send, to_json

ORPHANED = 3
"""Exit code of a process whose parent died."""
CONTROL_SECONDS_MAX = 20.0
PACKER_NICENESS = 10
"""Where processors are short, what somebody waits for goes first."""

Say = Callable[[Message], None]

_log = logging.getLogger(__name__)


def run_dimse(settings: Settings, listener: socket.socket, order: Message, stop: threading.Event, say: Say) -> None:
    """Receive over DIMSE until `stop`."""
    from archive.dimse.commitment import StorageCommitment
    from archive.dimse.find import Find
    from archive.dimse.get import Get
    from archive.dimse.move import Move
    from archive.dimse.reporting import Reporter
    from archive.dimse.server import Server
    from archive.dimse.service import Service
    from archive.dimse.slots import AssociationSlots
    from archive.dimse.storage import Storage
    from archive.dimse.verification import Verification
    from archive.flow.audit_lines import open_audit
    from archive.flow.commitment import Commitment
    from archive.flow.commitment_requests import CommitmentRequests, requests_folder
    from archive.flow.derived import counters_folder
    from archive.flow.home import Home
    from archive.flow.ingest import Ingest
    from archive.flow.left_over import refuse_unpublished
    from archive.flow.query import Search
    from archive.flow.source import RetrieveSource
    from archive.node.counters import WRITE_SECONDS, CountersFile, forget_missing_workers

    with contextlib.closing(Home(settings, order["name"])) as home, contextlib.closing(RetrieveSource(home)) as source:
        home.index.check_readers()
        refuse_unpublished(home)
        slots = AssociationSlots(order["association_slots"], order["index"], settings.dimse.associations_max, association_limits(settings))
        requests = CommitmentRequests(requests_folder(settings), home.disk)
        reporter = Reporter(requests, Commitment(home), settings)
        services: list[Service] = [
            Verification(),
            Find(Search(home), settings.dimse),
            Move(source, settings.dimse, settings.peers),
            Get(source),
            StorageCommitment(requests, reporter),
            Storage(Ingest(home)),
        ]
        audit = open_audit(settings, order["name"], home.disk)
        server = Server(settings, listener, services, slots, audit)
        folder = counters_folder(settings)
        forget_missing_workers(folder, "dimse", settings.dimse.workers)
        counters = CountersFile(folder, order["name"], server.counters.snapshot)
        counters.write()
        server.start()
        reporter.start()
        say({"ready": True})
        while not stop.wait(WRITE_SECONDS):
            counters.write()
        server.stop()
        reporter.stop()
        audit.close()
        counters.write()


def run_web(settings: Settings, listener: socket.socket, order: Message, stop: threading.Event, say: Say) -> None:
    """Serve HTTP until `stop`."""
    from archive.flow.home import Home
    from archive.web.worker import run

    with contextlib.closing(Home(settings)) as home:
        home.index.check_readers()

    serving = threading.Event()

    def ready() -> None:
        # The loop listens to SIGINT too, which a terminal sends to the whole node.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        serving.set()
        say({"ready": True})

    def end() -> None:
        stop.wait()
        serving.wait()  # Until then nobody listens to the signal.
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end, name="stop", daemon=True).start()
    run(listener, settings, worker=order["index"], ready=ready)


def run_packer(settings: Settings, listener: socket.socket, order: Message, stop: threading.Event, say: Say) -> None:
    """Pack what is ready, and answer the control socket, until `stop`."""
    from archive.flow.compaction import CompactionReport, Compactor
    from archive.flow.deletion import Deleter, DeletionReport
    from archive.flow.home import Home
    from archive.flow.packing import Packer, PackingReport
    from archive.flow.spares import Spares
    from archive.node.control import ControlServer, Progress, Verb

    os.nice(PACKER_NICENESS)
    home = Home(settings, order["name"])
    home.index.check_readers()
    packer, deleter = Packer(home), Deleter(home)
    compactor = Compactor(home, packer)

    def pack_now(request: Message, progress: Progress) -> PackingReport:
        report = packer.pack_now(progress, stop)
        if stop.is_set():
            raise Unavailable("the node is stopping; what waits is packed when it starts again")
        return report

    def delete(request: Message, progress: Progress) -> DeletionReport:
        uids = [str(uid) for uid in request["uids"]]
        return DeletionReport(deleter.look(uids), 0) if request["look"] else deleter.delete(uids, str(request["source"]), progress)

    def compact(request: Message, progress: Progress) -> CompactionReport:
        return compactor.compact(progress, stop)

    verbs: dict[str, Verb] = {
        "ping": lambda request, progress: {"pid": os.getpid()},
        "pack-now": pack_now,
        "delete": delete,
        "compact": compact,
    }
    control = ControlServer(listener, verbs)
    control.start()
    say({"ready": True})
    preparing = threading.Thread(target=Spares(home, packer.is_awaited).run, args=(stop,), name="spares", daemon=True)
    preparing.start()
    packer.run(stop)
    preparing.join()
    if control.join(CONTROL_SECONDS_MAX):
        home.close()


WORKERS = {"dimse": run_dimse, "web": run_web, "packer": run_packer}


def main(arguments: list[str]) -> int:
    """Run one worker or job; returns its exit code."""
    kind, name, fd = arguments
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    channel = socket.socket(fileno=int(fd))
    messages = receive(channel)
    order = next(messages, None)
    if order is None:
        return ORPHANED
    order["name"] = name
    settings = Settings.model_validate(order["settings"])
    log_to_stderr(name, settings.log.level)
    _allow_descriptors()
    stop = threading.Event()
    threading.Thread(target=_heed, args=(messages, stop), name="lifeline", daemon=True).start()

    def say(message: Message) -> None:
        if "ready" in message:
            _spare_collector()
        send(channel, message)

    try:
        if kind in WORKERS:
            with socket.socket(fileno=order["listener"]) as listener:
                WORKERS[kind](settings, listener, order, stop, say)
        else:
            say({"result": to_json(JOBS[kind](settings, lambda text: say({"progress": text}), **order["arguments"]))})
    except ArchiveError as error:
        say(error_message(error))
        return error.exit_code
    except Exception as error:
        _log.exception("%s failed", name)
        say({"error": f"{type(error).__name__}: {error}", "kind": "ArchiveError"})
        return 1
    return 0


def _allow_descriptors() -> None:
    """As many open files as this process may have: connections, packs and extents of the pool each hold one."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _spare_collector() -> None:
    """What is there at the start stays: a full collection that looks at all of it takes 30 ms, and every thread waits for it."""
    gc.collect()
    gc.freeze()


def _heed(messages: Iterator[Message], stop: threading.Event) -> None:
    with contextlib.suppress(OSError):
        for message in messages:
            if message.get("verb") == "stop":
                stop.set()
    # No clean-up: it could wait for something that the parent's death broke, and nothing here needs one.
    os._exit(ORPHANED)


if __name__ == "__main__":
    code = main(sys.argv[1:])
    logging.shutdown()
    # A thread of a library that never ends must not keep a stopped worker.
    os._exit(code)
