"""CRC-32 (the polynomial of ZIP and gzip, 0xEDB88320 reflected) over whole ranges and over a fixed grid of blocks; digests of objects."""

import hashlib
from collections.abc import Callable, Iterable
from typing import Protocol

from blake3 import blake3
from isal import isal_zlib

BLOCK_BYTES = 256 * 1024
"""The grid on which packs and large journal payloads are checked."""

Bytes = bytes | bytearray | memoryview


class Digest(Protocol):
    """A hash that goes on."""

    def update(self, data: Bytes, /) -> object: ...

    def hexdigest(self) -> str: ...


DIGEST_KIND = "blake3"
DIGESTS: dict[str, Callable[[], Digest]] = {DIGEST_KIND: blake3, "sha256": hashlib.sha256}
"""Kinds of digests of objects, 32 bytes each: what is written now, and what was written before."""
DIGEST_STEP_BYTES = 64 * 1024
"""BLAKE3 takes pieces whose length is a multiple of this nearly three times as fast as others."""


def digest_of(data: Bytes, kind: str = DIGEST_KIND) -> str:
    """The digest of an object's data set, 64 hex digits."""
    digest = DIGESTS[kind]()
    digest.update(data)
    return digest.hexdigest()


def crc32(data: Bytes, start: int = 0) -> int:
    """CRC-32 of the bytes, going on from `start`."""
    return int(isal_zlib.crc32(data, start))


def crc32_of_blocks(crcs: Iterable[int], length: int) -> int:
    """CRC-32 of `length` bytes from the CRCs of their blocks, without reading them."""
    total, left = 0, length
    for crc in crcs:
        total = int(isal_zlib.crc32_combine(total, crc, min(left, BLOCK_BYTES)))
        left -= BLOCK_BYTES
    return total


class BlockCrcs:
    """CRC-32 of each block of the grid, while the bytes go by.

    The last block is as long as what is left; `finish` closes it.
    """

    def __init__(self) -> None:
        self._crcs: list[int] = []
        self._current = 0
        self._filled = 0
        self.length = 0

    def update(self, data: Bytes) -> None:
        view = memoryview(data)
        self.length += len(view)
        while len(view):
            take = min(BLOCK_BYTES - self._filled, len(view))
            self._current = crc32(view[:take], self._current)
            self._filled += take
            view = view[take:]
            if self._filled == BLOCK_BYTES:
                self._close()

    def _close(self) -> None:
        self._crcs.append(self._current)
        self._current = self._filled = 0

    def finish(self) -> list[int]:
        if self._filled:
            self._close()
        return self._crcs
