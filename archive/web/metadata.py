"""WADO-RS for metadata at its three levels: DICOM JSON, gzipped once when it was packed and sent as it lies (DICOM PS3.18 10.4.1.1.5)."""

import zlib
from collections.abc import Iterator

from aiohttp import web

from archive.errors import Damaged
from archive.web.negotiation import Representation, accept_of, accepts_gzip, choose
from archive.web.retrieve import uid_of
from archive.web.sending import Body, Leases, Step, send_body, send_pieces
from archive.web.services import INSTANCES, SERVICES

DICOM_JSON = "application/dicom+json"
JSON_REPRESENTATIONS = (Representation(DICOM_JSON), Representation("application/json"))

INFLATE_BYTES = 1 << 20


async def retrieve_study_metadata(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}/metadata`."""
    media_type = choose(accept_of(request), JSON_REPRESENTATIONS).media_type
    services, study = request.app[SERVICES], uid_of(request, "study")
    packed = await services.threads.read(lambda: services.retrieval.study_metadata(study))
    return await _send_packed(request, packed, media_type)


async def retrieve_series_metadata(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}/series/{series}/metadata`."""
    media_type = choose(accept_of(request), JSON_REPRESENTATIONS).media_type
    services, study, series = request.app[SERVICES], uid_of(request, "study"), uid_of(request, "series")
    packed = await services.threads.read_warm(("series metadata", study, series), lambda: services.retrieval.series_metadata(study, series))
    return await _send_packed(request, packed, media_type)


async def retrieve_instance_metadata(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}/series/{series}/instances/{instance}/metadata`."""
    media_type = choose(accept_of(request), JSON_REPRESENTATIONS).media_type
    services = request.app[SERVICES]
    study, series, instance = uid_of(request, "study"), uid_of(request, "series"), uid_of(request, "instance")
    text = await services.threads.read(lambda: services.retrieval.instance_metadata(study, series, instance))
    request[INSTANCES] = 1
    return await send_pieces(request, [text], {"Content-Type": media_type})


async def _send_packed(request: web.Request, packed: bytes, media_type: str) -> web.StreamResponse:
    headers = {"Content-Type": media_type, "Vary": "Accept, Accept-Encoding"}
    if accepts_gzip(request.headers.get("Accept-Encoding", "")):
        headers["Content-Encoding"] = "gzip"
        return await send_pieces(request, [packed], headers)
    return await send_body(request, Body(None, inflated(packed), Leases()), 200, headers)


def inflated(packed: bytes) -> Iterator[Step]:
    """The text inside one gzip member, piece by piece, so that a large one needs little memory.

    Raises
    ------
    Damaged
        It is not one whole gzip member.
    """
    inflater = zlib.decompressobj(wbits=31)
    rest: bytes = packed
    try:
        while not inflater.eof:
            piece = inflater.decompress(rest, INFLATE_BYTES)
            rest = inflater.unconsumed_tail
            if piece:
                yield piece
            elif not rest and not inflater.eof:
                raise Damaged("metadata at rest ends before its gzip member does")
    except zlib.error as error:
        raise Damaged(f"metadata at rest cannot be inflated: {error}") from error
