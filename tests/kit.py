"""What tests of several rooms share: ports, programs, a running node, series to send."""

import os
import random
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from email.message import Message
from io import BytesIO
from pathlib import Path
from typing import NoReturn

import data_store
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from archive.flow.audit import Audit, Event

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = Path(sys.executable).parent / "dicom-archive"
LOWEST_PORT, HIGHEST_PORT = 20000, 32000  # below the ephemeral range, where outgoing connections take theirs


class Noted(Audit):
    """Keeps the events that it is told of."""

    def __init__(self) -> None:
        super().__init__(None)
        self.events: list[tuple[Event, int]] = []

    def note(self, event: Event, instances: int) -> None:
        self.events.append((event, instances))


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    for _ in range(200):
        port = random.SystemRandom().randint(LOWEST_PORT, HIGHEST_PORT)
        with closing(socket.socket()) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port between {LOWEST_PORT} and {HIGHEST_PORT}")


def is_missing(what: str) -> NoReturn:
    """Skip the test because `what` is not here; fail it where everything has to be (DICOM_ARCHIVE_REQUIRE_ALL=1)."""
    if os.environ.get("DICOM_ARCHIVE_REQUIRE_ALL") == "1":
        pytest.fail(f"{what}, and DICOM_ARCHIVE_REQUIRE_ALL=1 allows no skipping")
    pytest.skip(what)


def find_program(program: str) -> str | None:
    """Path of a program outside of the project.

    Programs of .venv are not meant: pynetdicom puts an `echoscu` and a `storescu` of its own there.
    """
    folders = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if Path(folder) != PROGRAM.parent]
    return shutil.which(program, path=os.pathsep.join([*folders, "/usr/sbin", "/usr/local/sbin"]))


def require(program: str) -> str:
    """As `find_program`; skips the test (or fails it, in CI) without the program."""
    found = find_program(program)
    if found is None:
        is_missing(f"{program} is not installed")
    return found


