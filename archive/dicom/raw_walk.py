"""A walk over elements that were seen before: the objects of a series repeat most of theirs, byte for byte.

`scan` says what an element is; this says only, and much faster, that it is the same again. An element that followed the one before it
the last time is recognized by one comparison; a header seen before tells the size of its element; the scanner is asked for the rest.
"""

from typing import NamedTuple

from archive.dicom.context import is_shared
from archive.dicom.scan import PIXEL_DATA_TAGS, RawElement, scan_elements
from archive.dicom.syntax import Encoding
from archive.dicom.values import VRS
from archive.errors import NotUnderstood

SEQUENCE_BYTES_MAX = 1 << 14
VALUE_BYTES_MAX = 1 << 10

ENTRY_BYTES = 200
"""What an entry of a dictionary costs besides the content of its key and value, about."""

_WINDOW_BYTES = 1 << 16
_SHORT_HEADER, _LONG_HEADER = 8, 12


class Level(NamedTuple):
    """The elements of one level of a data set, in the order of the bytes.

    Parameters
    ----------
    elements : list
        The bytes of each element that other objects are likely to hold too (header and value, at most 16 KiB; the
        scanner understands them alone); of the others, where they lie.
    shared : tuple of bytes
        Those that the others of the level depend on (`context.is_shared`).
    damage : NotUnderstood, optional
        Why the walk ended early.
    """

    elements: list[bytes | RawElement]
    shared: tuple[bytes, ...]
    damage: NotUnderstood | None


class _Seen:
    """What was seen in one encoding."""

    def __init__(self) -> None:
        # The element that begins with these 8 or 12 bytes: its size, and whether others depend on it.
        self.sizes: dict[bytes, tuple[int, bool]] = {}
        # What followed an element the last time, and whether others depend on it.
        self.next: dict[bytes, tuple[bytes, bool]] = {}


class RawWalk:
    """Walks levels of data sets and remembers what it saw; `kept_bytes` says about how much memory that takes."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Give back what was remembered."""
        self._seen: dict[Encoding, _Seen] = {}
        self.kept_bytes = 0

    def walk(self, data: memoryview, start: int, end: int, encoding: Encoding) -> Level:
        """The elements from `start` up to `end`, offsets in `data`."""
        elements: list[bytes | RawElement] = []
        shared: list[bytes] = []
        damage = None
        try:
            self._walk(data, start, end, encoding, elements, shared)
        except NotUnderstood as error:
            damage = error
        return Level(elements, tuple(shared), damage)

    def _walk(
        self, data: memoryview, start: int, end: int, encoding: Encoding, elements: list[bytes | RawElement], shared: list[bytes]
    ) -> None:
        seen = self._seen.get(encoding)
        if seen is None:
            seen = self._seen[encoding] = _Seen()
        sizes, following = seen.sizes, seen.next
        at = start
        window_start, window, window_good_until = _read_window(data, at, end)
        before = b""
        while end - at >= _SHORT_HEADER:
            if at > window_good_until:
                window_start, window, window_good_until = _read_window(data, at, end)
            here = at - window_start
            expected = following.get(before)
            if expected is not None and window.startswith(expected[0], here):
                raw, depended_on = expected
            else:
                known = sizes.get(window[here : here + _SHORT_HEADER]) or sizes.get(window[here : here + _LONG_HEADER])
                if known is not None and here + known[0] <= len(window):
                    size, depended_on = known
                    raw = window[here : here + size]
                else:
                    element = next(scan_elements(data, encoding, at, end), None)
                    if element is None:
                        return
                    if element.truncated or not _is_worth_keeping(element):
                        elements.append(element)
                        before = window[here : here + _SHORT_HEADER]
                        at = element.end
                        continue
                    raw, depended_on = bytes(data[at : element.end]), is_shared(element.tag)
                    self._learn_size(raw, element, at, depended_on, sizes)
                self.kept_bytes += ENTRY_BYTES + len(raw) if expected is None else 0
                following[before] = raw, depended_on
            elements.append(raw)
            if depended_on:
                shared.append(raw)
            at += len(raw)
            before = raw

    def _learn_size(self, raw: bytes, element: RawElement, at: int, depended_on: bool, sizes: dict[bytes, tuple[int, bool]]) -> None:
        header = element.offset - at
        if not element.undefined and header in (_SHORT_HEADER, _LONG_HEADER) and len(raw) == header + element.length:
            sizes[raw[:header]] = len(raw), depended_on
            self.kept_bytes += ENTRY_BYTES


def _read_window(data: memoryview, start: int, end: int) -> tuple[int, bytes, int]:
    """Where the window starts, its bytes, and the last place where an element worth keeping still lies in it as a whole."""
    window = bytes(data[start : min(end, start + _WINDOW_BYTES)])
    if start + len(window) == end:
        return start, window, end
    return start, window, start + len(window) - SEQUENCE_BYTES_MAX - _LONG_HEADER


def _is_worth_keeping(element: RawElement) -> bool:
    """Whether other objects are likely to hold the same element, and its bytes alone tell what it is."""
    if element.tag in PIXEL_DATA_TAGS or (element.vr and element.vr not in VRS):
        return False
    is_sequence = element.undefined or element.vr == "SQ"
    return element.length <= (SEQUENCE_BYTES_MAX if is_sequence else VALUE_BYTES_MAX)
