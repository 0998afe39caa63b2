"""QIDO-RS: studies, series and instances by their attributes (DICOM PS3.18 10.6, 8.3.4)."""

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from archive.dicom.attributes import parse_attribute_path, vr_of
from archive.dicom.json import dumps
from archive.dicom.uid import check_uid
from archive.errors import BadInput
from archive.flow.query import SEARCHABLE, SERIES_INSTANCE_UID, SOP_INSTANCE_UID, STUDY_INSTANCE_UID, Level, Query
from archive.web.metadata import JSON_REPRESENTATIONS
from archive.web.negotiation import accept_of, choose
from archive.web.services import DICOMWEB, INSTANCES, SERVICES, STUDY

Path = tuple[str, ...]

_RETRIEVE_URL = "00081190"

_PAGING = ("limit", "offset")
_SWITCHES = ("fuzzymatching", "emptyvaluematching", "multiplevaluematching")
_NOT_KEYS = frozenset((*_PAGING, *_SWITCHES, "includefield", "accept", "charset"))


async def search_for_studies(request: web.Request) -> web.StreamResponse:
    """`GET /studies`."""
    return await _search(request, "study")


async def search_for_series(request: web.Request) -> web.StreamResponse:
    """`GET /series` and `GET /studies/{study}/series`."""
    return await _search(request, "series")


async def search_for_instances(request: web.Request) -> web.StreamResponse:
    """`GET /instances`, `GET /studies/{study}/instances` and `GET /studies/{study}/series/{series}/instances`."""
    return await _search(request, "instance")


class Asked:
    """A search as its URL says it.

    Parameters
    ----------
    pairs : iterable of (name, value)
        Query parameters in order, decoded.
    limit_max : int
        Most results that one answer may hold.

    Raises
    ------
    BadInput
        A parameter that is no attribute at all, is given twice, or has an ill-formed value.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], limit_max: int) -> None:
        self.keys: dict[Path, str] = {}
        self.ignored: list[str] = []
        self.include: set[str] = set()
        self.everything = False
        self.numbers: dict[str, int] = {}
        self.switches: dict[str, bool] = {}
        for name, value in pairs:
            if name in _PAGING:
                self.numbers[name] = _number(name, value)
            elif name in _SWITCHES:
                self.switches[name] = _switch(name, value)
            elif name == "includefield":
                self._include(value)
            elif name not in _NOT_KEYS:
                self._key(name, value)
        limit = self.numbers.get("limit")
        self.limit = limit_max if limit is None else min(limit, limit_max)
        self.limit_cut = limit is None or limit > limit_max
        self.offset = self.numbers.get("offset", 0)

    def pin(self, tag: str, uid: str) -> None:
        """A UID that the path names; one among the parameters must not say otherwise."""
        asked = self.keys.get((tag,))
        if asked and uid not in asked.replace(",", "\\").split("\\"):
            raise BadInput(f"the path asks for {uid}, the parameter {tag} for {asked}")
        self.keys[(tag,)] = uid

    def _include(self, value: str) -> None:
        for name in filter(None, (item.strip() for item in value.split(","))):
            if name == "all":
                self.everything = True
            else:
                self.include.add(parse_attribute_path(name)[0])

    def _key(self, name: str, value: str) -> None:
        path = parse_attribute_path(name)
        if path[0] not in SEARCHABLE:
            self.ignored.append(name)
        elif path not in self.keys:
            self.keys[path] = value
        elif vr_of(path[-1]) == "UI":
            self.keys[path] += "\\" + value
        else:
            raise BadInput(f"the parameter {name} is given twice")


async def _search(request: web.Request, level: Level) -> web.StreamResponse:
    media_type = choose(accept_of(request), JSON_REPRESENTATIONS).media_type
    services = request.app[SERVICES]
    asked = Asked(request.rel_url.query.items(), services.settings.web.search_limit_max)
    for name, tag in (("study", STUDY_INSTANCE_UID), ("series", SERIES_INSTANCE_UID)):
        if name in request.match_info:
            asked.pin(tag, check_uid(request.match_info[name], f"{name} UID in the path"))
    request[STUDY] = asked.keys.get((STUDY_INSTANCE_UID,), "")
    root = f"{request.scheme}://{request.host}{DICOMWEB}"
    headers = {"Vary": "Accept"}
    warnings = [
        f"The {name} parameter is not supported. Only literal matching has been performed."
        for name in _SWITCHES[1:]
        if asked.switches.get(name)
    ]
    warnings += [f"The attribute {name} is not supported as a key. It has been ignored." for name in asked.ignored]
    rows: list[dict[str, Any]] = []
    if asked.limit > 0:
        query = Query(
            level=level,
            keys=asked.keys,
            include="all" if asked.everything else frozenset(asked.include),
            limit=asked.limit,
            offset=asked.offset,
            fuzzy=asked.switches.get("fuzzymatching", False),
        )
        answer = await services.threads.search(lambda: services.search.search(query))
        rows = answer.rows
        request[INSTANCES] = len(rows)
        if answer.more and asked.limit_cut:
            warnings.append("There are additional results that can be requested with a larger offset.")
    if warnings:
        headers["Warning"] = ", ".join(f'299 {root}: "{text}"' for text in warnings)
    if not rows:
        return web.Response(status=204, headers=headers)
    body = await services.threads.search(lambda: dumps([_with_retrieve_url(row, root, level) for row in rows]))
    return web.Response(body=body, content_type=media_type, headers=headers)


def _with_retrieve_url(row: dict[str, Any], root: str, level: Level) -> dict[str, Any]:
    """The row in the order of its tags, with where to retrieve what it stands for (DICOM PS3.18 10.6.3.3)."""
    url = f"{root}/studies/{row[STUDY_INSTANCE_UID]['Value'][0]}"
    if level != "study":
        url += f"/series/{row[SERIES_INSTANCE_UID]['Value'][0]}"
    if level == "instance":
        url += f"/instances/{row[SOP_INSTANCE_UID]['Value'][0]}"
    return dict(sorted({**row, _RETRIEVE_URL: {"vr": "UR", "Value": [url]}}.items()))


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdecimal() and len(value) <= 12):
        raise BadInput(f"{name}={value[:40]!r} is no whole number")
    return int(value)


def _switch(name: str, value: str) -> bool:
    if value.lower() not in ("true", "false"):
        raise BadInput(f"{name}={value[:40]!r} is neither true nor false")
    return value.lower() == "true"
