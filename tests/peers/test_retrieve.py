"""C-MOVE and C-GET with DCMTK's programs: what came goes out byte for byte, or written anew for who takes no other transfer syntax."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.kit import Node, free_port, sample_files
from tests.peers import dcmtk
from tests.peers.test_roundtrip import fits

IMPLICIT = "1.2.840.10008.1.2"
NOT_DECODABLE = {"JPEG-lossy.dcm", "JPGExtended.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "MR_truncated.dcm"} | {
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "rtplan_truncated.dcm",
}


@pytest.fixture(scope="module")
def samples() -> dict[str, pydicom.FileDataset]:
    """One sample for each SOP Instance UID."""
    logging.getLogger("pydicom").setLevel(logging.ERROR)
    chosen: dict[str, pydicom.FileDataset] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in sample_files():
            data_set = pydicom.dcmread(path)
            if fits(data_set):
                chosen.setdefault(str(data_set.SOPInstanceUID), data_set)
    return chosen


@pytest.fixture
def sink() -> int:
    return free_port()


@pytest.fixture
def node(start_node: Callable[..., Node], samples: dict[str, pydicom.FileDataset], sink: int) -> Iterator[Node]:
    """A node that holds every sample, half of them packed."""
    groups: dict[str, list[Path]] = {}
    for data_set in samples.values():
        groups.setdefault(str(data_set.file_meta.TransferSyntaxUID), []).append(Path(str(data_set.filename)))
    settings = {"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"}
    one = start_node(settings=settings, arguments=["--peer", f"SINK=127.0.0.1:{sink}"])
    syntaxes = sorted(groups)
    dcmtk.send_with_dcmsend(one.dimse_port, {uid: groups[uid] for uid in syntaxes[::2]})
    one.cli("pack", "--now")
    dcmtk.send_with_dcmsend(one.dimse_port, {uid: groups[uid] for uid in syntaxes[1::2]})
    yield one


@pytest.fixture
def witnessed(samples: dict[str, pydicom.FileDataset], tmp_path: Path) -> dict[str, bytes]:
    """The data sets that DCMTK's sender puts on the wire, which are not those of the files."""
    groups: dict[str, list[Path]] = {}
    for data_set in samples.values():
        groups.setdefault(str(data_set.file_meta.TransferSyntaxUID), []).append(Path(str(data_set.filename)))
    with dcmtk.storescp(tmp_path / "witness") as port:
        dcmtk.send_with_dcmsend(port, groups)
    return dcmtk.received_data_sets(tmp_path / "witness")


def studies(samples: dict[str, pydicom.FileDataset]) -> str:
    return "StudyInstanceUID=" + "\\".join(sorted({str(one.StudyInstanceUID) for one in samples.values()}))


def test_movescu_and_a_storescp_that_takes_everything(
    node: Node, samples: dict[str, pydicom.FileDataset], witnessed: dict[str, bytes], sink: int, tmp_path: Path
) -> None:
    with dcmtk.storescp(tmp_path / "sink", port=sink):
        done = dcmtk.move(node.dimse_port, "SINK", "QueryRetrieveLevel=STUDY", studies(samples), options=["-S"])
    assert done.returncode == 0, done.stdout + done.stderr
    assert dcmtk.received_data_sets(tmp_path / "sink") == witnessed


