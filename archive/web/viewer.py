"""OHIF at `/`: the built viewer's files, our own configuration for it, and a plain page where it is not installed.

Only files found in the folder when the worker started are served, each under its own path, so no path leads out of it.
"""

import html
import json
import logging
import mimetypes
import os
import re
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from archive.web.errors import problem
from archive.web.services import DICOMWEB

FILES_MAX = 50_000

# A volume is shared between the viewer's worker threads only where the page is isolated from other origins.
ISOLATION = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}
ALWAYS_FRESH = {"Cache-Control": "no-cache"}
NEVER_CHANGES = {"Cache-Control": "public, max-age=31536000, immutable"}

_HASHED = re.compile(r"\.[0-9a-f]{8,}\.")
_COMPRESSED = (".gz", ".br")

log = logging.getLogger(__name__)

VIEWER_CONFIGURATION = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "customizationService": {},
    "showStudyList": True,
    "maxNumberOfWebWorkers": 3,
    "showWarningMessageForCrossOrigin": True,
    "showCPUFallbackMessage": True,
    "showLoadingIndicator": True,
    "strictZSpacingForVolumeViewport": True,
    "groupEnabledModesFirst": True,
    "maxNumRequests": {"interaction": 100, "thumbnail": 75, "prefetch": 25},
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "DICOM archive",
                "name": "archive",
                "wadoUriRoot": DICOMWEB,
                "qidoRoot": DICOMWEB,
                "wadoRoot": DICOMWEB,
                "qidoSupportsIncludeField": True,
                "supportsReject": False,
                "supportsStow": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "staticWado": True,
                "singlepart": "bulkdata,video,pdf",
                "bulkDataURI": {"enabled": True, "relativeResolution": "series"},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}
"""What OHIF reads from `/app-config.js`; same-origin, so it works under whatever name the archive is reached."""

_CONFIGURATION_TEXT = f"window.config = {json.dumps(VIEWER_CONFIGURATION, indent=2)};\n"

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>DICOM archive</title>
<style>
body {{ font: 16px/1.5 sans-serif; max-width: 42rem; margin: 4rem auto; padding: 0 1rem }}
code {{ background: #eee; padding: 0 .2rem }}
</style>
</head><body>
<h1>DICOM archive {name}</h1>
<p>This is an archive node. It answers DICOMweb under <a href="{dicomweb}/studies"><code>{dicomweb}</code></a>;
see also <a href="/health">/health</a>, <a href="/ready">/ready</a> and <a href="/metrics">/metrics</a>.</p>
<p>The OHIF viewer is not installed on this node. <code>scripts/run</code> fetches it from npm; by hand, unpack the folder
<code>dist/</code> of the package <code>@ohif/app</code> to <code>{folder}</code> and start the node again.</p>
</body></html>
"""


@dataclass(frozen=True, slots=True)
class ViewerFile:
    """One file of the viewer, ready to be served."""

    path: Path
    content_type: str
    headers: dict[str, str]


class Viewer:
    """The viewer's files by URL path.

    Parameters
    ----------
    folder : Path
        Of the built viewer; it may be absent.
    node_name : str
        For the page that stands in for it.
    """

    def __init__(self, folder: Path, node_name: str) -> None:
        self._files = _files_of(folder)
        self._page = _PAGE.format(name=html.escape(node_name), dicomweb=DICOMWEB, folder=html.escape(str(folder)))

    @property
    def installed(self) -> bool:
        """Whether there is a viewer."""
        return "index.html" in self._files

    async def configuration(self, request: web.Request) -> web.StreamResponse:
        """`GET /app-config.js`."""
        headers = ALWAYS_FRESH | ISOLATION | {"Cross-Origin-Resource-Policy": "same-origin"}
        return web.Response(text=_CONFIGURATION_TEXT, content_type="application/javascript", headers=headers)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """`GET /...`: a file of the viewer, or its page for routes that are its own (`/viewer?StudyInstanceUIDs=...`)."""
        path = request.match_info["path"]
        if not self.installed:
            if path in ("", "index.html"):
                return web.Response(text=self._page, content_type="text/html", headers=ALWAYS_FRESH)
            return problem(404, f"nothing is served at {request.path}")
        found = self._files.get(path or "index.html")
        if found is None:
            if "." in path.rpartition("/")[2] or path.split("/")[0] in ("dicomweb", "console"):
                return problem(404, f"nothing is served at {request.path}")
            found = self._files["index.html"]
        return web.FileResponse(found.path, headers=found.headers | {"Content-Type": found.content_type})


def _files_of(folder: Path) -> dict[str, ViewerFile]:
    """Regular files below the folder by their path in it; symbolic links are not followed."""
    found: dict[str, ViewerFile] = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            # aiohttp sends a file's compressed twin by itself where the client takes it.
            if path.is_symlink() or not path.is_file() or (path.suffix in _COMPRESSED and path.with_suffix("").exists()):
                continue
            if len(found) >= FILES_MAX:
                log.warning("%s holds more than %d files: the rest is not served", folder, FILES_MAX)
                return found
            content_type = mimetypes.guess_type(name)[0] or "application/octet-stream"
            cache = NEVER_CHANGES if _HASHED.search(name) else ALWAYS_FRESH
            headers = cache | ISOLATION | {"Cross-Origin-Resource-Policy": "same-origin"}
            found[path.relative_to(folder).as_posix()] = ViewerFile(path, content_type, headers)
    return found
