"""Where the time of one object goes on its way in: the DIMSE server of one worker in this process, storescu as its peer.

One association without Nagle's algorithm; no packer and no second worker run beside it. Each step is timed on the association's thread,
without the steps inside it: by the clock, and by the processor time of the thread. What the clock shows beyond the processor time is
waiting, for the peer or for the disk. A column each for CT and small MR objects; means in microseconds.
"""

import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from archive.config import Settings
from archive.dimse.message import Messages
from archive.dimse.server import Server
from archive.dimse.slots import AssociationSlots, create_slots
from archive.dimse.storage import Storage
from archive.dimse.verification import Verification
from archive.flow import ingest as flow_ingest
from archive.flow.home import Home
from archive.flow.ingest import Ingest, Reception
from archive.node.layout import make_layout
from archive.pack.journal import Journal
from scripts.bench.common import CT, DATA_SETS, MR, Report, make_series, needs, parser_of, publish, run
from scripts.bench.conditions import Conditions
from scripts.bench.dimse import WARM_UP_OBJECTS, push

STEPS: tuple[tuple[str, tuple[tuple[Any, str], ...]], ...] = (
    ("wait for the command, read it", ((Messages, "read_command"),)),
    ("begin: UIDs, bounds, file meta information", ((Ingest, "begin"),)),
    ("receive the data set", ((Messages, "read_data_set"),)),
    ("digest (BLAKE3)", ((Reception, "_hash"),)),
    ("describe: UIDs, attributes, frames", ((Reception, "_describe"),)),
    ("index: is it known?", ((Reception, "_known"),)),
    ("CRC-32", ((flow_ingest, "crc32"),)),
    ("descriptor, sequence number", ((Reception, "_descriptor"), (flow_ingest, "dumps"))),
    ("journal: write", ((Journal, "append"),)),
    ("journal: fdatasync", ((Journal, "sync"),)),
    ("index: make it findable", ((Reception, "_publish"),)),
    ("answer", ((Messages, "send"),)),
    ("rest", ((Storage, "handle"), (Reception, "commit"))),
)


@dataclass
class Spent:
    """Time of one step of all objects, in nanoseconds."""

    elapsed: int = 0
    processor: int = 0

    def add(self, elapsed: int, processor: int) -> None:
        self.elapsed += elapsed
        self.processor += processor


@dataclass
class Clock:
    """Time by step; what a step calls is the called step's."""

    spent: dict[str, Spent] = field(default_factory=dict)
    _inside: threading.local = field(default_factory=threading.local)

    def timed(self, step: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def call(*arguments: Any, **named: Any) -> Any:
            outer: Spent | None = getattr(self._inside, "spent", None)
            inner = self._inside.spent = Spent()
            began, began_processor = time.perf_counter_ns(), time.thread_time_ns()
            try:
                return function(*arguments, **named)
            finally:
                processor, elapsed = time.thread_time_ns() - began_processor, time.perf_counter_ns() - began
                self.spent.setdefault(step, Spent()).add(elapsed - inner.elapsed, processor - inner.processor)
                self._inside.spent = outer
                if outer is not None:
                    outer.add(elapsed, processor)

        return call

    @contextmanager
    def on_every_step(self) -> Iterator[None]:
        """Time the steps for as long as it is entered."""
        with ExitStack() as stack:
            for step, places in STEPS:
                for owner, name in places:
                    stack.enter_context(mock.patch.object(owner, name, self.timed(step, getattr(owner, name))))
            yield


def profile(work: Path, kind: str, objects: int, rounds: int) -> tuple[Clock, float]:
    """Time by step, and objects a second (median over the rounds, the start of storescu included)."""
    settings = Settings.model_validate({"node": {"data": work / kind / "data"}, "journal": {"free_bytes_min": 0}})
    make_layout(settings)
    clock = Clock()
    with Home(settings, "dimse-0") as home, socket.socket() as listener:
        while home.journal.make_spare():  # A node that receives has some.
            continue
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        server = Server(settings, listener, [Verification(), Storage(Ingest(home))], AssociationSlots(create_slots(1), 0, 1))
        server.start()
        try:
            port = listener.getsockname()[1]
            for seed in range(rounds + 1):
                make_series(work / f"{kind}-{seed}", kind, objects if seed else WARM_UP_OBJECTS, seed)
            push(port, [work / f"{kind}-0"])
            with clock.on_every_step():
                rates = [objects / push(port, [work / f"{kind}-{seed}"]) for seed in range(1, rounds + 1)]
        finally:
            server.stop()
    assert server.counters.objects_stored == objects * rounds + WARM_UP_OBJECTS
    return clock, statistics.median(rates)


def mean_times(clock: Clock, objects: int) -> dict[str, tuple[float, float]]:
    """Microseconds of one object by step, by the clock and of the processor; all together at the end."""
    means = {}
    for step, _ in STEPS:
        spent = clock.spent.get(step, Spent())
        means[step] = (spent.elapsed / objects / 1000, spent.processor / objects / 1000)
    return means | {"all": (sum(elapsed for elapsed, _ in means.values()), sum(processor for _, processor in means.values()))}


def main(arguments: Sequence[str]) -> None:
    parser = parser_of(__doc__ or "")
    parser.add_argument("--rounds", type=int, default=3, help="associations of each kind (default 3)")
    parser.add_argument("--count", type=int, default=300, help="objects of each association (default 300)")
    options = parser.parse_args(arguments)
    needs("storescu", "dcmtk")
    conditions = Conditions(
        "ingest", f"{DATA_SETS[CT]}; {DATA_SETS[MR]}; {options.rounds} rounds of {options.count} objects each", options.patience
    )
    found: dict[str, tuple[Clock, float]] = {}
    with tempfile.TemporaryDirectory(prefix="bench-ingest-", dir=options.work) as folder:
        for kind in (CT, MR):
            found[kind] = profile(Path(folder), kind, options.count, options.rounds)
    times = {kind: mean_times(clock, options.count * options.rounds) for kind, (clock, _) in found.items()}
    header = ["mean, µs", *(cell for kind in times for cell in (kind, "processor"))]
    lines = [[step, *(f"{value:,.0f}" for means in times.values() for value in means[step])] for step in next(iter(times.values()))]
    notes = [f"{kind}: {rate:,.0f} objects a second." for kind, (_, rate) in found.items()]
    publish(Report("ingest", header, lines, times, conditions.told(), notes), options)


if __name__ == "__main__":
    run(main)
