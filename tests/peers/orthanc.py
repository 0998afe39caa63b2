"""Debian's Orthanc as a peer: told what to do over its REST interface, with one remote modality, the archive."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError

from tests.kit import free_port, require

START_SECONDS_MAX = 30.0


@dataclass
class Orthanc:
    """A running one.

    Attributes
    ----------
    dicom_port, http_port : int
        Where it listens; its title is ORTHANC.
    """

    dicom_port: int
    http_port: int

    def ask(self, path: str, body: object = None, method: str = "") -> Any:
        """What it answers, as JSON values."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}{path}", data, method=method or ("POST" if data else "GET"))
        with urllib.request.urlopen(request, timeout=60) as response:
            return json.loads(response.read())

    def knows(self, archive_port: int) -> None:
        """Tell it where the archive is."""
        row = {"AET": "ARCHIVE", "Host": "127.0.0.1", "Port": archive_port, "AllowStorageCommitment": True}
        request = urllib.request.Request(f"http://127.0.0.1:{self.http_port}/modalities/archive", json.dumps(row).encode(), method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    def sop_instance_uids(self) -> set[str]:
        """Of everything it holds."""
        return {one["MainDicomTags"]["SOPInstanceUID"] for one in self.ask("/instances?expand")}


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """An empty Orthanc."""
    folder.mkdir()
    peer = Orthanc(free_port(), free_port())
    settings = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "DicomAet": "ORTHANC",
        "DicomPort": peer.dicom_port,
        "HttpPort": peer.http_port,
        "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True,
        "UnknownSopClassAccepted": True,
        "Plugins": [],
    }
    configuration = folder / "orthanc.json"
    configuration.write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([require("Orthanc"), str(configuration)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_SECONDS_MAX
        while True:
            try:
                peer.ask("/system")
                break
            except (URLError, ConnectionError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
        yield peer
    finally:
        process.terminate()
        process.wait(20)
        print((folder / "log").read_text(errors="replace")[-3000:])
