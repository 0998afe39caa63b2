"""One story of a node, told once for each call that changes its disk: there it is stopped, and has to be whole afterwards."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from tests.crash.cutting import CuttingDisk, Loss


class Story(Protocol):
    """What a node does on a disk, and what it was told meanwhile."""

    def run(self) -> None:
        """All of it, or until the disk is cut; then everything is closed as the kernel does it."""


S = TypeVar("S", bound=Story)


def calls_of(story: Callable[[CuttingDisk, Path], Story], folder: Path) -> int:
    """How many calls of the whole story change the disk."""
    disk = CuttingDisk()
    story(disk, folder / "whole").run()
    return disk.calls


def cut_at_every_call(
    story: Callable[[CuttingDisk, Path], S], folder: Path, assert_whole: Callable[[S, Path], None], loss: Loss, torn: bool
) -> None:
    """The story, cut after each of its calls; with its unsynced bytes the index is lost as well."""
    total = calls_of(story, folder)
    assert total > 100
    for calls in range(total):
        data = folder / "data"
        disk = CuttingDisk(calls, torn)
        told = story(disk, data)
        told.run()
        assert disk.is_cut
        disk.lose(loss)
        if loss == "unsynced bytes":
            shutil.rmtree(data / "index", ignore_errors=True)
        try:
            assert_whole(told, data)
        except BaseException as error:
            error.add_note(f"cut after call {calls} of {total}: {disk.last}; {told}")
            raise
        shutil.rmtree(data)
