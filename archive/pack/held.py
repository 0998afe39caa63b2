"""Which sealed segments hold something: a durable list beside them, so that one which vanishes is missed and not forgotten."""

import contextlib
from collections.abc import Iterable
from pathlib import Path

from archive.dicom.json import dumps, loads
from archive.disk import Disk
from archive.errors import Damaged, NotUnderstood
from archive.pack.checksum import crc32

FILE = "held"


class HeldSegments:
    """Numbers of segments; whoever releases one takes it off the list before. Written by one process at a time."""

    def __init__(self, folder: Path, disk: Disk) -> None:
        self._path, self._disk = folder / FILE, disk
        self._known: set[int] | None = None

    def read(self) -> set[int]:
        """
        Raises
        ------
        Damaged
            The list does not match its CRC.
        """
        try:
            fd = self._disk.open_read(self._path)
        except FileNotFoundError:
            return set()
        try:
            line = self._disk.read(fd, self._disk.size(fd), 0)
        finally:
            self._disk.close(fd)
        try:
            row = loads(line)
            numbers = [int(number) for number in row["segments"]]
            if row["crc32"] != crc32(dumps(numbers)):
                raise ValueError("CRC-32")
        except (NotUnderstood, KeyError, TypeError, ValueError) as error:
            raise Damaged(f"the list of journal segments ({self._path}) is damaged: {error}") from error
        return set(numbers)

    def write(self, numbers: Iterable[int]) -> None:
        """Durable when this returns; nothing is written where nothing changed."""
        wanted = sorted(numbers)
        if self._known is None:
            with contextlib.suppress(Damaged):
                self._known = self.read()
            # Whoever wrote what is read here may have died before its name was durable.
            self._disk.sync_folder(self._path.parent)
        if self._known == set(wanted):
            return
        self._disk.replace(self._path, dumps({"segments": wanted, "crc32": crc32(dumps(wanted))}))
        self._known = set(wanted)

    def forget(self, numbers: Iterable[int]) -> None:
        """These are about to be released, or given up."""
        try:
            listed = self.read()
        except Damaged:
            return  # It is written anew by the next start.
        self._known = None
        self.write(listed.difference(numbers))
