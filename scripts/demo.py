"""Starts a node, sends it sample studies by C-STORE, packs them, and names the viewer's address; stays until Ctrl-C.

The studies are files that the packages pydicom and pydicom-data ship: CT, MR, CR, NM and ultrasound, single and multi-frame, native and
compressed. A second run sends the same again, which the node answers with success and keeps once.
"""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import data_store
import pydicom
from pynetdicom import AE, _config

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).parent / "dicom-archive"
FOLDERS = [Path(pydicom.__file__).parent / "data" / "test_files", Path(data_store.__file__).parent / "data"]
SAMPLES = [
    "693_UNCI.dcm",  # CT
    "explicit_VR-UN.dcm",  # CT, JPEG 2000
    "CT_small.dcm",
    "eCT_Supplemental.dcm",  # enhanced CT, 2 frames
    "examples_overlay.dcm",  # MR
    "emri_small.dcm",  # enhanced MR, 10 frames
    "MR2_J2KR.dcm",  # MR, JPEG 2000
    "RG3_J2KR.dcm",  # CR, JPEG 2000
    "JPEG2000.dcm",  # NM
    "examples_jpeg2k.dcm",  # ultrasound, JPEG 2000
    "color3d_jpeg_baseline.dcm",  # ultrasound, 120 frames, JPEG
    "JPGLosslessP14SV1_1s_1f_8b.dcm",  # ultrasound, JPEG lossless
    "dicomdirtests/98892003/*/*",  # three MR studies of one patient, thumbnails of 16 x 16
]


def sample_paths() -> Iterator[Path]:
    for pattern in SAMPLES:
        found = [path for folder in FOLDERS for path in sorted(folder.glob(pattern)) if path.is_file()]
        if not found:
            raise FileNotFoundError(f"the packages pydicom and pydicom-data hold no {pattern}")
        yield from found


def send(paths: list[Path], host: str, port: int, called_ae_title: str) -> None:
    """C-STORE of each file, its data set as it lies.

    Raises
    ------
    RuntimeError
        The node does not associate, or refuses an object.
    """
    _config.STORE_SEND_CHUNKED_DATASET = True  # otherwise pynetdicom decodes and encodes again
    ae = AE("DEMO")
    metas = {path: pydicom.filereader.read_file_meta_info(path) for path in paths}
    for sop_class_uid, transfer_syntax_uid in sorted({(meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID) for meta in metas.values()}):
        ae.add_requested_context(sop_class_uid, transfer_syntax_uid)
    ae.dimse_timeout = 10
    left, unanswered = list(paths), 0
    while left:
        association = ae.associate(host, port, ae_title=called_ae_title)
        if not association.is_established:
            raise RuntimeError(f"the node at {host}:{port} takes no association; its log above says why")
        try:
            while left:
                status = association.send_c_store(left[0])
                if "Status" not in status:
                    # On a busy machine pynetdicom may lose an answer; sent again, the object is the same.
                    unanswered += 1
                    if unanswered > 3:
                        raise RuntimeError(f"{left[0].name}: no answer")
                    break
                if status.Status != 0x0000:
                    raise RuntimeError(f"{left[0].name}: C-STORE answered {status.Status:#06x}")
                left.pop(0)
        finally:
            association.release()


def studies(dicomweb_url: str) -> list[dict[str, str]]:
    """Patient, date, modalities and number of instances of each study, by QIDO-RS."""
    with urllib.request.urlopen(f"{dicomweb_url}/studies?limit=1000&includefield=00081030", timeout=30) as response:
        found = json.load(response)

    def text(study: dict[str, dict[str, list[object]]], tag: str) -> str:
        values = study.get(tag, {}).get("Value", [])
        return "/".join(str(value.get("Alphabetic", "")) if isinstance(value, dict) else str(value) for value in values)

    tags = {"uid": "0020000D", "patient": "00100010", "date": "00080020", "modalities": "00080061", "instances": "00201208"}
    return [{name: text(study, tag) for name, tag in tags.items()} for study in found]


def option(arguments: list[str], name: str, default: str) -> str:
    """Value of an option of `serve` that this program needs too."""
    for at, argument in enumerate(arguments):
        if argument == name and at + 1 < len(arguments):
            return arguments[at + 1]
        if argument.startswith(f"{name}="):
            return argument.partition("=")[2]
    return default


def main(arguments: list[str]) -> int:
    os.chdir(ROOT)
    node = subprocess.Popen([str(PROGRAM), "serve", *arguments], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert node.stdout is not None
    try:
        ready = next((line for line in node.stdout if line.startswith("ready ")), None)
        if ready is None:
            return node.wait() or 1  # it has said why
        words = dict(word.split("=", 1) for word in ready.split()[1:])
        host, _, port = words["dimse"].rpartition(":")
        paths = list(sample_paths())
        print(f"sending {len(paths)} objects by C-STORE to {words['dimse']}", flush=True)
        send(paths, host, int(port), option(arguments, "--ae-title", os.environ.get("DICOM_ARCHIVE_DIMSE_AE_TITLE", "ARCHIVE")))
        shared = [part for name in ("--config", "--data", "--tier") if (value := option(arguments, name, "")) for part in (name, value)]
        subprocess.run([str(PROGRAM), "pack", "--now", *shared], check=True, stdout=subprocess.DEVNULL)
        found = studies(f"{words['http']}/dicomweb")
        print(f"packed; the archive holds {len(found)} studies:")
        for study in sorted(found, key=lambda study: study["patient"]):
            print(f"  {study['patient']:24} {study['date']:10} {study['modalities']:8} {study['instances']:>4} instances")
        print(f"\nOpen {words['http']}/ in a browser. Ctrl-C stops the node.", flush=True)
        return node.wait()
    except KeyboardInterrupt:
        return 0
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        print(f"scripts/demo: {error}", file=sys.stderr)
        return 1
    finally:
        if node.poll() is None:
            node.send_signal(signal.SIGTERM)
            node.wait()


if __name__ == "__main__":
    # A shell that starts this in the background has SIGINT ignored.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    sys.exit(main(sys.argv[1:]))
