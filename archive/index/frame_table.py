"""Where the frames of an instance lie, cut into what many instances share (the layout) and their numbers."""

import re
import zlib
from functools import lru_cache
from itertools import chain, zip_longest
from typing import Any

from archive.dicom.json import dumps, loads

NUMBERS_MAX = 8
"""One fragment takes five."""
_number = re.compile(r"(?<=[:\[,])\d+(?=[,\]}])")
_PLACE = "#"


def split_frames(pixels: dict[str, Any]) -> tuple[str, tuple[int, ...], bytes]:
    """Layout and numbers; or the whole table, compressed, where there are too many."""
    text = dumps(pixels).decode()
    numbers = _number.findall(text)
    if len(numbers) > NUMBERS_MAX or _PLACE in text or any(len(n) > 1 and n[0] == "0" for n in numbers):
        return "", (), zlib.compress(text.encode())
    return _number.sub(_PLACE, text), tuple(map(int, numbers)), b""


@lru_cache(maxsize=1024)  # Plain images of a series have one.
def join_frames(layout: str, numbers: tuple[int, ...]) -> dict[str, Any]:
    """The frame table, not to be changed."""
    pieces = layout.split(_PLACE)
    texts = map(str, numbers[: len(pieces) - 1])
    return dict(loads("".join(chain.from_iterable(zip_longest(pieces, texts, fillvalue="")))))


def whole_frames(frames: bytes) -> dict[str, Any]:
    return dict(loads(zlib.decompress(frames)))
