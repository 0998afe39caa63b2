"""The whole index as one process sees it: what is pending first, then what is packed, or a moving instance would be missed in both."""

from pathlib import Path
from typing import Literal

from archive.errors import Damaged
from archive.index.attribute_rows import DEFLATE_DICTIONARY
from archive.index.located import Located, in_order_of_arrival
from archive.index.packed import PackedIndex
from archive.index.pending import PendingIndex
from archive.pack.checksum import crc32

INDEX_FORMAT = f"3-{crc32(DEFLATE_DICTIONARY):08x}"
"""Of the tables of both environments; raise its number with any change to them."""


def format_found(folder: Path) -> str:
    """Format of the index in a folder; empty where none is told."""
    mark = folder / "format"
    return mark.read_text().strip() if mark.exists() else ""


class Index:
    """Both environments of `DIR/index`.

    Parameters
    ----------
    folder : Path
        `DIR/index`.
    map_bytes_max : int
        Address space for each environment, in bytes.
    revision_served : {'first', 'last'}
        Which of several revisions under one UID a lookup gives.

    Raises
    ------
    Damaged
        Another version wrote the index.
    """

    def __init__(self, folder: Path, map_bytes_max: int, revision_served: Literal["first", "last"] = "first") -> None:
        found = format_found(folder)
        if found and found != INDEX_FORMAT:
            raise Damaged(
                f"the index in {folder} has format {found}, this program writes {INDEX_FORMAT}:"
                " start the node or run rebuild-index, either makes it anew from packs and journal"
            )
        self.pending = PendingIndex(folder / "pending", map_bytes_max)
        self.packed = PackedIndex(folder / "packed", map_bytes_max)
        self._last = revision_served == "last"

    def close(self) -> None:
        self.pending.environment.close()
        self.packed.environment.close()

    def check_readers(self) -> int:
        """Clear reader slots of dead processes."""
        return self.pending.environment.check_readers() + self.packed.environment.check_readers()

    def revisions(self, sop_instance_uid: str) -> list[Located]:
        """Every revision under a SOP Instance UID, the first accepted first; packed places win over journal places."""
        with self.pending.environment.reading() as t:
            found = {p.descriptor.revision: p.located() for p in self.pending.find(t, sop_instance_uid)}
        with self.packed.environment.reading() as t:
            found |= {i.revision: i for i in self.packed.find(t, sop_instance_uid)}
        return in_order_of_arrival(found.values())

    def served(self, revisions: list[Located]) -> Located:
        """The one that goes out, of revisions in order of arrival.

        Where the same object was taken in again, because its first copy could not be read, the last copy of it.
        """
        chosen = revisions[-1 if self._last else 0]
        return [r for r in revisions if (r.digest, r.transfer_syntax_uid) == (chosen.digest, chosen.transfer_syntax_uid)][-1]
