"""What the data sets of a series have in common: most elements are the same in all of them, so they need not be walked again.

A `Layout` is one data set up to its pixel data, with the elements marked that differed in others. A data set whose other bytes are the
very same is walked as fast as memory is compared, and only the marked elements are read anew. Nothing is guessed: one byte elsewhere
that differs, and the data set is walked as any other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from archive.dicom.scan import LONG_VRS, PIXEL_DATA_TAGS, SHORT_VRS, SPECIFIC_CHARACTER_SET, Buffer, RawElement, scan_elements
from archive.dicom.syntax import Encoding
from archive.errors import NotUnderstood

HEAD_BYTES_MAX = 64 << 10
LAYOUTS_MAX = 4
FRUITLESS_MAX, PAUSE = 8, 32
"""After so many data sets in a row that were like none before, the next ones are not looked at."""

_USUALLY_DIFFER = frozenset((0x00080018, 0x00200013))  # SOP Instance UID, Instance Number


@dataclass(frozen=True, slots=True)
class Layout:
    """What one data set looks like.

    Parameters
    ----------
    head : bytes
        The data set, up to the value of its pixel data.
    elements : tuple of RawElement
        All of its top level, in ascending order; pixel data is the last where there is any.
    differing : frozenset of int
        Tags of the elements that are read anew; pixel data among them.
    kept : frozenset of int
        Tags of others that `match` is to give, too.
    facts : Any
        What the caller knows of it.
    """

    encoding: Encoding
    head: bytes
    elements: tuple[RawElement, ...]
    differing: frozenset[int]
    kept: frozenset[int]
    facts: Any
    _runs: list[tuple[bytes, int, str, list[RawElement]]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Divide the head into what must be the same and what comes after it."""
        start = 0
        kept: list[RawElement] = []
        for element in self.elements:
            if element.tag in self.differing:
                self._runs.append((self.head[start : _start_of(element)], element.tag, element.vr, kept))
                start, kept = element.end, []
            elif element.tag in self.kept:
                kept.append(element._replace(offset=element.offset - start, end=element.end - start))
        if start < len(self.head):
            self._runs.append((self.head[start:], -1, "", kept))

    def match(self, data_set: Buffer, *, begun: bool = False) -> dict[int, RawElement] | None:
        """Where the differing and the kept elements of another data set lie, by tag; None where it is not like this one.

        Parameters
        ----------
        begun : bool
            The data set may end within its pixel data, whose length is as it is here.
        """
        found: dict[int, RawElement] = {}
        at = 0
        for run, tag, vr, kept in self._runs:
            end = at + len(run)
            if bytes(data_set[at:end]) != run:
                return None
            for tag_kept, vr_kept, offset, length, undefined, end_kept, _ in kept:
                found[tag_kept] = RawElement(tag_kept, vr_kept, at + offset, length, undefined, at + end_kept)
            if tag < 0:
                return found if end == len(data_set) else None
            if begun and tag in PIXEL_DATA_TAGS:
                pixels = self.elements[-1]
                at = end + pixels.offset - _start_of(pixels)
                if pixels.tag != tag or pixels.undefined or bytes(data_set[end:at]) != self.head[end - at :]:
                    return None
                found[tag] = pixels._replace(offset=at, end=at + pixels.length)
                return found
            try:
                element = next(scan_elements(data_set, self.encoding, end), None)
            except NotUnderstood:
                return None  # Let it be told by who walks all of it.
            if element is None or element.tag != tag or element.vr != vr or element.truncated:
                return None
            found[tag] = element
            at = element.end
        return found if self.elements[-1].tag in PIXEL_DATA_TAGS or at == len(data_set) else None

    def same_elements(self, other: "Layout") -> bool:
        return self.encoding == other.encoding and [e[:2] for e in self.elements] == [e[:2] for e in other.elements]

    def differences(self, other: "Layout") -> frozenset[int]:
        """Tags of elements that are not the same in both."""
        a, b = self.head, other.head
        return frozenset(
            x.tag
            for x, y in zip(self.elements, other.elements, strict=True)
            if a[x.offset : x.end] != b[y.offset : y.end] or (x.length, x.undefined) != (y.length, y.undefined)
        )


class Layouts:
    """The layouts that one thread met last."""

    def __init__(self) -> None:
        self._layouts: list[Layout] = []
        self._fruitless = 0

    def find(self, data_set: Buffer, encoding: Encoding, *, begun: bool = False) -> tuple[Layout, dict[int, RawElement]] | None:
        """A layout that the data set has, and where what differs lies; `begun` as in `Layout.match`."""
        for index, layout in enumerate(self._layouts):
            if layout.encoding == encoding and (found := layout.match(data_set, begun=begun)) is not None:
                if index:
                    self._layouts.insert(0, self._layouts.pop(index))
                self._fruitless = 0
                return layout, found
        if not begun:
            self._fruitless += 1
        return None

    @property
    def wants(self) -> bool:
        """Whether the next data set that is walked is to be learned."""
        return self._fruitless <= FRUITLESS_MAX or self._fruitless % PAUSE == 0

    def learn(
        self, data_set: Buffer, encoding: Encoding, elements: Sequence[RawElement], together: frozenset[int], facts: Any, *, alone: bool
    ) -> None:
        """Remember a data set that was walked to its end, unless there is anything unusual in it.

        Parameters
        ----------
        together : frozenset of int
            Tags of elements that are read together: where one of them differs, a match gives all.
        facts : Any
            What the caller knows of the data set.
        alone : bool
            Where none of them differs, none is needed.
        """
        if not elements or any(a.tag >= b.tag for a, b in pairwise(elements)):
            return
        if any(e.truncated or (encoding.explicit and not _is_usual(e)) for e in elements):
            return
        length = elements[-1].offset if elements[-1].tag in PIXEL_DATA_TAGS else len(data_set)
        if length > HEAD_BYTES_MAX:
            return
        differing = _USUALLY_DIFFER | PIXEL_DATA_TAGS
        new = Layout(encoding, bytes(data_set[:length]), tuple(elements), differing, frozenset() if alone else together, facts)
        for index, old in enumerate(self._layouts):
            if old.same_elements(new):
                differing = old.differing | new.differences(old)
                if SPECIFIC_CHARACTER_SET not in differing:  # It says what the others mean.
                    new = replace(new, differing=differing, kept=together if together & differing else new.kept)
                del self._layouts[index]
                break
        self._layouts.insert(0, new)
        del self._layouts[LAYOUTS_MAX:]


def _start_of(element: RawElement) -> int:
    return element.offset - (12 if element.vr in LONG_VRS else 8)


def _is_usual(element: RawElement) -> bool:
    """Whether its header is as long as its value representation says."""
    return element.vr in SHORT_VRS or element.vr in LONG_VRS
