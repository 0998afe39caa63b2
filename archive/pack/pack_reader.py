"""Reading a pack's tail: enough to rebuild the index of all it holds, without touching a pixel."""

import gzip
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import compress
from operator import ne
from typing import Any

from archive.dicom.json import loads
from archive.errors import BadInput, Damaged, UnknownFormat
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.descriptor import Deletion, InstanceDescriptor
from archive.pack.locator import LOCATOR_BYTES, Locator

KNOWN_FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """A series in a pack.

    Attributes
    ----------
    first : int
        Ordinal of its first instance among the instances of the pack, counted from 0.
    instances : list of (int, InstanceDescriptor)
        Payload offset in the pack, descriptor.
    """

    study_instance_uid: str
    series_instance_uid: str
    first: int
    metadata_offset: int
    metadata_length: int
    metadata_crc: int
    instances: list[tuple[int, InstanceDescriptor]]


@dataclass(frozen=True, slots=True)
class PackTail:
    """All that a pack says about itself."""

    length: int
    covered: int
    block_crcs: list[int]
    header: dict[str, Any]
    series: list[SeriesRow]
    deletions: list[Deletion]


@dataclass(frozen=True, slots=True)
class TailBytes:
    """A pack's tail as it was read, checked and not yet understood.

    Attributes
    ----------
    content_index : bytes
        Lines of JSON.
    """

    length: int
    covered: int
    block_crcs: list[int]
    content_index: bytes


def read_tail(length: int, read: Callable[[int, int], bytes]) -> PackTail:
    """The tail of a pack of `length` bytes: `parse_tail` of `fetch_tail`, and raises what they raise."""
    return parse_tail(fetch_tail(length, read))


def fetch_tail(length: int, read: Callable[[int, int], bytes]) -> TailBytes:
    """
    Parameters
    ----------
    read : callable
        `read(offset, length)` gives exactly these bytes.

    Raises
    ------
    Damaged
        Something does not match its CRC.
    UnknownFormat
        A newer version wrote it.
    """
    locator, blocks = read_blocks(length, read)
    packed = read(locator.index_offset, locator.index_length)
    if crc32(packed) != locator.index_crc:
        raise Damaged("the pack's content index does not match its CRC")
    try:
        return TailBytes(length, locator.covered, blocks, gzip.decompress(packed))
    except (EOFError, OSError, zlib.error) as error:
        raise _senseless(error) from error


def parse_tail(tail: TailBytes) -> PackTail:
    """
    Raises
    ------
    Damaged
        It matches its CRC and makes no sense.
    UnknownFormat
        It needs a feature that is not known here.
    """
    try:
        header, series, deletions = _parse(BytesIO(tail.content_index))
    except (BadInput, IndexError, KeyError, StopIteration, TypeError, ValueError) as error:
        raise _senseless(error) from error
    return PackTail(tail.length, tail.covered, tail.block_crcs, header, series, deletions)


def _senseless(error: Exception) -> Damaged:
    return Damaged(f"the pack's content index matches its CRC and makes no sense: {error!r}")


def read_blocks(length: int, read: Callable[[int, int], bytes]) -> tuple[Locator, list[int]]:
    """Where things lie in a pack of `length` bytes, and the CRCs of its blocks; raises as `read_tail`."""
    if length < LOCATOR_BYTES:
        raise Damaged(f"a pack of {length} bytes is cut short")
    locator = Locator.unpack(read(length - LOCATOR_BYTES, LOCATOR_BYTES))
    if locator.length != length:
        raise Damaged(f"the pack is {length} bytes long, its locator says {locator.length}")
    tail = read(locator.covered, length - LOCATOR_BYTES - locator.covered)
    if crc32(tail) != locator.tail_crc:
        raise Damaged("the pack's tail (block CRCs, central directory) does not match its CRC")
    if locator.blocks != (locator.covered + BLOCK_BYTES - 1) // BLOCK_BYTES:
        raise Damaged("the pack has another number of blocks than its length asks for")
    return locator, list(struct.unpack_from(f"<{locator.blocks}I", tail, locator.blocks_offset - locator.covered))


def _parse(lines: Iterator[bytes]) -> tuple[dict[str, Any], list[SeriesRow], list[Deletion]]:
    header = loads(next(lines))
    unknown = set(header["must_understand"]) - KNOWN_FEATURES
    if header["kind"] != "pack" or unknown:
        raise UnknownFormat(f"the pack needs features that this program does not know: {', '.join(sorted(unknown)) or header['kind']}")
    series: list[SeriesRow] = []
    deletions: list[Deletion] = []
    ordinal = 0
    attributes: dict[str, Any] = {}
    pixels: dict[str, Any] | None = None
    for line in lines:
        row = loads(line)
        kind = row["kind"]
        if kind == "series":
            series.append(
                SeriesRow(
                    row["study_instance_uid"],
                    row["series_instance_uid"],
                    ordinal,
                    row["metadata_offset"],
                    row["metadata_length"],
                    int(row["metadata_crc32"], 16),
                    [],
                )
            )
        elif kind == "instance":
            row["attributes"] = attributes = _sharing(row["attributes"], attributes)
            if row.get("pixels") == pixels:
                row["pixels"] = pixels
            pixels = row.get("pixels")
            series[-1].instances.append((row["offset"], InstanceDescriptor.from_json(row)))
            ordinal += 1
        elif kind == "deletion":
            deletions.append(Deletion.from_json(row))
        elif row.get("must_understand"):
            raise UnknownFormat(f"the pack holds a line of kind {kind!r}, which this program must understand and does not")
    return header, series, deletions


def _sharing(attributes: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The same attributes; values that the instance before has too are the same objects, so that a tail of a thousand is small."""
    if list(attributes) != list(before):
        return attributes
    return before | dict(compress(attributes.items(), map(ne, attributes.values(), before.values())))
