"""Row E of the crash table in docs/recovery.md."""

import gc
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from archive.config import Settings
from archive.flow.erasing import erase
from archive.flow.home import Home
from archive.flow.recovery import recover
from tests.crash.cutting import Cut, CuttingDisk
from tests.flow.compacting import allowed
from tests.flow.objects import living
from tests.flow.test_erasing import OTHERS, SECRET, assert_erased, fill


def test_E1_erasing_is_cut_off(tmp_path: Path) -> None:
    """Anywhere: nothing is lost, nothing comes back, and it is done by doing it again."""
    data, template = tmp_path / "data", tmp_path / "template"
    fill(allowed(data))
    shutil.move(data, template)
    calls = 0
    while True:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(template, data)
        settings = allowed(data)
        recover(settings)
        disk = _StoppingDisk(calls)
        cut = _erase_on(disk, settings)
        recover(settings)
        with living(settings) as life:
            life.assert_served(OTHERS)
            assert life.home.index.revisions(SECRET.sop_instance_uid) == []
        recover(settings)
        assert erase(settings).left == []
        assert_erased(settings, [data])
        if not cut:
            assert calls > 10
            return
        calls += 3


class _StoppingDisk(CuttingDisk):
    """Over a folder that is filled already: nothing is remembered of it, and nothing can be lost."""

    def open_read(self, path: Path) -> int:
        self._names.setdefault(path, -1)
        return super().open_read(path)

    def open_write(self, path: Path) -> int:
        self._names.setdefault(path, -1)
        return super().open_write(path)

    def rename(self, old: Path, new: Path) -> None:
        self._names.setdefault(old, -1)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._names.setdefault(path, -1)
        super().unlink(path)


def _erase_on(disk: _StoppingDisk, settings: Settings) -> bool:
    """Whether it was cut."""
    homes: list[Home] = []

    def opened(settings: Settings, slot: str = "") -> Home:
        homes.append(Home(settings, slot, disk) if slot else Home(settings))
        return homes[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("archive.flow.erasing.Home", opened)
        with suppress(Cut):
            erase(settings)
    if not disk.is_cut:
        return False
    gc.collect()  # Readers that were cut off close their files, as long as these are open.
    homes[0].index.close()
    disk.close_all()
    return True
