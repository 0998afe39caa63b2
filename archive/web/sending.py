"""Bodies on their way out: piece by piece, no faster than the client reads, and cut where damage is found.

Pieces come from a plain iterator that may block on the disk; a thread takes them from it a batch ahead of what is being sent.
What a piece is a view of stays open until it was sent: the iterator opens it by `Leases.enter` and yields the lease when nothing
more of it follows.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from typing import TypeVar

from aiohttp import ClientConnectionResetError, web

from archive.dicom.scan import Buffer
from archive.errors import ArchiveError
from archive.web.outlet import Outlet
from archive.web.services import BROKEN_OFF, SERVICES

T = TypeVar("T")
Step = Buffer | ExitStack

BATCH_BYTES = 1 << 20
BATCH_STEPS_MAX = 256
JOINED_BYTES_MAX = 64 << 10
"""Up to here one copy and one write are cheaper than two writes."""

log = logging.getLogger(__name__)


class Leases:
    """What is open for the sake of one answer."""

    def __init__(self) -> None:
        self._open: set[ExitStack] = set()

    def enter(self, context: AbstractContextManager[T]) -> tuple[T, ExitStack]:
        """Open something; the lease closes it, and `close` does so at the latest."""
        lease = ExitStack()
        entered = lease.enter_context(context)
        lease.callback(self._open.discard, lease)
        self._open.add(lease)
        return entered, lease

    def close(self) -> None:
        """Close what is still open; may be called twice."""
        for lease in list(self._open):
            lease.close()


@dataclass
class Body:
    """What follows the headers.

    Parameters
    ----------
    length : int or None
        In bytes, all pieces together; None sends them chunked.
    steps : iterator
        Buffers, and leases that may be given back once everything before them was sent.
    leases : Leases
        Where the iterator opened them.
    """

    length: int | None
    steps: Iterator[Step]
    leases: Leases
    taken: int = 0

    @property
    def whole(self) -> bool:
        """Whether the last byte was taken, so that nobody has to ask for more."""
        return self.length is not None and self.taken >= self.length

    def take(self) -> list[Step]:
        """The next batch; empty at the end. May block."""
        batch: list[Step] = []
        size = 0
        for step in self.steps:
            batch.append(step)
            size += 0 if isinstance(step, ExitStack) else len(step)
            if size >= BATCH_BYTES or len(batch) >= BATCH_STEPS_MAX or self.taken + size == self.length:
                break
        self.taken += size
        return batch


async def send_body(request: web.Request, body: Body, status: int, headers: dict[str, str]) -> web.StreamResponse:
    """Send headers and body; an error before the first piece is raised, a later one cuts the connection."""
    services = request.app[SERVICES]
    response = web.StreamResponse(status=status, headers=headers)
    response.content_length = body.length
    following: asyncio.Future[list[Step]] | None = None
    try:
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        batch = await services.threads.read(body.take)
        await response.prepare(request)
        with contextlib.closing(Outlet(request, response, services.settings.web.stall_seconds_max)) as outlet:
            while batch:
                following = None if body.whole else services.threads.read(body.take)
                await _write_batch(outlet, batch)
                await asyncio.sleep(0)  # A client that reads as fast as the disk must not keep the others waiting.
                batch = [] if following is None else await following
        await response.write_eof()
    except ClientConnectionResetError:
        _left(request)
    except Exception as error:
        # Whatever it is: an answer that says so would go out as bytes of the one that has begun.
        if not response.prepared:
            raise
        cut(request, error)
    finally:
        if following is None:
            body.leases.close()
        else:
            following.add_done_callback(lambda done: _settle(done, body))
    return response


async def _write_batch(outlet: Outlet, batch: list[Step]) -> None:
    """Write a batch, as many buffers at once as lie between two leases; it is empty afterwards, so that nothing is held for longer."""
    buffers: list[Buffer] = []
    batch.reverse()
    while batch:
        step = batch.pop()
        if not isinstance(step, ExitStack):
            buffers.append(step)
            if batch and not isinstance(batch[-1], ExitStack):
                continue
        if buffers:
            await outlet.write(buffers)
            buffers.clear()
        if isinstance(step, ExitStack):
            step.close()


def _settle(done: "asyncio.Future[list[Step]]", body: Body) -> None:
    """Give back what is open once no thread is busy with it any more; the batch is not wanted."""
    body.leases.close()
    if not done.cancelled():
        done.exception()


async def send_pieces(
    request: web.Request, pieces: list[Buffer], headers: dict[str, str], closing: Callable[[], None] = lambda: None
) -> web.StreamResponse:
    """Send what is in memory already, and is known to be right; `closing` is called once it was sent."""
    length = sum(map(len, pieces))
    if length <= JOINED_BYTES_MAX:
        joined = b"".join(pieces)
        closing()
        return web.Response(body=joined, headers=headers)
    response = web.StreamResponse(status=200, headers=headers)
    response.content_length = length
    try:
        await response.prepare(request)
        if request.method != "HEAD":
            with contextlib.closing(Outlet(request, response, request.app[SERVICES].settings.web.stall_seconds_max)) as outlet:
                await outlet.write(pieces)
            await response.write_eof()
    except ClientConnectionResetError:
        _left(request)
    except Exception as error:
        if not response.prepared:
            raise
        cut(request, error)
    finally:
        pieces.clear()
        closing()
    return response


def _left(request: web.Request) -> None:
    """The client went away."""
    request[BROKEN_OFF] = "cancelled"
    log.debug("the client of %s went away", request.path)


def cut(request: web.Request, error: BaseException) -> None:
    """End a connection in the middle of an answer, so that the client notices that what it has is not whole."""
    request[BROKEN_OFF] = "failure"
    known = isinstance(error, ArchiveError | OSError)
    log.error("cut off %s: %s", request.path, str(error) or type(error).__name__, exc_info=None if known else error)
    request.app[SERVICES].counters.add("answers_cut_total")
    if request.transport is not None:
        request.transport.abort()
