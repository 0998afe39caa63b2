"""DCMTK's programs as peers: its senders, and its receiver as the witness of what they put on the wire."""

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit import free_port, part10_data_set, require

# Without Nagle's algorithm on either side, else every object waits for a delayed acknowledgement.
ENVIRONMENT = os.environ | {"TCP_NODELAY": "1"}

STORESCU_PROPOSALS = {
    "1.2.840.10008.1.2": "-xi",
    "1.2.840.10008.1.2.1": "-xe",
    "1.2.840.10008.1.2.1.99": "-xd",
    "1.2.840.10008.1.2.2": "-xb",
    "1.2.840.10008.1.2.4.50": "-xy",
    "1.2.840.10008.1.2.4.51": "-xx",
    "1.2.840.10008.1.2.4.70": "-xs",
    "1.2.840.10008.1.2.4.80": "-xt",
    "1.2.840.10008.1.2.4.81": "-xu",
    "1.2.840.10008.1.2.4.90": "-xv",
    "1.2.840.10008.1.2.4.91": "-xw",
    "1.2.840.10008.1.2.5": "-xr",
}


def echo(port: int, called_ae_title: str = "ARCHIVE") -> int:
    """Exit code of `echoscu`."""
    return subprocess.run([require("echoscu"), "-to", "5", "-aec", called_ae_title, "127.0.0.1", str(port)], capture_output=True).returncode


def send_with_storescu(port: int, by_transfer_syntax: dict[str, list[Path]]) -> None:
    """One association of `storescu` for each transfer syntax."""
    for transfer_syntax_uid, paths in sorted(by_transfer_syntax.items()):
        command = [require("storescu"), "-R", "-aec", "ARCHIVE", STORESCU_PROPOSALS[transfer_syntax_uid], "127.0.0.1", str(port)]
        done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, env=ENVIRONMENT)
        assert done.returncode == 0, f"{transfer_syntax_uid}: {done.stdout}{done.stderr}"


def send_with_dcmsend(port: int, by_transfer_syntax: dict[str, list[Path]]) -> None:
    """One run of `dcmsend` for all, nothing decompressed on the way."""
    paths = [path for _, group in sorted(by_transfer_syntax.items()) for path in group]
    command = [require("dcmsend"), "--decompress-never", "-aec", "ARCHIVE", "127.0.0.1", str(port)]
    done = subprocess.run([*command, *map(str, paths)], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """A `storescp` that accepts everything and writes data sets exactly as they come; gives its port."""
    folder.mkdir()
    port = free_port()
    command = [require("storescp"), "+xa", "--promiscuous", "--bit-preserving", "-od", str(folder), "-aet", "ARCHIVE", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    try:
        deadline = time.monotonic() + 10
        while echo(port) != 0:
            assert process.poll() is None, "storescp ended"
            assert time.monotonic() < deadline, "storescp does not answer"
        yield port
    finally:
        process.kill()
        process.wait()


def received_data_sets(folder: Path) -> dict[str, bytes]:
    """Data sets that `storescp` wrote, by SOP Instance UID (its file names are a modality, a dot and the UID)."""
    return {path.name.partition(".")[2]: part10_data_set(path.read_bytes()) for path in folder.iterdir()}
