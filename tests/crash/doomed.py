"""A life of a node that ends where the test says, and the start after it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.flow.home import Home
from archive.flow.recovery import RecoveryReport, recover
from archive.pack.descriptor import Plan
from tests.crash.cutting import Cut, CuttingDisk, Loss
from tests.flow.objects import Life, Object, files_below, living, settings_of


class Doomed:
    """One process over a data folder, on a disk that can be cut.

    Parameters
    ----------
    disk : CuttingDisk
        Of an earlier life, where this is not the first.
    """

    def __init__(self, data: Path, disk: CuttingDisk | None = None, **sections: dict[str, Any]) -> None:
        self.data, self.disk, self.settings = data, disk or CuttingDisk(), settings_of(data, **sections)
        recover(self.settings, disk=self.disk)
        self._home = Home(self.settings, "test-0", self.disk)
        self.life = Life(self._home)

    def end(self) -> None:
        """An ordinary stop."""
        self._home.close()

    def die(self, loss: Loss = "nothing") -> None:
        """`kill -9`, or a power cut."""
        self._home.pool.close()
        self._home.index.close()
        self.disk.close_all()
        self.disk.lose(loss)
        self.disk.revive()

    def die_before(self, call: str, action: Callable[[], object], loss: Loss = "nothing", skip: int = 0, torn: bool = False) -> None:
        """Stop the node before a call to its disk (see `CuttingDisk.stop_before`) while it does something."""
        self.disk.stop_before(call, skip, torn)
        self.die_in(action, loss)

    def die_in(self, action: Callable[[], object], loss: Loss = "nothing") -> None:
        with pytest.raises(Cut):
            action()
        self.die(loss)

    def files(self, folder: str) -> list[str]:
        return files_below(self.data / folder)


@contextmanager
def restarted(settings: Settings) -> Iterator[tuple[RecoveryReport, Life]]:
    """The next life: its recovery's report, and the process."""
    report = recover(settings)
    with living(settings) as life:
        yield report, life


def plans(life: Life) -> list[Plan]:
    """Plans that wait to be fulfilled."""
    with life.home.index.pending.environment.reading() as t:
        return [plan for _, plan in life.home.index.pending.plans(t)]


def uids(objects: list[Object]) -> list[str]:
    return [one.sop_instance_uid for one in objects]
