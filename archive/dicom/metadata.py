"""Metadata of instances: data sets in the DICOM JSON model (DICOM PS3.18 annex F).

The result is that of pydicom's `Dataset.to_json_dict`, but for what follows; there the Standard is kept, or one bad element
would cost the whole object:

- Bulk data (`bulkdata`) is named by URI, relative to the study's, series' or instance's metadata resource at WADO-RS root level:
  `instances/<SOP instance UID>/bulkdata/<path>`.
- Group lengths (gggg,0000) are left out, attributes stand in the order of their tags (F.2.2).
- An empty value among several is null; sequences without items have no `Value` (F.2.5); empty component groups of names are
  left out (F.2.2). NaN and infinity, for which JSON has no word, are null.
- A choice that the data dictionary leaves (`US or SS or OW`) is settled, for private attributes too. The first value of a LUT
  descriptor is never negative.
- NUL as padding is no part of a value.
- Unknown value representations become UN. Elements that are damaged (cut off, no whole numbers, text where numbers belong, items that
  are none) are left out with a line in the log.
"""

import logging
from urllib.parse import quote

from archive.dicom.bulkdata import is_bulk_data
from archive.dicom.context import LUT_DESCRIPTORS, Context, is_shared
from archive.dicom.inflate import inflate
from archive.dicom.json import dumps, loads
from archive.dicom.raw_walk import ENTRY_BYTES, RawWalk
from archive.dicom.repeating import Layout, Layouts
from archive.dicom.scan import DEPTH_MAX, Buffer, RawElement, scan_elements, scan_items, sniff_encoding
from archive.dicom.syntax import Encoding, encoding_of
from archive.dicom.values import decode_attribute
from archive.errors import NotUnderstood

METADATA_VERSION = 1
"""Version of the rules above; a later one supersedes what an earlier one wrote."""

INFLATED_BYTES_MAX = 512 << 20

_log = logging.getLogger(__name__)

_HERE = b"\0"  # stands for the way to the level in bulk data URIs; JSON text holds no NUL of its own
_SOP_INSTANCE_UID = b'"00080018":'
_NAME_BYTES = len(_SOP_INSTANCE_UID)
_FOREIGN_GROUPS = (0x0000, 0x0002)  # commands and file meta information

KEPT_BYTES_MAX = 32 << 20
"""About how much memory a writer takes for what it keeps."""

_CONTEXT_BYTES = 2000  # about what one costs


