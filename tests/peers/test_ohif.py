"""OHIF in a real browser: the study list names the patients, a series of each kind is drawn into a canvas."""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydicom.data import get_testdata_file

from tests.hdfs import Hdfs
from tests.kit import ROOT, Node, is_missing, make_series, require
from tests.peers import dcmtk

WAIT_MILLISECONDS = 60_000
SAMPLES = ["examples_jpeg2k.dcm", "examples_ybr_color.dcm", "MR_small_RLE.dcm", "JPEG-LL.dcm", "examples_overlay.dcm"]
SCREENSHOTS = ROOT / ".cache" / "screenshots"
FLAGS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-sync",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-pings",
]


@pytest.fixture(scope="module")
def viewer() -> Path:
    """The built viewer; `scripts/test` has fetched it where npm is there."""
    named = os.environ.get("DICOM_ARCHIVE_WEB_VIEWER")
    if named:
        return Path(named)
    versions = sorted((ROOT / ".cache" / "viewer").glob("*/index.html"))
    if not versions:
        is_missing("scripts/viewer has not fetched OHIF")
    return versions[-1].parent


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = require("chromium")
    manager = sync_playwright()
    try:
        playwright = manager.start()
    except Exception as error:  # it says no more than that its connection closed
        is_missing(f"playwright's driver does not start ({error}); Debian: apt-get install libatomic1")
    browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
    yield browser
    browser.close()
    playwright.stop()


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
    yield context.new_page()
    context.close()


@pytest.fixture(scope="module")
def series() -> list[pydicom.Dataset]:
    return make_series(5, PatientName="Lovelace^Ada", PatientID="P1", StudyDate="20260101")


@pytest.fixture(scope="module")
def node(viewer: Path, series: list[pydicom.Dataset], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with OHIF that holds the series and the samples, all accepted, none packed before it is told to."""
    folder = tmp_path_factory.mktemp("ohif")
    node = Node(folder / "data", {"DICOM_ARCHIVE_WEB_VIEWER": str(viewer), "DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"})
    node.start()
    for data_set in series:
        data_set.save_as(folder / f"{data_set.SOPInstanceUID}.dcm")
    dcmtk.send_with_dcmsend(node.dimse_port, {"": [*folder.glob("*.dcm"), *map(sample, SAMPLES)]})
    yield node
    node.kill()


def sample(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


def shades(picture: bytes) -> int:
    """How many grey values take up at least a thousandth of the picture's middle: an empty viewport has one or two."""
    grey = np.asarray(Image.open(io.BytesIO(picture)).convert("L"))
    height, width = grey.shape
    middle = grey[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    return int((np.bincount(middle.ravel(), minlength=256) > middle.size / 1000).sum())


def draw(page: Page, node: Node, study_instance_uid: str, screenshot: str) -> bytes:
    """Open a study and wait until its first viewport shows more than a plain ground."""
    page.goto(f"{node.http_url}/viewer?StudyInstanceUIDs={study_instance_uid}")
    canvas = page.locator("canvas.cornerstone-canvas").first
    expect(canvas).to_be_visible(timeout=WAIT_MILLISECONDS)
    picture = b""
    for _ in range(WAIT_MILLISECONDS // 500):
        picture = canvas.screenshot()
        if shades(picture) > 20:
            break
        page.wait_for_timeout(500)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / screenshot)
    return picture


@pytest.mark.timeout(300)
def test_study_list_shows_the_patients(page: Page, node: Node) -> None:
    page.goto(node.http_url)
    for shown in ("Lovelace, Ada", "CompressedSamples, US1"):
        expect(page.get_by_text(shown).first).to_be_visible(timeout=WAIT_MILLISECONDS)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "ohif-study-list.png")


@pytest.mark.timeout(300)
def test_a_series_is_drawn_while_it_waits_in_the_journal(page: Page, node: Node, series: list[pydicom.Dataset]) -> None:
    assert shades(draw(page, node, series[0].StudyInstanceUID, "ohif-accepted.png")) > 20


@pytest.fixture(scope="module")
def packed_node(node: Node) -> Node:
    node.cli("pack", "--now")
    return node


@pytest.mark.timeout(300)
def test_a_series_is_drawn_from_its_pack(page: Page, packed_node: Node, series: list[pydicom.Dataset]) -> None:
    assert shades(draw(page, packed_node, series[0].StudyInstanceUID, "ohif-packed.png")) > 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SAMPLES)
def test_compressed_and_multi_frame_images_are_drawn(page: Page, packed_node: Node, name: str) -> None:
    data_set = pydicom.dcmread(sample(name), stop_before_pixels=True)
    assert shades(draw(page, packed_node, data_set.StudyInstanceUID, f"ohif-{Path(name).stem}.png")) > 10


@pytest.mark.timeout(300)
def test_a_series_is_drawn_that_rests_in_hdfs_and_of_which_nothing_is_near(
    page: Page, viewer: Path, series: list[pydicom.Dataset], hdfs: Hdfs, start_node: Callable[..., Node], tmp_path: Path
) -> None:
    settings = {"DICOM_ARCHIVE_WEB_VIEWER": str(viewer), "DICOM_ARCHIVE_NODE_TIER": hdfs.url("/ohif")}
    node = start_node(settings=settings)
    for data_set in series:
        data_set.save_as(tmp_path / f"{data_set.SOPInstanceUID}.dcm")
    dcmtk.send_with_dcmsend(node.dimse_port, {"": list(tmp_path.glob("*.dcm"))})
    node.cli("pack", "--now")
    assert [name.endswith(".zip") for name in hdfs.files("/ohif")] == [True]
    node.stop()
    shutil.rmtree(node.data / "pool")
    node.start()
    assert not list((node.data / "pool").rglob("*-*"))
    assert shades(draw(page, node, series[0].StudyInstanceUID, "ohif-hdfs.png")) > 20
    came = sum(path.stat().st_size for path in (node.data / "pool").rglob("*-*"))
    assert came >= sum(len(data_set.PixelData) for data_set in series)


def test_shades_tells_an_image_from_a_plain_ground() -> None:
    def png(pixels: Any) -> bytes:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return file.getvalue()

    assert shades(png(np.zeros((100, 100), np.uint8))) == 1
    assert shades(png(np.arange(10000, dtype=np.uint8).reshape(100, 100))) > 20


def test_the_browser_reaches_nothing_but_this_machine(page: Page) -> None:
    with pytest.raises(Exception, match="ERR_NAME_NOT_RESOLVED"):
        page.goto("http://example.org/")
