"""The journal's mirror at start: made, or made equal to the journal again, each mending the other; and held against it by `verify`.

Both folders hold the same random mark while every change went to both. A mirror without it is of another time: what it holds is never
written over. `archive.pack.mirror` keeps the two equal while processes run.
"""

import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from archive.config import Settings
from archive.disk import Disk
from archive.errors import Damaged, WrongUse
from archive.flow.identity import FILE as IDENTITY_FILE
from archive.flow.identity import identify
from archive.pack.frame import SEGMENT_HEADER_BYTES, Kind, SegmentHeader
from archive.pack.held import FILE as HELD_FILE
from archive.pack.held import HeldSegments
from archive.pack.journal import Journal, away_name, segments_below
from archive.pack.journal_reader import Found, scan_segment
from archive.pack.mirror import READ_BYTES, MirroredDisk, copy_file

logger = logging.getLogger(__name__)

MARK = "mirror"
BEGUN = "begun "
FOLDERS = ("open", "sealed", "spare", "incoming")


def journal_disk(settings: Settings, disk: Disk) -> Disk:
    """What a process that writes to the journal writes with.

    Raises
    ------
    WrongUse
        The mirror is not equal to the journal, or not there; or the journal has one that the settings do not name.
    """
    first = settings.node.data / "journal"
    mark = _mark(first)
    if not settings.journal.mirror:
        if mark:
            raise WrongUse(
                f"{first} has a mirror, and journal.mirror names none: one copy would go on without the other. "
                f"Name it; or remove {first / MARK}, and there is no mirror any more"
            )
        return disk
    second = Path(settings.journal.mirror)
    theirs = _mark(second / "journal")
    if not theirs:
        raise WrongUse(f"the mirror of the journal in {second} is not there: is its disk mounted?")
    if mark != theirs:
        raise WrongUse(f"the mirror of the journal in {second} is of another time than the journal: start the node to see to it")
    return MirroredDisk(disk, settings.node.data, second)


def settle_mirror(settings: Settings, disk: Disk) -> list[str]:
    """Before anything is read of the journal: mirror and journal equal, but for what neither has whole. Returns what was mended.

    Raises
    ------
    WrongUse
        There is no such folder, or it holds a journal of another time; or the journal has a mirror that the settings do not name.
    """
    data = settings.node.data
    first = data / "journal"
    if not settings.journal.mirror:
        journal_disk(settings, disk)
        return []
    second = Path(settings.journal.mirror)
    _want_folder(second, data)
    mine, theirs = _mark(first), _mark(second / "journal")
    begun = bool(mine) and theirs == BEGUN + mine
    if not begun and (not mine or mine != theirs):
        if held := segments_below(second / "journal", disk):
            raise WrongUse(
                f"{second} holds {len(held)} journal segments of another time than {first}. If the journal was lost, copy everything "
                f"in {second} to {data} and start again. If it was not, and the mirror was off or away for a while, empty {second}"
            )
        mine = secrets.token_hex(16)
        disk.replace(first / MARK, mine.encode())
        disk.make_folder(second / "journal")
        disk.replace(second / "journal" / MARK, f"{BEGUN}{mine}".encode())
    identify(data, settings.node.name, disk)
    mended = _Settling(data, second, disk).run()
    if theirs != mine:
        disk.replace(second / "journal" / MARK, mine.encode())
    return mended


def _want_folder(second: Path, data: Path) -> None:
    if not second.is_dir():
        raise WrongUse(f"journal.mirror: there is no folder {second}: is its disk mounted?")
    if second.resolve().is_relative_to(data.resolve()):
        raise WrongUse(f"journal.mirror: {second} lies in the data folder: it belongs on another disk")
    if os.stat(second).st_dev == os.stat(data).st_dev:
        logger.warning("the mirror of the journal in %s is on the disk of the data folder: it is lost with it", second)


def _mark(folder: Path) -> str:
    try:
        return (folder / MARK).read_text()
    except FileNotFoundError:
        return ""


