"""WADO-RS for frames: the pixels of an image one by one, as they are stored (DICOM PS3.18 10.4.1.1.6, 8.7.3.3)."""

import functools
from collections.abc import Iterator

from aiohttp import web

from archive.dicom.frames import PixelData
from archive.dicom.scan import Buffer
from archive.dicom.syntax import EXPLICIT_VR_LITTLE_ENDIAN, OCTET_STREAM, encoding_of, media_type_of
from archive.errors import BadInput, NotFound
from archive.flow.opened import Opened
from archive.flow.retrieve import Retrieval, Stored
from archive.web.multipart import Framing, part_type, total_length
from archive.web.negotiation import Representation, accept_of, choose
from archive.web.retrieve import location_of, one_instance
from archive.web.sending import Body, Leases, Step, send_body, send_pieces
from archive.web.services import SERVICES


async def retrieve_instance_frames(request: web.Request) -> web.StreamResponse:
    """`GET .../instances/{instance}/frames/{frames}`: multipart with one part for each frame, or one frame bare."""
    services = request.app[SERVICES]
    numbers = parse_frame_list(request.match_info["frames"])
    stored = one_instance(services.retrieval, request)
    chosen = choose(accept_of(request), frame_representations(stored.transfer_syntax_uid, len(numbers) == 1))
    content_type = part_type(chosen.media_type, frame_syntax(stored.transfer_syntax_uid))
    if len(numbers) > 1:
        return await _send_several(request, stored, numbers, chosen, content_type)
    number = numbers[0]
    leases = Leases()
    pieces = await services.threads.read_warm(
        (stored.revision, number, stored.sop_instance_uid), lambda: _one_frame(services.retrieval, stored, number, leases)
    )
    if not chosen.multipart:
        return await send_pieces(request, pieces, {"Content-Type": content_type}, leases.close)
    framing = Framing.new()
    head = framing.head(content_type, sum(map(len, pieces)), f"{location_of(stored)}/frames/{number}", first=True)
    headers = {"Content-Type": framing.content_type(chosen.media_type)}
    return await send_pieces(request, [head, *pieces, framing.tail()], headers, leases.close)


def parse_frame_list(text: str) -> list[int]:
    """Frame numbers from 1, in the order asked for (DICOM PS3.18 10.1.4: a comma separated list).

    Raises
    ------
    BadInput
        Not a list of positive whole numbers.
    """
    items = text.split(",")
    if not all(item.isascii() and item.isdecimal() and len(item) <= 10 and int(item) > 0 for item in items):
        raise BadInput(f"{text[:100]!r} is no list of frame numbers (1,2,3)")
    return [int(item) for item in items]


@functools.lru_cache(maxsize=256)
def frame_representations(transfer_syntax_uid: str, single: bool) -> tuple[Representation, ...]:
    """How frames stored in a syntax can be sent: by its media type, or as bare bytes to who says that any syntax will do."""
    media_type = media_type_of(transfer_syntax_uid)
    syntaxes = frozenset((transfer_syntax_uid, frame_syntax(transfer_syntax_uid)))
    kinds = [(media_type, False)] if media_type == OCTET_STREAM else [(media_type, False), (OCTET_STREAM, True)]
    offers = [Representation(kind, True, syntaxes, wanted) for kind, wanted in kinds]
    if single:
        offers += [Representation(kind, False, syntaxes, wanted) for kind, wanted in kinds]
    return tuple(offers)


def frame_syntax(transfer_syntax_uid: str) -> str:
    """The syntax that the bytes of a frame are in: implicit and deflated make no difference to little endian pixels."""
    encoding = encoding_of(transfer_syntax_uid)
    native = not encoding.explicit or encoding.deflated
    return EXPLICIT_VR_LITTLE_ENDIAN if native and encoding.little else transfer_syntax_uid


def pixel_data_of(opened: Opened) -> PixelData:
    """Where the frames lie.

    Raises
    ------
    NotFound
        The instance has no pixel data.
    """
    found = opened.pixel_data()
    if found is None:
        raise NotFound("the instance has no pixel data")
    return found


def frame_length(pixel_data: PixelData, frame_number: int) -> int:
    """Bytes of one frame as it is sent: of one that begins or ends inside a byte, as many as its bits need."""
    found = sum(length for _, length in pixel_data.frame_ranges(frame_number))
    return -(-pixel_data.frame_bits // 8) if pixel_data.frame_bits % 8 else found


def _one_frame(retrieval: Retrieval, stored: Stored, number: int, leases: Leases) -> list[Buffer]:
    opened, lease = leases.enter(retrieval.open(stored, number))
    try:
        return list(opened.frame(number))
    except BaseException:
        lease.close()
        raise


async def _send_several(
    request: web.Request, stored: Stored, numbers: list[int], chosen: Representation, content_type: str
) -> web.StreamResponse:
    """Many frames: lengths first, from the frame table; the bytes as they are needed."""
    retrieval = request.app[SERVICES].retrieval
    leases = Leases()

    def lengths_of() -> list[int]:
        with retrieval.open(stored) as opened:
            pixel_data = pixel_data_of(opened)
            return [frame_length(pixel_data, number) for number in numbers]

    lengths = await request.app[SERVICES].threads.read(lengths_of)
    framing = Framing.new()
    heads = [
        framing.head(content_type, length, f"{location_of(stored)}/frames/{number}", first=n == 0)
        for n, (number, length) in enumerate(zip(numbers, lengths, strict=True))
    ]
    tail = framing.tail()

    def steps() -> Iterator[Step]:
        opened, _ = leases.enter(retrieval.open(stored))
        for head, number in zip(heads, numbers, strict=True):
            yield head
            yield from opened.frame(number)
        yield tail

    body = Body(total_length(heads, lengths, tail), steps(), leases)
    return await send_body(request, body, 200, {"Content-Type": framing.content_type(chosen.media_type)})
