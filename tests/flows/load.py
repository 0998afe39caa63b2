"""A modality that sends series after series, viewers that read what was sent, and what the node's processes hold meanwhile."""

import itertools
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.flows.far import PIXEL_BYTES, FarNode, make_study
from tests.flows.memory import processes_of
from tests.kit import multipart_parts, part10_data_set

VIEWERS = 4
WITH_ROOM = {"threads": 4, "sockets": 3, "files": 4}
"""What may come and go: a worker's next thread, a connection that is kept, a segment that is open."""


class Load:
    """One modality and some viewers, who accept that they are told to come again and nothing else that is wrong.

    Parameters
    ----------
    studies : iterator of int
        What is sent.
    read_to : int, optional
        So many of the objects that were sent first are read; all of them without it.

    Attributes
    ----------
    refused : int
        Reads that were told 503.
    """

    def __init__(self, far: FarNode, studies: Iterator[int], read_to: int | None) -> None:
        self._far, self._studies, self._read_to = far, studies, read_to
        self._stop = threading.Event()
        self._errors: list[BaseException] = []
        self.read = self.refused = 0
        runs = [self._send, *[self._view] * VIEWERS]
        self._threads = [threading.Thread(target=self._watched, args=(run, seed)) for seed, run in enumerate(runs)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()
        assert not self._errors, (self._errors, self._far.node.log())

    def _watched(self, run: Callable[[random.Random], None], seed: int) -> None:
        try:
            while not self._stop.wait(0.05):
                run(random.Random(f"{seed} {self.read}"))
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _send(self, _: random.Random) -> None:
        self._far.store_all(make_study(next(self._studies)))
        self._stop.wait(0.8)

    def _view(self, chosen: random.Random) -> None:
        one = chosen.choice(self._far.sent[: self._read_to])
        if chosen.random() < 0.8:
            answer = self._far.frame(one)
            right = answer.body == one.data_set[-PIXEL_BYTES:]
        else:
            answer = self._far.series(one)
            right = answer.status == 200 and set(
                part10_data_set(file) for file in multipart_parts(answer.headers["Content-Type"], answer.body)
            ) <= {other.data_set for other in make_study(int(one.study_instance_uid.rpartition(".")[2]))}
        assert right or answer.status == 503, answer
        self.read += 1
        self.refused += answer.status == 503


@contextmanager
def loaded(far: FarNode, read_to: int | None = None) -> Iterator[Load]:
    """Load while something happens; studies from 100 on."""
    with Load(far, itertools.count(100 + len(far.sent)), read_to) as load:
        yield load


def footprint(far: FarNode) -> dict[str, dict[str, int]]:
    """Threads, sockets, and files besides extents of the pool, of each process of the node."""
    found = {}
    for name, pid in processes_of(far.node).items():
        targets = [_target(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()]
        files = [target for target in targets if target.startswith("/") and "/pool/new/" not in target and "/pool/kept/" not in target]
        found[name] = {
            "threads": len(os.listdir(f"/proc/{pid}/task")),
            "sockets": sum(target.startswith("socket:") for target in targets),
            "files": len(files),
        }
    return found


def _target(fd: Path) -> str:
    try:
        return os.readlink(fd)
    except FileNotFoundError:
        return ""


def grown(before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]) -> dict[str, object]:
    """What a process holds more of than it should."""
    return {
        f"{name} {kind}": (before[name][kind], count)
        for name, counts in after.items()
        for kind, count in counts.items()
        if count > before[name][kind] + WITH_ROOM[kind]
    }