class _Settling:
    def __init__(self, data: Path, second: Path, disk: Disk) -> None:
        self._data, self._second, self._disk = data, second, disk
        self._ours, self._theirs = data / "journal", second / "journal"
        self._mended: list[str] = []

    def run(self) -> list[str]:
        for name in FOLDERS:
            self._disk.make_folder(self._ours / name)
            self._disk.make_folder(self._theirs / name)
        for name in self._disk.list_folder(self._theirs / "incoming"):
            self._disk.unlink(self._theirs / "incoming" / name)
        self._settle_spares()
        held = self._settle_held()
        ours, theirs = segments_below(self._ours, self._disk), segments_below(self._theirs, self._disk)
        for number in sorted({*ours, *theirs}):
            if number in ours and number in theirs and number not in held and self._is_recycled(number, ours[number]):
                self._settle_without_ours(number, theirs[number], is_held=False)
                self._settle_segment(number, ours[number], None)
            elif number in ours:
                self._settle_segment(number, ours[number], theirs.get(number))
            else:
                self._settle_without_ours(number, theirs[number], is_held=number in held)
        for name in ("journal/counters", IDENTITY_FILE):
            self._settle_file(name)
        return self._mended

    def _copy(self, source: Path, target: Path) -> None:
        below = self._theirs if target.is_relative_to(self._second) else self._ours
        copy_file(self._disk, source, below / "incoming" / f"{target.name}.part", target)

    def _settle_spares(self) -> None:
        """What one has alone, or of another size, is not used again."""
        ours, theirs = ({p.name: p for p in (folder / "spare").iterdir()} for folder in (self._ours, self._theirs))
        for name in {*ours, *theirs}:
            pair = [paths[name] for paths in (ours, theirs) if name in paths]
            if len({path.stat().st_size for path in pair}) + len(pair) != 3:
                for path in pair:
                    self._disk.unlink(path)

    def _settle_held(self) -> set[int]:
        """The list of segments that hold something; the mirror's where the journal's own is gone or damaged."""
        try:
            lost = not (self._ours / HELD_FILE).exists()
            held = HeldSegments(self._ours, self._disk).read()
        except Damaged:
            lost = True
        if lost and (self._theirs / HELD_FILE).exists():
            try:
                held = HeldSegments(self._theirs, self._disk).read()
            except Damaged:
                return set()  # Said by recovery.
            self._copy(self._theirs / HELD_FILE, self._ours / HELD_FILE)
        elif lost:
            return set()
        self._settle_file(f"journal/{HELD_FILE}")
        return held

    def _settle_file(self, name: str) -> None:
        first, second = self._data / name, self._second / name
        if first.exists() and not (second.exists() and same_content(self._disk, first, second)):
            self._copy(first, second)
        elif second.exists() and not first.exists():
            self._copy(second, first)

    def _settle_segment(self, number: int, first: Path, found: Path | None) -> None:
        second = self._second / first.relative_to(self._data)
        self._disk.sync_file(first)  # Before the second: else a power cut now might leave it with more.
        if found is None:
            self._copy(first, second)
            return
        if found != second:
            self._disk.rename(found, second)
            self._disk.sync_folder(second.parent)
        if same_content(self._disk, first, second):
            self._disk.sync_file(second)
            return
        ours, theirs = said_by(number, first, self._disk), said_by(number, second, self._disk)
        if theirs <= ours:
            self._copy(first, second)
        elif ours < theirs:
            self._copy(first, self._data / "quarantine" / away_name(number))
            self._copy(second, first)
            self._say(f"journal segment {number}: {len(theirs - ours)} records that were damaged are taken from the mirror")

    def _is_recycled(self, number: int, path: Path) -> bool:
        """Whether a file that was released was begun anew under another number, and the power took its new name."""
        fd = self._disk.open_read(path)
        try:
            header = SegmentHeader.unpack(self._disk.read_some(fd, SEGMENT_HEADER_BYTES, 0))
        finally:
            self._disk.close(fd)
        return header is not None and header.number != number and not said_by(header.number, path, self._disk)

    def _settle_without_ours(self, number: int, found: Path, *, is_held: bool) -> None:
        if is_held:
            self._copy(found, self._ours / "sealed" / f"{number:012d}.seg")
            self._disk.rename(found, self._theirs / "sealed" / f"{number:012d}.seg")
            self._say(f"journal segment {number} was missing and is taken from the mirror")
        elif not said_by(number, found, self._disk):
            self._disk.unlink(found)
        else:  # Released a moment before the stop. Should it not have been, nothing is lost.
            self._disk.make_folder(self._second / "quarantine")
            self._disk.rename(found, self._second / "quarantine" / away_name(number))
            logger.info("journal segment %d was released, and goes into the quarantine of the mirror", number)

    def _say(self, text: str) -> None:
        logger.error("mirror: %s", text)
        self._mended.append(text)


def same_content(disk: Disk, first: Path, second: Path) -> bool:
    """Whether two files hold the same bytes."""
    fds = [disk.open_read(first)]
    try:
        fds.append(disk.open_read(second))
        length, other = (disk.size(fd) for fd in fds)
        if length != other:
            return False
        pieces = ((at, min(READ_BYTES, length - at)) for at in range(0, length, READ_BYTES))
        return all(disk.read(fds[0], n, at) == disk.read(fds[1], n, at) for at, n in pieces)
    finally:
        for fd in fds:
            disk.close(fd)


def whole_records(number: int, path: Path, disk: Disk) -> list[Found]:
    """Records of a segment that nothing is wrong with; none where its header is damaged."""
    try:
        items = list(scan_segment(number, path, lambda _: False, disk))
    except Damaged:
        return []
    return [item for item in items if isinstance(item, Found) and not item.damage]


def said_by(number: int, path: Path, disk: Disk) -> set[tuple[int, int, int]]:
    """Place, sequence and kind of each whole record of a segment that says something."""
    whole = whole_records(number, path, disk)
    return {(item.location.offset, item.header.sequence, item.header.kind) for item in whole if item.header.kind != Kind.END}


def twin_of(settings: Settings, path: Path) -> Path | None:
    """Where the mirror has a segment, where there is a mirror and it has it."""
    if not settings.journal.mirror:
        return None
    twin = Path(settings.journal.mirror) / path.relative_to(settings.node.data)
    return twin if twin.exists() else None


def mirror_has_all(settings: Settings, number: int, path: Path, disk: Disk) -> bool:
    """Whether the next start takes a damaged segment from the mirror."""
    twin = twin_of(settings, path)
    return twin is not None and said_by(number, path, disk) < said_by(number, twin, disk)


def missing_in_mirror(settings: Settings, journal: Journal, disk: Disk) -> Iterator[tuple[int, str]]:
    """Numbers of sealed segments that the mirror lacks, or of which it lacks records, and which."""
    if not settings.journal.mirror:
        return
    for number in journal.sealed():
        try:
            path = journal.path_of(number)
            twin = segments_below(Path(settings.journal.mirror) / "journal", disk).get(number)  # Its name may change a moment later.
            if twin is None:
                lost = "it is missing" if path.exists() else ""
            elif same_content(disk, path, twin):
                continue
            else:
                records = said_by(number, path, disk) - said_by(number, twin, disk)
                lost = f"{len(records)} of its records are damaged" if records and twin.exists() else ""
        except FileNotFoundError:
            continue  # It was released meanwhile.
        if lost:
            yield number, lost
