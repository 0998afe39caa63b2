"""Writes of whole pages past the page cache: they cost no copy and leave less to a sync, and what is cached stays cached."""

import errno
from pathlib import Path

from archive.disk import Disk
from archive.pack.frame import PAGE_BYTES


class PastCache:
    """One open file; where it cannot be written so, it is written as usual.

    Parameters
    ----------
    path : Path
        Where the file lies now.
    fd : int
        Of the same file, for what is no whole page.
    """

    def __init__(self, disk: Disk, path: Path, fd: int) -> None:
        self._disk, self._fd = disk, fd
        self._direct = disk.open_direct(path)

    def write(self, data: memoryview, offset: int) -> None:
        """Write the data, which begins at a page of memory; raises as `Disk.write`."""
        if self._direct is not None and offset % PAGE_BYTES == 0 == len(data) % PAGE_BYTES:
            try:
                self._disk.write(self._direct, [data], offset)
                return
            except OSError as error:
                if error.errno != errno.EINVAL:
                    raise
                self.close()  # The file system wants more than whole pages.
        self._disk.write(self._fd, [data], offset)

    def close(self) -> None:
        """Of `fd` takes care who opened it."""
        direct, self._direct = self._direct, None
        if direct is not None:
            self._disk.close(direct)
