"""Bytes to the client of one answer, straight from where they lie.

asyncio's transports join what is written in pieces and copy what the socket does not take at once. A frame of half a megabyte is
better sent as `writev(2)` of its parts, and the rest when the socket can take more. The transport is still the owner of the
connection: the outlet writes only while the transport has nothing of its own to write, to a descriptor of its own, so that a
connection that was closed and another one under the same number can never be confused.
"""

import asyncio
import os
from collections.abc import Sequence

from aiohttp import ClientConnectionResetError, web

from archive.dicom.scan import Buffer

PARTS_MAX = 512
WRITE_BYTES = 256 << 10


class Outlet:
    """The body of one answer on its way out; close it.

    Parameters
    ----------
    request : Request
        Whom to answer.
    response : StreamResponse
        Prepared: its headers were written.
    stall_seconds_max : float
        How long the client may take nothing.
    """

    def __init__(self, request: web.Request, response: web.StreamResponse, stall_seconds_max: float) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ClientConnectionResetError("the client is gone")
        self._transport, self._response, self._stall = transport, response, stall_seconds_max
        self._fd = -1
        # A body of unknown length needs framing, TLS needs encrypting, and headers that wait must go first: then the transport does it all.
        plain = response.content_length is not None and transport.get_extra_info("sslcontext") is None
        if plain and transport.get_write_buffer_size() == 0:
            self._fd = os.dup(transport.get_extra_info("socket").fileno())

    async def write(self, parts: Sequence[Buffer]) -> None:
        """Write all parts, in order; returns when the kernel has them.

        Raises
        ------
        ClientConnectionResetError
            The client went away.
        TimeoutError
            It took nothing for too long.
        """
        views = [memoryview(part).cast("B") for part in parts]
        if self._fd < 0:
            await self._write_buffered(views)
            return
        first = 0
        while first < len(views):
            if self._transport.is_closing():
                raise ClientConnectionResetError("the client is gone")
            try:
                taken = os.writev(self._fd, views[first : first + PARTS_MAX])
            except BlockingIOError:
                await self._writable()
                continue
            except ConnectionError as error:
                raise ClientConnectionResetError(str(error)) from error
            while first < len(views) and taken >= len(views[first]):
                taken -= len(views[first])
                first += 1
            if taken:
                views[first] = views[first][taken:]

    async def _write_buffered(self, views: list[memoryview]) -> None:
        for view in views:
            for start in range(0, len(view), WRITE_BYTES):
                async with asyncio.timeout(self._stall):
                    await self._response.write(view[start : start + WRITE_BYTES])

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        loop.add_writer(self._fd, _wake, waiter)
        try:
            async with asyncio.timeout(self._stall):
                await waiter
        finally:
            loop.remove_writer(self._fd)

    def close(self) -> None:
        """Let go of the connection; the transport keeps it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _wake(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():
        waiter.set_result(None)
