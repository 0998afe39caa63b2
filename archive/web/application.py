"""The routes of one worker and what surrounds every request: its bound, its count, its errors."""

import asyncio
import time

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from archive.dicom.uid import uid_or_empty
from archive.flow.audit import Event
from archive.flow.audit_lines import open_audit
from archive.flow.derived import counters_folder
from archive.flow.home import Home
from archive.flow.query import Search
from archive.flow.retrieve import Retrieval
from archive.tier.probe import TierProbe
from archive.web import bulkdata, frames, health, metadata, metrics, retrieve, search
from archive.web.cors import add_common_headers, preflight
from archive.web.counters import TRANSACTIONS, Counters
from archive.web.errors import problem, problem_of
from archive.web.readiness import checks_of, figures_of
from archive.web.services import BROKEN_OFF, DICOMWEB, INSTANCES, SERVICES, STUDY, Services
from archive.web.threads import Threads
from archive.web.viewer import Viewer

CLIENT_GONE = 499
_NEVER_REFUSED = frozenset((health.health, health.ready, metrics.metrics))

_STUDY = DICOMWEB + "/studies/{study}"
_SERIES = _STUDY + "/series/{series}"
_INSTANCE = _SERIES + "/instances/{instance}"


def create_application(home: Home, *, worker: int = 0) -> web.Application:
    """The application of one worker over an open home; whoever made the home closes it.

    Parameters
    ----------
    home : Home
        Opened in this process.
    worker : int
        Number of this worker, the label of its own figures.
    """
    settings, probe = home.settings, TierProbe(home.tier)
    threads = Threads(settings.web.requests_max)
    home.pool.before_waiting = threads.give_way
    services = Services(
        settings=settings,
        retrieval=Retrieval(home),
        search=Search(home),
        checks=lambda: checks_of(home, probe),
        figures=lambda: figures_of(home, probe),
        threads=threads,
        counters=Counters(counters_folder(settings), f"web-{worker}"),
        audit=open_audit(settings, f"web-{worker}", home.disk),
    )
    return application_of(services)


def application_of(services: Services) -> web.Application:
    """The application over services that are there already."""
    settings = services.settings
    application = web.Application(middlewares=[_Gate(services).middleware])
    application[SERVICES] = services
    viewer = Viewer(settings.node.data / settings.web.viewer, settings.node.name)
    application.add_routes(
        [
            # Tried in this order: what viewers ask most comes first.
            web.get(_INSTANCE + "/frames/{frames}", frames.retrieve_instance_frames),
            web.get(_SERIES + "/metadata", metadata.retrieve_series_metadata),
            web.get(_INSTANCE, retrieve.retrieve_instance),
            web.get(_INSTANCE + "/metadata", metadata.retrieve_instance_metadata),
            web.get(_INSTANCE + "/bulkdata/{path:.+}", bulkdata.retrieve_bulkdata),
            web.get(_INSTANCE + "/instances/{same}/bulkdata/{path:.+}", bulkdata.retrieve_bulkdata),
            web.get(_STUDY + "/instances/{instance}/bulkdata/{path:.+}", bulkdata.retrieve_bulkdata),
            web.get(_SERIES, retrieve.retrieve_series),
            web.get(_STUDY + "/metadata", metadata.retrieve_study_metadata),
            web.get(_STUDY, retrieve.retrieve_study),
            web.get(DICOMWEB + "/studies", search.search_for_studies),
            web.get(_STUDY + "/series", search.search_for_series),
            web.get(_SERIES + "/instances", search.search_for_instances),
            web.get(_STUDY + "/instances", search.search_for_instances),
            web.get(DICOMWEB + "/series", search.search_for_series),
            web.get(DICOMWEB + "/instances", search.search_for_instances),
            web.get("/health", health.health),
            web.get("/ready", health.ready),
            web.get("/metrics", metrics.metrics),
            web.get("/app-config.js", viewer.configuration),
            web.get("/{path:.*}", viewer.file),
        ]
    )
    application.on_response_prepare.append(add_common_headers)
    application.on_cleanup.append(_close)
    return application


async def _close(application: web.Application) -> None:
    await asyncio.to_thread(application[SERVICES].threads.close)
    application[SERVICES].counters.close()
    await asyncio.to_thread(application[SERVICES].audit.close)


class _Gate:
    """Around every request: refuse what is too much, count, and turn errors into answers."""

    def __init__(self, services: Services) -> None:
        self._counters = services.counters
        self._audit = services.audit
        self._requests_max = services.settings.web.requests_max
        self._open = 0

    @property
    def middleware(self) -> Middleware:
        @web.middleware
        async def gate(request: web.Request, handler: Handler) -> web.StreamResponse:
            if request.method == "OPTIONS":
                return preflight()
            if self._open >= self._requests_max and request.match_info.handler not in _NEVER_REFUSED:
                self._counters.add("requests_refused_total")
                self._note(request, _transaction_of(request), 503)
                return problem(503, f"{self._open} requests are being answered already", {"Retry-After": "1"})
            began = time.monotonic()
            self._open += 1
            self._counters.add("requests_open")
            status = CLIENT_GONE
            try:
                response = await self._answer(request, handler)
                status = CLIENT_GONE if request.get(BROKEN_OFF) == "cancelled" else response.status
            finally:
                self._open -= 1
                self._counters.add("requests_open", -1.0)
                transaction = _transaction_of(request)
                self._counters.observe(transaction, status, time.monotonic() - began)
                self._note(request, transaction, status)
            return response

        return gate

    def _note(self, request: web.Request, transaction: str, status: int) -> None:
        if transaction not in _UNCONCERNED:
            self._audit.note(_event_of(request, transaction, status), 0 if request.method == "HEAD" else request.get(INSTANCES, 0))

    async def _answer(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except Exception as error:
            return problem_of(error, request.path)


def _transaction_of(request: web.Request) -> str:
    name = getattr(request.match_info.handler, "__name__", "other")
    if name in ("file", "configuration"):
        return "viewer"
    return name if name in _NAMES else "other"


def _event_of(request: web.Request, transaction: str, status: int) -> Event:
    study = uid_or_empty(request.match_info.get("study") or request.get(STUDY, ""))
    outcome = "cancelled" if status == CLIENT_GONE else request.get(BROKEN_OFF) or ("success" if status < 400 else "failure")
    return Event("", request.remote or "", transaction, study, outcome, str(status))


_NAMES = frozenset(TRANSACTIONS)
_UNCONCERNED = frozenset(("viewer", "other"))
