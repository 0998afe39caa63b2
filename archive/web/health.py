"""Is the process alive, and can the node do its work?"""

import asyncio

from aiohttp import web

from archive.dicom.json import dumps
from archive.web.services import SERVICES, Check

READY_SECONDS_MAX = 5.0


async def health(request: web.Request) -> web.StreamResponse:
    """`GET /health`: 200 while this process answers."""
    return web.Response(body=dumps({"status": "alive"}), content_type="application/json")


async def ready(request: web.Request) -> web.StreamResponse:
    """`GET /ready`: 200 while the node takes and gives instances, else 503; each check by name."""
    services = request.app[SERVICES]
    try:
        async with asyncio.timeout(READY_SECONDS_MAX):
            checks = await services.threads.search(services.checks)
    except TimeoutError:
        checks = [Check("checks", False, f"no answer within {READY_SECONDS_MAX:.0f} seconds")]
    ok = all(check.ok for check in checks)
    body = {"status": "ready" if ok else "not ready", "checks": {c.name: {"ok": c.ok, "detail": c.detail} for c in checks}}
    headers = {"Cache-Control": "no-store"} if ok else {"Cache-Control": "no-store", "Retry-After": "10"}
    return web.Response(status=200 if ok else 503, body=dumps(body), content_type="application/json", headers=headers)
