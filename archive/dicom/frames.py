"""Where the frames of an image lie in its data set (DICOM PS3.3 C.7.6.3, PS3.5 8.2, A.4)."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from struct import Struct
from typing import Any

from archive.dicom.scan import Buffer
from archive.errors import NotFound, NotUnderstood

ITEM_HEADER_LENGTH = 8
_ITEM_LITTLE, _ITEM_BIG = 0xE000FFFE, 0xFFFEE000  # the tag (FFFE,E000), read as one number


@dataclass(frozen=True)
class PixelData:
    """The pixel data of an instance, whole and by frames.

    Offsets are relative to the data set, the inflated one where it is deflated.

    Parameters
    ----------
    tag : str
        `7FE00010`, or `7FE00008` and `7FE00009` for float and double float pixel data.
    number_of_frames : int
        As the data set says; else as its offset table shows; else 1.
    offset : int
        First byte: of the value where it is native; of the content of the first fragment after the offset table.
    length : int
        Bytes from `offset` to the end of the value, or of the last fragment.
    frame_bits : int
        Bits of one native frame; 0 where pixel data is encapsulated.
    fragments : tuple of int
        Lengths of the fragments in bytes, in order; they lie one after the other, an item header of eight bytes before each.
    starts : tuple of int
        Index of the first fragment of each frame; empty where nothing in the data tells the frames apart (video).
    """

    tag: str
    number_of_frames: int
    offset: int
    length: int
    frame_bits: int
    fragments: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()

    @cached_property
    def _fragment_offsets(self) -> tuple[int, ...]:
        steps = (length + ITEM_HEADER_LENGTH for length in self.fragments)
        return tuple(accumulate(steps, initial=self.offset))

    def frame_ranges(self, frame_number: int) -> list[tuple[int, int]]:
        """Offset and length of the pieces of a frame, in order.

        A native frame of single bits may begin or end within a byte: then the range covers those bytes and `cut_frame` cuts it out.

        Parameters
        ----------
        frame_number : int
            Counts from 1.

        Raises
        ------
        NotFound
            There is no such frame, or it cannot be told apart from the others.
        """
        if not 1 <= frame_number <= self.number_of_frames:
            raise NotFound(f"frame {frame_number} of {self.number_of_frames}")
        index = frame_number - 1
        if not self.frame_bits:
            return self._fragment_ranges(index)
        first, end = index * self.frame_bits // 8, -(-frame_number * self.frame_bits // 8)
        if end > self.length:
            if self.number_of_frames > 1 or not self.length:
                raise NotFound(f"frame {frame_number}: the pixel data ends before it does")
            end = self.length  # the only frame there is, cut off or described wrongly: what there is of it
        return [(self.offset + first, end - first)]

    def _fragment_ranges(self, index: int) -> list[tuple[int, int]]:
        if not self.starts:
            raise NotFound(f"frame {index + 1}: nothing tells the frames of this object apart")
        if index >= len(self.starts):
            raise NotFound(f"frame {index + 1}: the pixel data ends before it")
        first = self.starts[index]
        end = self.starts[index + 1] if index + 1 < len(self.starts) else len(self.fragments)
        return [(self._fragment_offsets[i], self.fragments[i]) for i in range(first, end)]

    def cut_frame(self, frame_number: int, parts: Sequence[Buffer]) -> list[Buffer]:
        """The frame, from the bytes of its ranges.

        Only frames that begin or end within a byte are changed: their first bit becomes the lowest of the first byte, bits after
        the last are zero (DICOM PS3.18 8.7.3.1).

        Parameters
        ----------
        frame_number : int
            Counts from 1.
        parts : sequence of Buffer
            The bytes at `frame_ranges(frame_number)`.
        """
        first_bit = (frame_number - 1) * self.frame_bits % 8
        if not first_bit and not self.frame_bits % 8:
            return list(parts)
        bits = int.from_bytes(b"".join(bytes(part) for part in parts), "little") >> first_bit
        bits &= (1 << self.frame_bits) - 1
        return [bits.to_bytes(-(-self.frame_bits // 8), "little")]

    def to_json(self) -> dict[str, Any]:
        """What `from_json` takes; a value for JSON. One fragment a frame, the most frequent case, costs no table of starts."""
        value: dict[str, Any] = {
            "tag": self.tag,
            "number_of_frames": self.number_of_frames,
            "offset": self.offset,
            "length": self.length,
            "frame_bits": self.frame_bits,
        }
        if self.fragments:
            value["fragments"] = list(self.fragments)
        if self.starts and self.starts != tuple(range(len(self.fragments))):
            value["starts"] = list(self.starts)
        elif self.starts:
            value["starts"] = "each"
        return value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "PixelData":
        """The opposite of `to_json`.

        Raises
        ------
        NotUnderstood
            The value does not describe pixel data.
        """
        try:
            fragments = tuple(value.get("fragments", ()))
            starts = value.get("starts", ())
            return cls(
                tag=value["tag"],
                number_of_frames=value["number_of_frames"],
                offset=value["offset"],
                length=value["length"],
                frame_bits=value["frame_bits"],
                fragments=fragments,
                starts=tuple(range(len(fragments))) if starts == "each" else tuple(starts),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise NotUnderstood("not a description of pixel data") from error


def scan_fragments(data_set: Buffer, offset: int, end: int, little: bool) -> list[tuple[int, int]]:
    """Offset and length of the content of every item of encapsulated pixel data, the offset table first; a last one that is cut off too.

    Parameters
    ----------
    data_set : Buffer
        Where the items lie.
    offset, end : int
        The value: from the header of the first item up to the sequence delimitation item.
    little : bool
        Byte order of the item headers.
    """
    read = Struct("<II" if little else ">II").unpack_from
    header = _ITEM_LITTLE if little else _ITEM_BIG
    found = []
    while end - offset >= ITEM_HEADER_LENGTH:
        tag, length = read(data_set, offset)
        if tag != header:
            break
        offset += ITEM_HEADER_LENGTH
        length = min(length, end - offset)
        found.append((offset, length))
        offset += length
    return found


def native_pixel_data(tag: str, offset: int, length: int, number_of_frames: int, frame_bits: int) -> PixelData:
    """Pixel data whose frames follow each other without anything between.

    Parameters
    ----------
    tag, offset, length, number_of_frames
        As in `PixelData`.
    frame_bits : int
        Size of a frame by the description of the image; 0 where that is incomplete. Where the value is smaller than that makes, and its
        length a multiple of the number of frames, the value is right.
    """
    whole_bits = length * 8
    if not frame_bits or (frame_bits * number_of_frames > -(-whole_bits // 8) * 8 and length % number_of_frames == 0):
        frame_bits = whole_bits // number_of_frames
    return PixelData(tag, number_of_frames, offset, length, max(frame_bits, 1))


def encapsulated_pixel_data(
    tag: str, data_set: Buffer, offset: int, fragments: Sequence[int], number_of_frames: int | None, offset_table: Sequence[int]
) -> PixelData:
    """Pixel data in fragments; the frames are found by the first of these that fits.

    One frame: all fragments. The offset table, basic or extended. As many fragments as frames. The marks that the codecs put at the
    beginning of a frame, then the one that JPEG and JPEG 2000 put at its end.

    Parameters
    ----------
    tag : str
        Eight hexadecimal digits.
    data_set : Buffer
        Where the fragments lie.
    offset : int
        First byte of the content of the first fragment.
    fragments : sequence of int
        Lengths of the fragments in bytes, without the offset table.
    number_of_frames : int, optional
        As the data set says, if it does.
    offset_table : sequence of int
        Offset of the header of the first fragment of each frame, from that of the first; empty without such a table.
    """
    lengths = tuple(fragments)
    places = [0, *accumulate(length + ITEM_HEADER_LENGTH for length in lengths)]
    count = number_of_frames or len(offset_table) or 1
    starts: tuple[int, ...] = ()
    if lengths:
        if count == 1:
            starts = (0,)
        else:
            starts = (
                _starts_by_table(places[:-1], offset_table, count)
                or (tuple(range(count)) if len(lengths) == count else ())
                or _starts_by_marks(data_set, offset, lengths, places, count)
            )
    return PixelData(tag, count, offset, max(places[-1] - ITEM_HEADER_LENGTH, 0), 0, lengths, starts)


def _starts_by_table(places: list[int], table: Sequence[int], count: int) -> tuple[int, ...]:
    if len(table) != count or table[0] != 0:
        return ()
    starts: list[int] = []
    for place in table:
        index = bisect_right(places, place) - 1
        if places[index] != place or (starts and index <= starts[-1]):
            return ()
        starts.append(index)
    return tuple(starts)


# JPEG, JPEG-LS: SOI and another marker; JPEG 2000: SOC SIZ; JPEG XL; and the signature boxes of the last two.
_BEGINNINGS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\xff\x0a", b"\0\0\0\x0cjP  ", b"\0\0\0\x0cJXL ")
_END = b"\xff\xd9"  # EOI and EOC


def _starts_by_marks(data_set: Buffer, offset: int, lengths: tuple[int, ...], places: list[int], count: int) -> tuple[int, ...]:
    starts = tuple(
        i
        for i, length in enumerate(lengths)
        if bytes(data_set[offset + places[i] : offset + places[i] + min(length, 8)]).startswith(_BEGINNINGS)
    )
    if len(starts) == count and starts[0] == 0:
        return starts
    starts = (0,)
    for i, length in enumerate(lengths[:-1]):
        end = offset + places[i] + length
        if _END in bytes(data_set[end - min(length, 10) : end]):
            starts += (i + 1,)
    return starts if len(starts) == count else ()
