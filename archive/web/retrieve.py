"""WADO-RS for whole instances: of a study, of a series, or one (DICOM PS3.18 10.4)."""

import functools
from collections.abc import Iterator

from aiohttp import web

from archive.dicom.uid import check_uid
from archive.flow.retrieve import Retrieval, Stored
from archive.web.multipart import Framing, part_type, total_length
from archive.web.negotiation import NotAcceptable, Representation, accept_of, choose
from archive.web.sending import Body, Leases, Step, send_body
from archive.web.services import DICOMWEB, INSTANCES, SERVICES

APPLICATION_DICOM = "application/dicom"


async def retrieve_study(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}`: every instance, as multipart."""
    return await _retrieve_several(request, uid_of(request, "study"), None)


async def retrieve_series(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}/series/{series}`: every instance, as multipart."""
    return await _retrieve_several(request, uid_of(request, "study"), uid_of(request, "series"))


async def retrieve_instance(request: web.Request) -> web.StreamResponse:
    """`GET /studies/{study}/series/{series}/instances/{instance}`: multipart with one part, or the bare Part 10 object."""
    services = request.app[SERVICES]
    stored = one_instance(services.retrieval, request)
    chosen = choose(accept_of(request), instance_representations(stored.transfer_syntax_uid, single=True))
    if chosen.multipart:
        return await _send(request, [stored])
    headers = {"Content-Type": part_type(APPLICATION_DICOM, stored.transfer_syntax_uid)}
    return await send_body(request, _plain(services.retrieval, stored), 200, headers)


def uid_of(request: web.Request, name: str) -> str:
    """A UID from the path, checked before anyone looks it up."""
    return check_uid(request.match_info[name], f"{name} UID in the path")


def one_instance(retrieval: Retrieval, request: web.Request) -> Stored:
    """The instance that the path names; with or without its series."""
    series = uid_of(request, "series") if "series" in request.match_info else None
    found = retrieval.instances(uid_of(request, "study"), series, uid_of(request, "instance"))
    request[INSTANCES] = len(found)
    return found[0]


def location_of(stored: Stored) -> str:
    """Where an instance can be had by itself."""
    return f"{DICOMWEB}/studies/{stored.study_instance_uid}/series/{stored.series_instance_uid}/instances/{stored.sop_instance_uid}"


@functools.lru_cache(maxsize=256)
def instance_representations(transfer_syntax_uid: str, single: bool) -> tuple[Representation, ...]:
    """How a Part 10 object can be sent: in the syntax that it is stored in."""
    syntaxes = frozenset((transfer_syntax_uid,))
    multipart = Representation(APPLICATION_DICOM, multipart=True, transfer_syntax_uids=syntaxes)
    return (multipart, Representation(APPLICATION_DICOM, transfer_syntax_uids=syntaxes)) if single else (multipart,)


async def _retrieve_several(request: web.Request, study: str, series: str | None) -> web.StreamResponse:
    services = request.app[SERVICES]
    accept = accept_of(request)
    found = await services.threads.read(lambda: services.retrieval.instances(study, series))
    refusals: dict[str, NotAcceptable] = {}
    for transfer_syntax_uid in {stored.transfer_syntax_uid for stored in found}:
        try:
            choose(accept, instance_representations(transfer_syntax_uid, single=False))
        except NotAcceptable as error:
            refusals[transfer_syntax_uid] = error
    acceptable = [stored for stored in found if stored.transfer_syntax_uid not in refusals]
    if not acceptable:
        raise next(iter(refusals.values()))
    return await _send(request, acceptable, left_out=len(found) - len(acceptable))


async def _send(request: web.Request, found: list[Stored], left_out: int = 0) -> web.StreamResponse:
    """A multipart answer; instances whose syntax the client does not take are left out by 206 (DICOM PS3.18 table 10.4.3-1)."""
    request[INSTANCES] = len(found)
    framing = Framing.new()
    heads = [
        framing.head(part_type(APPLICATION_DICOM, stored.transfer_syntax_uid), stored.length, location_of(stored), first=n == 0)
        for n, stored in enumerate(found)
    ]
    tail = framing.tail()
    leases = Leases()
    steps = _parts(request.app[SERVICES].retrieval, found, heads, tail, leases)
    body = Body(total_length(heads, (stored.length for stored in found), tail), steps, leases)
    headers = {"Content-Type": framing.content_type(APPLICATION_DICOM)}
    if left_out:
        headers["Warning"] = f'299 dicom-archive "{left_out} instances are stored in transfer syntaxes that the request does not accept"'
    return await send_body(request, body, 206 if left_out else 200, headers)


def _parts(retrieval: Retrieval, found: list[Stored], heads: list[bytes], tail: bytes, leases: Leases) -> Iterator[Step]:
    for stored, head in zip(found, heads, strict=True):
        opened, lease = leases.enter(retrieval.open(stored, through=len(found) > 1))
        yield head
        yield from opened.chunks(0, stored.length)
        yield lease
    yield tail


def _plain(retrieval: Retrieval, stored: Stored) -> Body:
    leases = Leases()

    def steps() -> Iterator[Step]:
        opened, _ = leases.enter(retrieval.open(stored))
        yield from opened.chunks(0, stored.length)

    return Body(stored.length, steps(), leases)
