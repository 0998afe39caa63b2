"""OHIF at the root, and what stands there without it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.web.conftest import Site


@pytest.fixture
def viewer_site(tmp_path: Path, start_site: Callable[..., Site]) -> Site:
    folder = tmp_path / "viewer"
    (folder / "assets").mkdir(parents=True)
    (folder / "index.html").write_text("<html>OHIF</html>")
    (folder / "app-config.js").write_text("the one from the package")
    (folder / "app.bundle.0123456789abcdef.js").write_text("hashed")
    (folder / "app.bundle.0123456789abcdef.js.gz").write_bytes(b"packed")
    (folder / "assets" / "codec.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    (folder / "outside").symlink_to(tmp_path)
    return start_site()


def test_without_the_viewer(site: Site) -> None:
    answer = site.get("/")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert b"/dicomweb" in answer.body and b"@ohif/app" in answer.body
    assert site.get("/viewer?StudyInstanceUIDs=1.2.3").status == 404


@pytest.mark.parametrize("path", ["/", "/index.html", "/viewer?StudyInstanceUIDs=1.2.3", "/segmentation/x"])
def test_the_page_and_its_own_routes(viewer_site: Site, path: str) -> None:
    answer = viewer_site.get(path)
    assert (answer.status, answer.body) == (200, b"<html>OHIF</html>")
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.headers["content-type"] == "text/html"


def test_files(viewer_site: Site) -> None:
    script = viewer_site.get("/app.bundle.0123456789abcdef.js")
    assert (script.body, script.headers["cache-control"]) == (b"hashed", "public, max-age=31536000, immutable")
    assert "javascript" in script.headers["content-type"]
    assert viewer_site.get("/assets/codec.wasm").headers["content-type"] == "application/wasm"
    assert viewer_site.get("/assets/codec.wasm", method="HEAD").headers["content-length"] == "4"
    packed = viewer_site.get("/app.bundle.0123456789abcdef.js", headers={"Accept-Encoding": "gzip"})
    assert (packed.body, packed.headers["content-encoding"]) == (b"packed", "gzip")


def test_our_own_configuration(viewer_site: Site) -> None:
    answer = viewer_site.get("/app-config.js")
    assert "javascript" in answer.headers["content-type"]
    text = answer.body.decode().removeprefix("window.config = ").rstrip().removesuffix(";")
    configuration = json.loads(text)
    (source,) = configuration["dataSources"]
    assert configuration["routerBasename"] == "/"
    assert configuration["defaultDataSourceName"] == source["sourceName"]
    assert {source["configuration"][key] for key in ("qidoRoot", "wadoRoot", "wadoUriRoot")} == {"/dicomweb"}
    assert source["configuration"]["bulkDataURI"] == {"enabled": True, "relativeResolution": "series"}


@pytest.mark.parametrize(
    "path",
    [
        "/missing.js",
        "/assets/missing.js",
        "/link.txt",
        "/outside/secret.txt",
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/../../secret.txt",
        "//etc/passwd.txt",
        "/dicomweb",
        "/console",
    ],
)
def test_nothing_else_is_served(viewer_site: Site, path: str) -> None:
    answer = viewer_site.get(path)
    assert answer.status == 404
    assert b"secret" not in answer.body.replace(b"secret.txt", b"")
