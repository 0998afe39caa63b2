"""The protocol that every tier keeps; `tests/contract/` runs one suite against each."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from archive.disk import Bytes
from archive.errors import ArchiveError
from archive.pack.naming import PackName


class NumberTaken(ArchiveError):
    """Another pack has this number under this node's name: two nodes write under one name."""


class PackEntry(NamedTuple):
    """A pack that rests in a tier, and its length in bytes."""

    name: PackName
    length: int


class Tier(Protocol):
    """Immutable packs by name. Every method raises `Unavailable` where the tier does not answer."""

    url: str

    def put(
        self,
        node: str,
        sequence: int,
        length: int,
        chunks: Iterable[Bytes],
        final: Callable[[str], PackName],
        between: Callable[[], None] = lambda: None,
    ) -> PackName:
        """Take a pack: streamed under a name that no reader looks at, durable, length and digest checked at rest, then renamed.

        Parameters
        ----------
        length : int
            Exact, in bytes; what is streamed is compared with it.
        chunks : iterable
            Each must stay what it is until this returns.
        final : callable
            Gets the SHA-256 of what was streamed, after the last chunk, and gives the name; nothing is renamed before.
        between : callable
            Called between two pieces of what is read back.

        Raises
        ------
        NumberTaken
            A pack with this number is there already.
        Damaged
            What rests is not what was streamed; nothing is left behind.
        """
        ...

    def read(self, name: PackName, offset: int, length: int) -> bytes:
        """Exactly these bytes; `NotFound` without the pack, `Damaged` where it ends before."""
        ...

    def stream(self, name: PackName, offset: int, length: int) -> Iterator[Bytes]:
        """What `read` gives, in pieces as they come, each valid until the next is asked for; what it raises may come after some."""
        ...

    def length(self, name: PackName) -> int:
        """In bytes, as it rests; `NotFound`."""
        ...

    def list_packs(self, node: str, first: int = 0) -> Iterator[PackEntry]:
        """Packs of a node with this number or a higher one, in order of number."""
        ...

    def nodes(self) -> list[str]:
        """Names of all nodes that have packs here."""
        ...

    def settle(self, names: Iterable[PackName]) -> None:
        """Make durable that packs rest here which were found, not put: who put one may have been killed between renaming and syncing it."""
        ...

    def delete(self, name: PackName) -> None:
        """Gone, durably; an absent one is no error."""
        ...

    def quarantine(self, name: PackName) -> str:
        """Take a damaged pack out of service: durably under another name, which is returned; its number is free then. An absent one is
        no error. What was quarantined under that name before is replaced.
        """
        ...

    def quarantined(self) -> list[str]:
        """Names of what is in quarantine."""
        ...

    def delete_quarantined(self, node: str) -> list[str]:
        """Remove this node's packs from quarantine, durably; their names there."""
        ...

    def set_storage_class(self, name: PackName, storage_class: str) -> None:
        """Move a pack to one of `storage_classes`; `BadInput` for another."""
        ...

    @property
    def storage_classes(self) -> tuple[str, ...]: ...

    def delete_in_flight(self, node: str) -> list[str]:
        """Remove what uploads of this node that did not finish left behind; only while none runs."""
        ...

    def strangers(self) -> Iterator[str]:
        """Names of files that are no packs and not in quarantine, for `verify` to report."""
        ...

    def local_path(self, name: PackName) -> Path | None:
        """The file itself where it lies on this machine, to be mapped in place."""
        ...

    def check(self) -> None:
        """Raises `Unavailable` where packs could not be read or written now."""
        ...
