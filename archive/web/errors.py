"""Errors as HTTP says them: a status, and a JSON body `{"error": ..., "detail": ...}` for people (DICOM PS3.18 8.5)."""

import logging
from http import HTTPStatus

from aiohttp import web

from archive.dicom.json import dumps
from archive.errors import ArchiveError, BadInput, Damaged, Exhausted, NotFound
from archive.web.negotiation import NotAcceptable
from archive.web.ranges import RangeNotSatisfiable

log = logging.getLogger(__name__)


def problem(status: int, detail: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer that says what is wrong."""
    body = dumps({"error": HTTPStatus(status).phrase, "detail": detail})
    return web.Response(status=status, body=body, content_type="application/json", headers=headers)


def problem_of(error: BaseException, path: str) -> web.Response:
    """The answer to an error that was raised before anything was sent.

    What the caller cannot have caused is logged; the text of an unknown error stays here.
    """
    if isinstance(error, web.HTTPException):
        kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Location")}
        detail = error.reason
        if error.status == 404:
            detail = f"nothing is served at {path}"
        elif error.status == 405:
            detail = f"allowed here: {kept.get('Allow', '')}"
        return problem(error.status, detail, kept)
    if isinstance(error, NotFound):
        return problem(404, str(error))
    if isinstance(error, NotAcceptable):
        return problem(406, str(error))
    if isinstance(error, RangeNotSatisfiable):
        return problem(416, str(error), {"Content-Range": f"bytes */{error.length}"})
    if isinstance(error, BadInput):
        return problem(400, str(error))
    if isinstance(error, Exhausted):
        return problem(503, str(error), {"Retry-After": str(max(1, round(error.retry_after_seconds)))})
    if isinstance(error, Damaged):
        log.error("refused to serve %s: %s", path, error)
        return problem(500, str(error))
    if isinstance(error, ArchiveError):
        log.error("%s: %s", path, error)
        return problem(500, str(error))
    log.error("%s failed", path, exc_info=error)
    return problem(500, "the archive failed to answer; its log says why")
