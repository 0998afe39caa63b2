"""Cross-origin access, so that viewers served from elsewhere can read (Fetch standard, HTTP CORS protocol)."""

from aiohttp import web

_EXPOSED = "Content-Length, Content-Location, Content-Range, ETag, Retry-After, Warning"
_ALLOWED_HEADERS = "Authorization, Accept, Accept-Language, Content-Language, Content-Type, If-Range, Range, X-Requested-With"
_ALLOWED_METHODS = "GET, HEAD, OPTIONS"


def preflight() -> web.Response:
    """The answer to OPTIONS, whatever the path: a browser asks before it knows whether it may."""
    headers = {
        "Access-Control-Allow-Methods": _ALLOWED_METHODS,
        "Access-Control-Allow-Headers": _ALLOWED_HEADERS,
        "Access-Control-Max-Age": "86400",
        "Allow": _ALLOWED_METHODS,
    }
    return web.Response(status=204, headers=headers)


async def add_common_headers(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """What every answer carries, errors too; a signal of aiohttp, called before headers are written."""
    headers = response.headers
    headers["Access-Control-Allow-Origin"] = "*"
    headers["Access-Control-Expose-Headers"] = _EXPOSED
    headers.setdefault("Cross-Origin-Resource-Policy", "cross-origin")
    headers["X-Content-Type-Options"] = "nosniff"
