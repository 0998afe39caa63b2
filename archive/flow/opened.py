"""One instance, open: checked bytes of its Part 10 object, its frames, its data set, wherever it lies."""

from collections.abc import Iterator
from typing import Protocol

from archive.dicom.frames import PixelData
from archive.dicom.inflate import inflate
from archive.dicom.part10 import names_instance
from archive.dicom.scan import Buffer
from archive.dicom.syntax import encoding_of
from archive.errors import Damaged, NotFound
from archive.index.located import Located

PIECE_BYTES = 1 << 20


class Payload(Protocol):
    """Where an open instance's bytes come from: an open journal record, or its range of a pack."""

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes in one piece."""
        ...

    def views(self, offset: int, length: int) -> list[memoryview]:
        """Checked bytes in as many pieces as they lie in, none of them copied."""
        ...

    def whole(self) -> memoryview:
        """All of it, checked; mapped where it is large."""
        ...


class Opened:
    """An instance that is being read. Offsets are from the start of its Part 10 object.

    Parameters
    ----------
    stored : Located
        What the index says of it.
    payload : Payload
        Gives checked bytes.

    Raises
    ------
    Damaged
        The bytes are not those of this instance: nothing of them goes out.
    """

    def __init__(self, stored: Located, payload: Payload, inflated_bytes_max: int) -> None:
        self.stored, self._payload, self._inflated_max = stored, payload, inflated_bytes_max
        self._inflated: memoryview | None = None
        if not names_instance(payload.view(0, stored.data_set_offset), stored.sop_instance_uid):
            raise Damaged(f"what lies where the index puts {stored.sop_instance_uid} is another object")

    def view(self, offset: int, length: int) -> memoryview:
        """Checked bytes; `Damaged` where they do not match their CRC."""
        return self._payload.view(offset, length)

    def chunks(self, offset: int, length: int) -> Iterator[memoryview]:
        """The range in checked pieces of up to 1 MiB."""
        for at in range(offset, offset + length, PIECE_BYTES):
            yield from self._payload.views(at, min(PIECE_BYTES, offset + length - at))

    def stored_data_set(self) -> memoryview:
        """The whole data set as it is stored, checked."""
        return self._payload.whole()[self.stored.data_set_offset :]

    def data_set(self) -> memoryview:
        """The whole data set, checked; a deflated one inflated."""
        if not self._is_deflated:
            return self.stored_data_set()
        if self._inflated is None:
            self._inflated = memoryview(inflate(self.stored_data_set(), self._inflated_max))
        return self._inflated

    @property
    def _is_deflated(self) -> bool:
        return encoding_of(self.stored.transfer_syntax_uid).deflated

    def pixel_data(self) -> PixelData | None:
        """Where the frames lie, None where there are none."""
        return PixelData.from_json(self.stored.pixels) if self.stored.pixels else None

    def frame(self, frame_number: int) -> list[Buffer]:
        """Pieces of a frame, in order; the whole bit stream of an encapsulated one.

        Raises
        ------
        NotFound
            There is no such frame.
        """
        pixels = self.pixel_data()
        if pixels is None:
            raise NotFound(f"instance {self.stored.sop_instance_uid} has no frames")
        parts: list[Buffer] = []
        for offset, length in pixels.frame_ranges(frame_number):
            if self._is_deflated:
                parts.append(self.data_set()[offset : offset + length])
            else:
                parts += self._payload.views(self.stored.data_set_offset + offset, length)
        return pixels.cut_frame(frame_number, parts)