class _Kept:
    """Fragments of JSON by the raw bytes of the elements that they came from, for one context."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.fragments: dict[bytes, bytes] = {}


class _Members:
    """The members of one data set, for others that are like it."""

    def __init__(self, members: list[bytes], context: Context) -> None:
        self.context = context
        self._members = {int(member[1:9], 16): member for member in members}
        self._runs: list[tuple[bytes, int]] | None = None

    def runs(self, layout: Layout) -> list[tuple[bytes, int]]:
        """What stays, each with the tag of the element that comes behind it and differs (-1 for none)."""
        if self._runs is None:
            self._runs = []
            run: list[bytes] = []
            for element in layout.elements:
                if element.tag in layout.differing:
                    self._runs.append((b",".join(run), element.tag))
                    run = []
                elif element.tag in self._members:
                    run.append(self._members[element.tag])
            self._runs.append((b",".join(run), -1))
        return self._runs


class MetadataWriter:
    """Writes the metadata of instances; keeps what it converted, since the instances of a series repeat most elements.

    Not for several threads at once. What it keeps is bounded (about 32 MiB); one writer may serve any number of series.

    Parameters
    ----------
    inflated_bytes_max : int
        Largest size that a deflated data set may inflate to.
    """

    def __init__(self, inflated_bytes_max: int = INFLATED_BYTES_MAX) -> None:
        self._inflated_bytes_max = inflated_bytes_max
        self._walk = RawWalk()
        self._kept: dict[tuple[Context, Encoding, tuple[bytes, ...]], _Kept] = {}
        self._kept_bytes = 0
        self._layouts = Layouts()

    @property
    def kept_bytes(self) -> int:
        """About how much memory is taken by what was kept."""
        return self._kept_bytes + self._walk.kept_bytes

    def _forget_if_full(self) -> None:
        if self.kept_bytes > KEPT_BYTES_MAX:
            self._walk.forget()
            self._kept.clear()
            self._kept_bytes = 0

    def write(self, data_set: Buffer, transfer_syntax_uid: str) -> bytes:
        """Metadata of one instance.

        Parameters
        ----------
        data_set : Buffer
            The data set as it is stored, without preamble and file meta information.
        transfer_syntax_uid : str
            The transfer syntax that it is stored in.

        Returns
        -------
        bytes
            One JSON object in UTF-8, on one line.

        Raises
        ------
        NotUnderstood, Exhausted
            A deflated data set cannot be inflated, or not within the limit.
        """
        if encoding_of(transfer_syntax_uid).deflated:
            data_set = inflate(data_set, self._inflated_bytes_max)
        encoding = sniff_encoding(data_set, transfer_syntax_uid)
        with memoryview(data_set) as view:
            members = self._repeated(view, encoding) or self._read_anew(view, encoding)
        way = f"instances/{_sop_instance_uid(members)}/bulkdata/".encode()
        return _join(b"{", [member.replace(_HERE, way) if _HERE in member else member for member in members], b"}")

    def _repeated(self, data: memoryview, encoding: Encoding) -> list[bytes] | None:
        """The members of a data set that is like one before, several of them in one piece."""
        match = self._layouts.find(data, encoding)
        if match is None:
            return None
        layout, found = match
        last = layout.elements[-1].tag
        if last in found and found[last].end != len(data) or any(is_shared(tag) for tag in layout.differing & found.keys()):
            return None
        facts: _Members = layout.facts
        members: list[bytes] = []
        for run, tag in facts.runs(layout):
            if run:
                members.append(run)
            if tag in found and (fragment := self._convert(data, found[tag], facts.context, 0)):
                members.append(fragment)
        return members

    def _read_anew(self, data: memoryview, encoding: Encoding) -> list[bytes]:
        outer, learning = Context(encoding), self._layouts.wants
        members = self._level(data, 0, len(data), outer, encoding, 0)
        if learning:
            _, shared, damage = self._walk.walk(data, 0, len(data), encoding)
            if damage is None:
                elements = list(scan_elements(data, encoding))
                facts = _Members(members, self._kept_for(outer, encoding, shared).context)
                self._layouts.learn(data, encoding, elements, frozenset(), facts, alone=True)
        return members

    def _level(self, data: memoryview, start: int, end: int, outer: Context, encoding: Encoding, depth: int) -> list[bytes]:
        """The JSON members of one level, in the order of tags."""
        elements, shared, damage = self._walk.walk(data, start, end, encoding)
        if damage is not None:
            _log.warning("metadata ends early: %s", damage)
        kept = self._kept_for(outer, encoding, shared)
        known = kept.fragments
        members: dict[bytes, bytes] = {}
        for element in elements:
            if isinstance(element, bytes):
                fragment = known.get(element)
                if fragment is None:
                    fragment = self._convert_and_keep(element, kept, depth)
            else:
                fragment = self._convert(data, element, kept.context, depth)
            if fragment:
                members[fragment[:_NAME_BYTES]] = fragment  # of several with one tag the last one counts
        names = list(members)
        ordered = sorted(names)
        return list(members.values()) if names == ordered else [members[name] for name in ordered]

    def _kept_for(self, outer: Context, encoding: Encoding, shared: tuple[bytes, ...]) -> _Kept:
        kept = self._kept.get((outer, encoding, shared))
        if kept is None:
            self._forget_if_full()
            elements = [(raw, element) for raw in shared for element in scan_elements(raw, encoding)]
            kept = _Kept(outer.inside(encoding, [(element.tag, raw[element.offset : element.end]) for raw, element in elements]))
            self._kept[outer, encoding, shared] = kept
            self._kept_bytes += sum(map(len, shared), _CONTEXT_BYTES)
        return kept

    def _convert_and_keep(self, raw: bytes, kept: _Kept, depth: int) -> bytes:
        self._forget_if_full()
        with memoryview(raw) as view:
            fragment = self._convert(view, next(scan_elements(view, kept.context.encoding)), kept.context, depth)
        kept.fragments[raw] = fragment
        self._kept_bytes += len(raw) + len(fragment) + ENTRY_BYTES
        return fragment

    def _convert(self, data: memoryview, element: RawElement, context: Context, depth: int) -> bytes:
        """One JSON member; nothing where the element is left out."""
        if element.tag & 0xFFFF == 0 or element.tag >> 16 in _FOREIGN_GROUPS:
            return b""
        name = f"{element.tag:08X}"
        vr = context.vr_of(element)
        if is_bulk_data(element.tag, vr, element.length):
            return f'"{name}":{{"vr":"{vr}","BulkDataURI":"\0{name}"}}'.encode()
        try:
            if vr == "SQ":
                return self._convert_sequence(data, element, context, depth)
            if element.truncated:
                raise ValueError("it is cut off")
            raw = bytes(data[element.offset : element.offset + element.length])
            attribute = decode_attribute(vr, raw, context.encodings, context.encoding.little)
            if element.tag in LUT_DESCRIPTORS and vr == "SS" and attribute.get("Value", [0])[0] < 0:
                attribute["Value"][0] += 0x10000
            return f'"{name}":'.encode() + dumps(attribute)
        except (ValueError, NotUnderstood) as error:
            _log.warning("element %s (%s) is left out of the metadata: %s", name, vr, error)
            return b""

    def _convert_sequence(self, data: memoryview, element: RawElement, context: Context, depth: int) -> bytes:
        name = f"{element.tag:08X}"
        if depth >= DEPTH_MAX:
            raise NotUnderstood(f"nested deeper than {DEPTH_MAX}")
        items: list[bytes] = []
        try:
            for index, item in enumerate(scan_items(data, element, context.encoding)):
                members = self._level(data, item.offset, item.offset + item.length, context, item.encoding, depth + 1)
                items.append(_join(b"{", members, b"}").replace(_HERE, f"\0{name}/{index}/".encode()))
        except NotUnderstood as error:
            if not items:
                raise
            _log.warning("sequence %s ends early in the metadata: %s", name, error)
        if not items:
            return f'"{name}":{{"vr":"SQ"}}'.encode()
        return _join(f'"{name}":{{"vr":"SQ","Value":['.encode(), items, b"]}")


def _sop_instance_uid(members: list[bytes]) -> str:
    """As it stands in the data set, safe inside a URI."""
    for member in members:
        if member.startswith(_SOP_INSTANCE_UID):
            value = loads(b"{" + member + b"}")["00080018"].get("Value", [""])[0]
            return quote(str(value or "").strip(), safe="")
    return ""


def _join(opening: bytes, members: list[bytes], closing: bytes) -> bytes:
    """The members between what opens and what closes them, in one copy: there may be many megabytes."""
    if not members:
        return opening + closing
    members = [opening + members[0], *members[1:]]
    members[-1] += closing
    return b",".join(members)