@dataclass
class Node:
    """A `dicom-archive serve` over one data directory, with ports of its own.

    Attributes
    ----------
    data : Path
        The data directory.
    settings : dict of str
        Environment variables of settings, `{"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "0.5"}`.
    arguments : list of str
        Further arguments of `serve`.
    """

    data: Path
    settings: dict[str, str] = field(default_factory=dict)
    arguments: list[str] = field(default_factory=list)
    ae_title: str = "ARCHIVE"
    host: str = "127.0.0.1"
    dimse_port: int = 0
    http_port: int = 0
    process: subprocess.Popen[str] | None = None

    @property
    def http_url(self) -> str:
        return f"http://{self.host}:{self.http_port}"

    @property
    def dicomweb_url(self) -> str:
        return f"{self.http_url}/dicomweb"

    @property
    def log_file(self) -> Path:
        return self.data.with_name(self.data.name + ".log")

    def log(self) -> str:
        """What the node wrote to stderr."""
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("DICOM_ARCHIVE_")}
        return kept | self.settings

    def start(self, wait_seconds: float = 90.0) -> "Node":
        """Start it and wait for its `ready` line."""
        assert self.process is None, "the node runs already"
        self.dimse_port = self.dimse_port or free_port()
        self.http_port = self.http_port or free_port()
        command = [str(PROGRAM), "serve", "--data", str(self.data), "--host", self.host, "--dimse-port", str(self.dimse_port)]
        command += ["--http-port", str(self.http_port), *self.arguments]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.log_file.open("a") as log:
            # A session of its own: a signal to the group reaches every worker and nothing of the test run.
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self.environment(),
                start_new_session=True,
            )
        assert self.process.stdout is not None
        waiting_until = time.monotonic() + wait_seconds
        output = self.process.stdout.fileno()
        said = ""
        while not any(line.startswith("ready ") for line in said.splitlines()):
            readable, _, _ = select.select([output], [], [], 0.1)
            piece = os.read(output, 65536).decode() if readable else ""
            said += piece
            if (readable and not piece) or time.monotonic() > waiting_until:
                self.kill()
                raise AssertionError(f"the node did not become ready; stdout: {said!r}; stderr:\n{self.log()}")
        words = dict(word.split("=", 1) for word in said.splitlines()[-1].split()[1:])
        assert words == {"dimse": f"{self.host}:{self.dimse_port}", "http": self.http_url}
        return self

    def stop(self, wait_seconds: float = 30.0) -> int:
        """Stop it as an operator does (SIGTERM); its exit code."""
        assert self.process is not None, "the node does not run"
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(wait_seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the node did not stop within {wait_seconds} s; stderr:\n{self.log()}") from None
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it and all its workers (SIGKILL), as a power cut does."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def cli(self, *arguments: str, exit_code: int | None = 0, timeout_seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a verb over the same data directory; `exit_code` None allows every one."""
        verb, *rest = arguments
        done = subprocess.run(
            [str(PROGRAM), verb, "--data", str(self.data), *rest],
            capture_output=True,
            text=True,
            env=self.environment(),
            timeout=timeout_seconds,
            stdin=subprocess.DEVNULL,
        )
        if exit_code is not None and done.returncode != exit_code:
            raise AssertionError(f"dicom-archive {' '.join(arguments)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        return done


def make_series(count: int = 3, **attributes: object) -> list[pydicom.Dataset]:
    """A new CT series, from pydicom's CT_small, of a study of its own.

    Parameters
    ----------
    count : int
        Number of instances; InstanceNumber runs from 1.
    **attributes
        Values by keyword that every instance gets, `PatientID="P1"`.
    """
    study, series = generate_uid(), generate_uid()
    made: list[pydicom.Dataset] = []
    for number in range(1, count + 1):
        data_set = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
        data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.SOPInstanceUID = study, series, generate_uid()
        data_set.InstanceNumber = number
        rows = (number - 1) * data_set.Columns * 2 % len(data_set.PixelData)
        data_set.PixelData = data_set.PixelData[rows:] + data_set.PixelData[:rows]  # each a row further up
        data_set.ImagePositionPatient = [*data_set.ImagePositionPatient[:2], -75.7 + 5 * number]
        for keyword, value in attributes.items():
            setattr(data_set, keyword, value)
        data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
        data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID
        made.append(data_set)
    return made


def part10_bytes(data_set: pydicom.Dataset) -> bytes:
    """The data set as a Part 10 file."""
    file = BytesIO()
    data_set.save_as(file, enforce_file_format=True)
    return file.getvalue()


def data_set_bytes(data_set: pydicom.Dataset) -> bytes:
    """The data set without preamble and file meta information, in its own transfer syntax."""
    return part10_data_set(part10_bytes(data_set))


def part10_data_set(file: bytes) -> bytes:
    """What follows the file meta information of a Part 10 file.

    Read element by element (group 0002 is explicit VR little endian, PS3.10 7.1), independent of `archive.dicom.part10`.
    """
    assert file[128:132] == b"DICM"
    at = 132
    while file[at : at + 2] == b"\x02\x00":
        if file[at + 4 : at + 6] in (b"OB", b"OW", b"UN", b"SQ", b"UT"):
            at += 12 + int.from_bytes(file[at + 8 : at + 12], "little")
        else:
            at += 8 + int.from_bytes(file[at + 6 : at + 8], "little")
    return file[at:]


def sample_files() -> Iterator[Path]:
    """Every Part 10 file that pydicom and pydicom-data ship, good ones and odd ones, in a fixed order."""
    roots = [Path(pydicom.__file__).parent / "data" / "test_files", Path(data_store.__file__).parent / "data"]
    for root in roots:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                with path.open("rb") as file:
                    if file.read(132)[128:] == b"DICM":
                        yield path


def retrieve_part10(url: str) -> list[bytes]:
    """Part 10 objects that WADO-RS answers at `url`, in the transfer syntax that they are stored in (PS3.18 10.4)."""
    accept = 'multipart/related; type="application/dicom"; transfer-syntax=*'
    with urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": accept}), timeout=60) as response:
        return multipart_parts(response.headers["Content-Type"], response.read())


def multipart_parts(content_type: str, body: bytes) -> list[bytes]:
    """Contents of the parts of a multipart/related body (RFC 2046 5.1)."""
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_param("boundary")
    assert header.get_content_type() == "multipart/related"
    assert isinstance(boundary, str)
    delimiter = b"\r\n--" + boundary.encode()
    first, *parts = (b"\r\n" + body).split(delimiter)
    assert first == b"" and parts[-1] in (b"--", b"--\r\n"), "not closed"
    return [part[part.index(b"\r\n\r\n") + 4 :] for part in parts[:-1]]
