"""WADO-RS for bulk data: the values that metadata names by URI (DICOM PS3.18 10.4.1.1.7, 8.7.3.3).

Metadata holds `instances/<instance>/bulkdata/<path>`, relative, so one document is right wherever the archive is mounted. What it
resolves to depends on the document's own URL, hence the three routes. Values are sent as they lie, big endian ones too. Encapsulated
pixel data has no value to send as it lies: it goes out as its frames, or as one stream where it is a video.
"""

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from aiohttp import web

from archive.dicom.bulkdata import find_bulk_data
from archive.dicom.frames import ITEM_HEADER_LENGTH, PixelData
from archive.dicom.json import loads
from archive.dicom.syntax import OCTET_STREAM, encoding_of, media_type_of
from archive.flow.opened import Opened
from archive.flow.retrieve import Retrieval, Stored
from archive.web.frames import frame_representations, frame_syntax
from archive.web.multipart import Framing, part_type, total_length
from archive.web.negotiation import Representation, accept_of, choose
from archive.web.ranges import Extent, parse_range, slice_extents
from archive.web.retrieve import location_of, one_instance
from archive.web.sending import Body, Leases, Step, send_body
from archive.web.services import SERVICES

_PIXEL_DATA = ("7FE00010", "7FE00008", "7FE00009")
_ENCAPSULATED_DOCUMENT = "00420011"
_MIME_TYPE_OF_ENCAPSULATED_DOCUMENT = "00420012"
# A page with scripts would run in the origin of the viewer.
_ACTIVE = frozenset(("text/html", "application/xhtml+xml", "image/svg+xml", "text/xml", "application/xml"))


@dataclass(frozen=True)
class Found:
    """Where bulk data lies, and what it is.

    Parameters
    ----------
    items : tuple
        For each part (a frame, or the one value) where its bytes lie in the data set: (offset, length) each.
    representations : tuple of Representation
        How it can be sent.
    syntax : str
        Transfer syntax of the parts; empty where there is none.
    """

    items: tuple[tuple[Extent, ...], ...]
    representations: tuple[Representation, ...]
    syntax: str = ""


async def retrieve_bulkdata(request: web.Request) -> web.StreamResponse:
    """`GET .../instances/{instance}/bulkdata/{path}`: one value, bare or multipart; a range of it where it is bare."""
    services = request.app[SERVICES]
    stored = one_instance(services.retrieval, request)
    path = request.match_info["path"]
    found = await services.threads.read(lambda: find(services.retrieval, stored, path))
    chosen = choose(accept_of(request), found.representations)
    content_type = part_type(chosen.media_type, found.syntax)
    if chosen.multipart:
        return await _send_multipart(request, stored, found, chosen, content_type, path)
    extents = [extent for item in found.items for extent in item]
    length = sum(size for _, size in extents)
    headers = {"Content-Type": content_type, "Accept-Ranges": "bytes", "ETag": f'"{stored.sop_instance_uid}-{stored.revision}-{path}"'}
    status, start, end = 200, 0, length
    asked = request.headers.get("Range")
    if asked is not None and request.headers.get("If-Range", headers["ETag"]) == headers["ETag"]:
        part = parse_range(asked, length)
        if part is not None:
            status, (start, end) = 206, part
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{length}"
    leases = Leases()

    def steps() -> Iterator[Step]:
        opened, _ = leases.enter(services.retrieval.open(stored))
        yield from _pieces(opened, slice_extents(extents, start, end))

    return await send_body(request, Body(end - start, steps(), leases), status, headers)


def find(retrieval: Retrieval, stored: Stored, path: str) -> Found:
    """Look for the value at a path (tag, or tag/item/tag) of an instance.

    Raises
    ------
    NotFound
        There is none.
    """
    syntax = stored.transfer_syntax_uid
    with retrieval.open(stored) as opened:
        pixel_data = opened.pixel_data() if path in _PIXEL_DATA else None
        if pixel_data is not None and pixel_data.tag == path:
            if not pixel_data.frame_bits:
                items = _encapsulated_items(pixel_data, media_type_of(syntax).startswith("video/"))
                return Found(items, frame_representations(syntax, len(items) == 1), syntax)
            return Found((((pixel_data.offset, pixel_data.length),),), value_representations(OCTET_STREAM), frame_syntax(syntax))
        offset, length, _ = find_bulk_data(opened.data_set(), syntax, path)
    media_type = _document_type(retrieval, stored) if path == _ENCAPSULATED_DOCUMENT else OCTET_STREAM
    return Found((((offset, length),),), value_representations(media_type))


def _encapsulated_items(pixel_data: PixelData, video: bool) -> tuple[tuple[Extent, ...], ...]:
    """The fragments of each frame; of a video, or where nothing tells frames apart, all fragments as one stream."""
    if pixel_data.starts and not video:
        frames = min(pixel_data.number_of_frames, len(pixel_data.starts))
        return tuple(tuple(pixel_data.frame_ranges(n + 1)) for n in range(frames))
    fragments = []
    offset = pixel_data.offset
    for length in pixel_data.fragments:
        fragments.append((offset, length))
        offset += length + ITEM_HEADER_LENGTH
    return (tuple(fragments),)


@functools.lru_cache(maxsize=64)
def value_representations(media_type: str) -> tuple[Representation, ...]:
    """A value is a stream of bytes; a document has a media type of its own besides."""
    kinds = (OCTET_STREAM,) if media_type == OCTET_STREAM else (media_type, OCTET_STREAM)
    return tuple(Representation(kind, multipart) for kind in kinds for multipart in (False, True))


def _document_type(retrieval: Retrieval, stored: Stored) -> str:
    """What the object itself says that its document is; it may say anything, so only plain tokens are believed."""
    found = loads(retrieval.instance_metadata(stored.study_instance_uid, stored.series_instance_uid, stored.sop_instance_uid))
    values = found[0].get(_MIME_TYPE_OF_ENCAPSULATED_DOCUMENT, {}).get("Value", [""]) if found else [""]
    text = str(values[0]).lower()
    main, _, sub = text.partition("/")
    plain = all(part and all(c.isascii() and (c.isalnum() or c in "+-.") for c in part) for part in (main, sub))
    return text if plain and text not in _ACTIVE else OCTET_STREAM


async def _send_multipart(
    request: web.Request, stored: Stored, found: Found, chosen: Representation, content_type: str, path: str
) -> web.StreamResponse:
    framing = Framing.new()
    lengths = [sum(size for _, size in item) for item in found.items]
    location = f"{location_of(stored)}/bulkdata/{path}"
    heads = [framing.head(content_type, length, location, first=n == 0) for n, length in enumerate(lengths)]
    tail = framing.tail()
    leases = Leases()

    def steps() -> Iterator[Step]:
        opened, _ = leases.enter(request.app[SERVICES].retrieval.open(stored))
        for head, item in zip(heads, found.items, strict=True):
            yield head
            yield from _pieces(opened, item)
        yield tail

    body = Body(total_length(heads, lengths, tail), steps(), leases)
    return await send_body(request, body, 200, {"Content-Type": framing.content_type(chosen.media_type)})


def _pieces(opened: Opened, extents: Iterable[Extent]) -> Iterator[Step]:
    """The bytes of a data set from several places; of a deflated one, those of the inflated."""
    stored = opened.stored
    inflated = opened.data_set() if encoding_of(stored.transfer_syntax_uid).deflated else None
    for offset, length in extents:
        if inflated is not None:
            yield inflated[offset : offset + length]
        else:
            yield from opened.chunks(stored.data_set_offset + offset, length)
