"""DCMTK's programs as peers: its senders, and its receiver as the witness of what they put on the wire."""

import os
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
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
def storescp(folder: Path, *options: str, port: int = 0) -> Iterator[int]:
    """A `storescp` that accepts everything (unless options say otherwise) and writes data sets exactly as they come; gives its port."""
    folder.mkdir()
    port = port or free_port()
    taken = options or ("+xa",)
    command = [require("storescp"), *taken, "--promiscuous", "--bit-preserving", "-od", str(folder), "-aet", "ARCHIVE", str(port)]
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


def move(port: int, destination: str, *keys: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """`movescu`; keys as `StudyInstanceUID=1.2`."""
    command = [require("movescu"), "-v", *options, "-aec", "ARCHIVE", "-aem", destination, *_keys(keys), "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=100)


def get(port: int, folder: Path, *keys: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """`getscu` into a new folder, bit preserving."""
    folder.mkdir()
    command = [require("getscu"), "-v", *options, "+B", "-aec", "ARCHIVE", "-od", str(folder), *_keys(keys), "127.0.0.1", str(port)]
    return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=100)


def _keys(keys: Sequence[str]) -> list[str]:
    return [argument for key in keys for argument in ("-k", key)]


def received_data_sets(folder: Path) -> dict[str, bytes]:
    """Data sets that `storescp` or `getscu` wrote, by SOP Instance UID: the file's name, but for a modality and a dot before it."""
    return {re.sub(r"^[A-Za-z]+\.", "", path.name): part10_data_set(path.read_bytes()) for path in folder.iterdir()}
