"""Writing the instances of one series of a pack into tables `instances` and `uids`."""

from collections.abc import Callable
from typing import Any

from archive.index.chunk import ROWS_MAX, InstanceRow, Kind, pack_chunk
from archive.index.environment import Transaction
from archive.index.frame_table import split_frames
from archive.index.located import DIGEST_CHARACTERS, SeriesKey
from archive.index.packed import ORDINAL, Place, uid_entry
from archive.pack.descriptor import InstanceDescriptor


class ChunkWriter:
    """Gathers instances into chunks; one is found once its chunk is written.

    Attributes
    ----------
    waiting : set of str
        SOP Instance UIDs of those that are not written yet.

    Parameters
    ----------
    code_of : callable
        `code_of(t, text)` gives the number that stands for a text.
    """

    def __init__(self, t: Transaction, pack_id: int, key: SeriesKey, code_of: Callable[[Transaction, str], int]) -> None:
        self._t, self._pack_id, self._code_of = t, pack_id, code_of
        self._series = self._code(key.to_bytes().decode())
        self._kinds: dict[tuple[tuple[str, ...], bool, bool], Kind] = {}
        self._rows: list[InstanceRow] = []
        self.waiting: set[str] = set()
        self._pixels: dict[str, Any] | None = None
        self._frames: tuple[str, tuple[int, ...], bytes] = "", (), b""

    def _code(self, text: str) -> int:
        return self._code_of(self._t, text) if text else 0

    def add(self, ordinal: int, offset: int, d: InstanceDescriptor, *, further: bool) -> None:
        if d.pixels is not self._pixels:
            self._pixels = d.pixels
            self._frames = split_frames(d.pixels) if d.pixels else ("", (), b"")
        layout, numbers, frames = self._frames
        texts = (d.revision.node, d.sop_class_uid, d.transfer_syntax_uid, layout)
        kind = self._kinds.get((texts, bool(frames), further))
        if kind is None:
            node, sop_class, syntax, layout_code = map(self._code, texts)
            kind = self._kinds[texts, bool(frames), further] = Kind(node, sop_class, syntax, layout_code, bool(frames), further)
        digest = bytes.fromhex(d.digest[:DIGEST_CHARACTERS])
        self._rows.append(
            InstanceRow(
                ordinal,
                kind,
                offset,
                d.length,
                d.data_set_offset,
                d.crc,
                d.revision.sequence,
                d.received_us,
                d.sop_instance_uid,
                digest,
                numbers,
                frames,
            )
        )
        self.waiting.add(d.sop_instance_uid)
        if len(self._rows) == ROWS_MAX:
            self.flush()

    def flush(self) -> None:
        if not self._rows:
            return
        self._t.append("instances", ORDINAL.pack(self._pack_id, self._rows[0].ordinal), pack_chunk(self._series, self._rows))
        self._t.add_all("uids", [uid_entry(row.sop_instance_uid, Place(self._pack_id, row.ordinal)) for row in self._rows])
        self._rows = []
        self.waiting.clear()
