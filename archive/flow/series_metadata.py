"""DICOM JSON metadata of series and studies: served as it lies in the pack, else joined once and kept in `derived/`."""

import gzip
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager

from archive.dicom.metadata import MetadataWriter
from archive.errors import Damaged, NotFound
from archive.flow.derived import Derived
from archive.flow.home import Home
from archive.flow.opened import Opened
from archive.flow.pack_content import metadata_array
from archive.flow.series_view import instances_of_series, whole_extent
from archive.index.located import Located, PackPlace, SeriesKey
from archive.index.packed import Extent
from archive.pack.checksum import crc32
from archive.pack.pack_writer import compress

METADATA_VERSION_LEAST = 1
"""Metadata of packs that an older generator wrote is not served any more: it is made anew from the objects, and kept in `derived/`."""

Open = Callable[[Located], AbstractContextManager[Opened]]


class _Moved(Exception):
    """What the index said a moment ago is no more: look again."""


class SeriesMetadata:
    """Metadata at all three levels."""

    def __init__(self, home: Home, open_instance: Open) -> None:
        self._home, self._open = home, open_instance
        self._derived = Derived(home.settings.node.data / "derived" / "metadata", home.settings.limits.derived_bytes_max, home.disk)

    def of_series(self, keys: list[SeriesKey]) -> bytes:
        """One gzip member: a JSON array with one instance a line.

        Raises
        ------
        NotFound
            None of the series has an instance.
        """
        return self._again_where_moved(lambda: self._of_series(keys))

    @staticmethod
    def _again_where_moved(look: Callable[[], bytes]) -> bytes:
        """A series that went on in another pack while it was looked at is looked up again."""
        try:
            return look()
        except _Moved:
            try:
                return look()
            except _Moved as error:
                raise Damaged(f"a series is in the index and its metadata cannot be read: {error}") from error

    def _of_series(self, keys: list[SeriesKey]) -> bytes:
        if len(keys) == 1 and (extent := whole_extent(self._home.index, keys[0])) and self._is_current(extent):
            return self._packed(extent)
        members = [m for key in keys for m in instances_of_series(self._home.index, key).members]
        if not members:
            raise NotFound(f"there is no series {keys[0].series_instance_uid} in study {keys[0].study_instance_uid}")
        name = hashlib.sha256("\n".join([str(METADATA_VERSION_LEAST), *(str(m.located.revision) for m in members)]).encode()).hexdigest()
        kept = self._derived.get(name)
        if kept is not None:
            return kept
        lines: dict[int, list[bytes]] = {}
        writer = MetadataWriter(self._home.settings.limits.inflated_bytes_max)
        documents = []
        for member in members:
            if member.extent is None:
                documents.append(self.made(member.located, writer))
                continue
            key = id(member.extent)
            if key not in lines:
                lines[key] = self._lines(member.extent)
            documents.append(_line(lines[key], member.line))
        joined = compress(metadata_array(documents))
        if all(m.extent is not None for m in members):  # What is still in the journal will soon read otherwise.
            self._derived.put(name, joined)
        return joined

    def of_instance(self, stored: Located) -> bytes:
        """One document, one line."""
        return self._again_where_moved(lambda: self._of_instance(stored))

    def _of_instance(self, stored: Located) -> bytes:
        if isinstance(stored.place, PackPlace):
            view = instances_of_series(self._home.index, SeriesKey(stored.study_instance_uid, stored.series_instance_uid))
            for member in view.members:
                if member.located.revision == stored.revision and member.extent is not None:
                    return _line(self._lines(member.extent), member.line)
        return self.made(stored)

    def made(self, stored: Located, writer: MetadataWriter | None = None) -> bytes:
        """One document, made of the object itself."""
        writer = writer or MetadataWriter(self._home.settings.limits.inflated_bytes_max)
        with self._open(stored) as opened:
            return writer.write(opened.stored_data_set(), stored.transfer_syntax_uid)  # It inflates by itself.

    def _is_current(self, extent: Extent) -> bool:
        packed = self._home.index.packed
        try:
            with packed.environment.reading() as t:
                return packed.pack(t, extent.pack_id).metadata_version >= METADATA_VERSION_LEAST
        except NotFound as error:
            raise _Moved(str(error)) from error

    def _packed(self, extent: Extent) -> bytes:
        packed = self._home.index.packed
        try:
            with packed.environment.reading() as t:
                pack = self._home.pool.open(packed.pack(t, extent.pack_id), lambda: packed.block_crcs(t, extent.pack_id))
            data = bytes(pack.view(extent.metadata_offset, extent.metadata_length))
        except NotFound as error:
            raise _Moved(str(error)) from error
        if crc32(data) != extent.metadata_crc:
            raise Damaged(f"the metadata of a series in pack {extent.pack_id} does not match its CRC")
        return data

    def _lines(self, extent: Extent) -> list[bytes]:
        """Documents of an extent, in its order."""
        if self._is_current(extent):
            return gzip.decompress(self._packed(extent)).removeprefix(b"[\n").removesuffix(b"\n]").split(b",\n")
        packed, writer = self._home.index.packed, MetadataWriter(self._home.settings.limits.inflated_bytes_max)
        with packed.environment.reading() as t:
            digest = packed.pack(t, extent.pack_id).name.digest  # A rebuilt index may give packs other ids.
        name = f"extent-{digest}-{extent.first}-{METADATA_VERSION_LEAST}"
        kept = self._derived.get(name)
        if kept is None:
            with packed.environment.reading() as t:
                instances = {ordinal - extent.first: located for ordinal, located in packed.instances(t, extent)}
            # Those that are deleted, or went on in another pack, have none.
            documents = [self.made(instances[line], writer) if line in instances else b"" for line in range(extent.instances)]
            kept = compress(metadata_array(documents))
            self._derived.put(name, kept)
        return gzip.decompress(kept).removeprefix(b"[\n").removesuffix(b"\n]").split(b",\n")


def _line(lines: list[bytes], line: int) -> bytes:
    if not lines[line]:
        raise _Moved("an instance of the series went on in another pack")
    return lines[line]