def test_movescu_and_a_storescp_that_takes_implicit_vr_alone(
    node: Node, samples: dict[str, pydicom.FileDataset], sink: int, tmp_path: Path
) -> None:
    with dcmtk.storescp(tmp_path / "sink", "+xi", port=sink):
        dcmtk.move(node.dimse_port, "SINK", "QueryRetrieveLevel=STUDY", studies(samples), options=["-S"])
    received = dcmtk.received_data_sets(tmp_path / "sink")
    missing = {Path(str(samples[uid].filename)).name for uid in samples.keys() - received.keys()}
    assert missing <= NOT_DECODABLE
    for name in missing:
        assert re.search("sub-operation failed: .*: .*(cannot be decoded|cut off|codestream)", node.log()), name
    compared = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for path in (tmp_path / "sink").iterdir():
            ours = pydicom.dcmread(path)
            theirs = samples[str(ours.SOPInstanceUID)]
            assert ours.file_meta.TransferSyntaxUID == IMPLICIT
            if "PixelData" in theirs and Path(str(theirs.filename)).name not in NOT_DECODABLE:
                try:
                    pixels = theirs.pixel_array
                except (AttributeError, ValueError, RuntimeError, NotImplementedError):
                    continue
                assert np.array_equal(ours.pixel_array, pixels), theirs.filename
                compared += 1
    assert compared > 60


def test_movescu_receives_by_itself_at_every_level(
    start_node: Callable[..., Node], samples: dict[str, pydicom.FileDataset], tmp_path: Path
) -> None:
    port = free_port()
    node = start_node(arguments=["--peer", f"MOVESCU=127.0.0.1:{port}"])
    chosen = [one for one in samples.values() if str(one.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.1"][:6]
    dcmtk.send_with_dcmsend(node.dimse_port, {"1.2.840.10008.1.2.1": [Path(str(one.filename)) for one in chosen]})
    one = chosen[0]
    above = [f"StudyInstanceUID={one.StudyInstanceUID}", f"SeriesInstanceUID={one.SeriesInstanceUID}"]
    wanted = {
        "STUDY": (above[:1], {str(x.SOPInstanceUID) for x in chosen if x.StudyInstanceUID == one.StudyInstanceUID}),
        "SERIES": (above, {str(x.SOPInstanceUID) for x in chosen if x.SeriesInstanceUID == one.SeriesInstanceUID}),
        "IMAGE": ([*above, f"SOPInstanceUID={one.SOPInstanceUID}"], {str(one.SOPInstanceUID)}),
    }
    for level, (keys, uids) in wanted.items():
        folder = tmp_path / level
        folder.mkdir()
        options = ["-S", "+P", str(port), "-od", str(folder)]
        done = dcmtk.move(node.dimse_port, "MOVESCU", f"QueryRetrieveLevel={level}", *keys, options=options)
        assert done.returncode == 0, done.stdout + done.stderr
        assert dcmtk.received_data_sets(folder).keys() == uids
        done = dcmtk.get(node.dimse_port, tmp_path / f"get-{level}", f"QueryRetrieveLevel={level}", *keys, options=["-S"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert dcmtk.received_data_sets(tmp_path / f"get-{level}").keys() == uids


def test_getscu_gets_what_it_takes(
    node: Node, samples: dict[str, pydicom.FileDataset], witnessed: dict[str, bytes], tmp_path: Path
) -> None:
    done = dcmtk.get(node.dimse_port, tmp_path / "got", "QueryRetrieveLevel=STUDY", studies(samples), options=["-S"])
    received = dcmtk.received_data_sets(tmp_path / "got")
    assert received, done.stdout + done.stderr
    same = [uid for uid, data in received.items() if data == witnessed[uid]]
    explicit = {uid for uid, one in samples.items() if str(one.file_meta.TransferSyntaxUID) == "1.2.840.10008.1.2.1"}
    # getscu proposes a context for a part of the SOP classes alone, each for uncompressed transfer syntaxes.
    assert {uid for uid in received if uid in explicit} <= set(same)
    missing = {Path(str(samples[uid].filename)).name for uid in samples.keys() - received.keys()}
    log = node.log()
    assert all(name in NOT_DECODABLE or "accepted no presentation context" in log for name in missing)


def test_unknown_destination(node: Node, samples: dict[str, pydicom.FileDataset]) -> None:
    done = dcmtk.move(node.dimse_port, "NOBODY", "QueryRetrieveLevel=STUDY", studies(samples), options=["-S"])
    assert done.returncode != 0 and "MoveDestinationUnknown" in done.stderr
