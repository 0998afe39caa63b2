"""Where MISS-D's images rest and how one reader reads them there: files, WebHDFS, this node."""

import http.client
import os
import shutil
from collections.abc import Iterable, Sequence
from getpass import getuser
from pathlib import Path
from typing import NamedTuple, Protocol

import hdfs as hdfscli

from archive.pack.pack_reader import read_tail
from scripts.bench.common import Missing, Sent
from scripts.bench.dimse import push
from tests.hdfs import Hdfs
from tests.kit import Node, multipart_parts

FRAME = 'multipart/related; type="{kind}"; transfer-syntax=*'
VOLUME = 'multipart/related; type="application/dicom"; transfer-syntax=*'
PIECE_BYTES = 1 << 20
TIMEOUT_SECONDS = 120.0
DATA_SET_END = 100_000


class Reader(Protocol):
    """One reader, used by one thread: it gives the number of bytes that it read."""

    def image(self, image: Sent) -> int: ...

    def volume(self, series: Sequence[Sent]) -> int: ...

    def close(self) -> None: ...


class Place(Protocol):
    """Images at rest."""

    def reader(self) -> Reader: ...


class FileReader:
    """Part 10 files of a folder."""

    def image(self, image: Sent) -> int:
        return len(image.path.read_bytes())

    def volume(self, series: Sequence[Sent]) -> int:
        return sum(map(self.image, series))

    def close(self) -> None:
        """Nothing is open."""


class Folder:
    """One file each in a local directory; each is fsynced, as nothing is safe before."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._images: dict[str, Path] = {}

    def write(self, images: Iterable[Sent]) -> None:
        self._folder.mkdir(parents=True)
        for image in images:
            path = self._images[image.sop_instance_uid] = self._folder / image.sop_instance_uid
            with path.open("wb") as file:
                file.write(image.path.read_bytes())
                file.flush()
                os.fsync(file.fileno())
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def reader(self) -> Reader:
        return FileReader()


class Range(NamedTuple):
    """Where an image lies in HDFS."""

    path: str
    offset: int
    length: int


class HdfsReader:
    """Ranges of files over WebHDFS by HdfsCLI; connections to the NameNode are kept as far as it keeps them."""

    def __init__(self, address: str, ranges: dict[str, Range]) -> None:
        self._client, self._ranges = client_of(address), ranges

    def image(self, image: Sent) -> int:
        return self._read(self._ranges[image.sop_instance_uid])

    def volume(self, series: Sequence[Sent]) -> int:
        """File after file; one range where they lie one behind the other in one file."""
        ranges = [self._ranges[image.sop_instance_uid] for image in series]
        first, last = ranges[0], ranges[-1]
        if all(found.path == first.path for found in ranges):
            return self._read(Range(first.path, first.offset, last.offset + last.length - first.offset))
        return sum(map(self._read, ranges))

    def _read(self, found: Range) -> int:
        with self._client.read(found.path, offset=found.offset, length=found.length, chunk_size=PIECE_BYTES) as pieces:
            count = sum(map(len, pieces))
        if count != found.length:
            raise Missing(f"HDFS gave {count} of {found.length} bytes of {found.path}")
        return count

    def close(self) -> None:
        self._client._session.close()


def client_of(address: str) -> hdfscli.InsecureClient:
    """HdfsCLI's client; not for two threads at once."""
    return hdfscli.InsecureClient(f"http://{address}", user=getuser(), timeout=TIMEOUT_SECONDS)


def bytes_of(client: hdfscli.InsecureClient, found: Range) -> bytes:
    with client.read(found.path, offset=found.offset, length=found.length) as piece:
        data: bytes = piece.read()
    return data


class HdfsFiles:
    """One file each in HDFS."""

    def __init__(self, hdfs: Hdfs, folder: str) -> None:
        self._hdfs, self._folder = hdfs, folder
        self._ranges: dict[str, Range] = {}

    def write(self, images: Iterable[Sent]) -> None:
        client = client_of(self._hdfs.address)
        for image in images:
            path, data = f"{self._folder}/{image.sop_instance_uid}", image.path.read_bytes()
            client.write(path, data=data)
            self._ranges[image.sop_instance_uid] = Range(path, 0, len(data))

    def reader(self) -> Reader:
        return HdfsReader(self._hdfs.address, self._ranges)


class HdfsPacks:
    """The packs below a folder of HDFS without an archive: who reads knows from their tails where each image lies."""

    def __init__(self, hdfs: Hdfs, folder: str) -> None:
        self._hdfs = hdfs
        self._ranges: dict[str, Range] = {}
        client = client_of(hdfs.address)
        for name in hdfs.files(folder):
            self._add(client, f"{folder}/{name}")

    def _add(self, client: hdfscli.InsecureClient, path: str) -> None:
        def read(offset: int, length: int) -> bytes:
            return bytes_of(client, Range(path, offset, length))

        for series in read_tail(client.status(path)["length"], read).series:
            for offset, image in series.instances:
                self._ranges[image.sop_instance_uid] = Range(path, offset, image.length)

    def check(self, images: Iterable[Sent]) -> None:
        """What lies there ends as the files do; their file meta information may differ.

        Raises
        ------
        Missing
            One does not.
        """
        client = client_of(self._hdfs.address)
        for image in images:
            if not bytes_of(client, self._ranges[image.sop_instance_uid]).endswith(image.path.read_bytes()[-DATA_SET_END:]):
                raise Missing(f"{image.sop_instance_uid} is not where the pack says")

    def reader(self) -> Reader:
        return HdfsReader(self._hdfs.address, self._ranges)


class NodeReader:
    """Frames and series by WADO-RS (PS3.18 10.4) over one connection."""

    def __init__(self, port: int, kind: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        self._frame = {"Accept": FRAME.format(kind=kind)}

    def image(self, image: Sent) -> int:
        return len(self._ask(self._frame_path(image), self._frame).read())

    def frame(self, image: Sent) -> bytes:
        """The bytes of its only frame."""
        answer = self._ask(self._frame_path(image), self._frame)
        (frame,) = multipart_parts(answer.headers["Content-Type"], answer.read())
        return frame

    @staticmethod
    def _frame_path(image: Sent) -> str:
        return f"{_series_path(image)}/instances/{image.sop_instance_uid}/frames/1"

    def volume(self, series: Sequence[Sent]) -> int:
        answer = self._ask(_series_path(series[0]), {"Accept": VOLUME})
        room, count = bytearray(PIECE_BYTES), 0
        while piece := answer.readinto(room):
            count += piece
        return count

    def _ask(self, path: str, headers: dict[str, str]) -> http.client.HTTPResponse:
        self._connection.request("GET", path, headers=headers)
        answer = self._connection.getresponse()
        if answer.status != 200:
            raise Missing(f"{path}: {answer.status} {answer.read()[:300]!r}")
        return answer

    def close(self) -> None:
        self._connection.close()


def _series_path(image: Sent) -> str:
    return f"/dicomweb/studies/{image.study_instance_uid}/series/{image.series_instance_uid}"


class Packed:
    """This node, which packs when it is told to.

    Parameters
    ----------
    tier : str
        URL; the empty one is the embedded folder.
    kind : str
        Media type of frames (PS3.18 8.7.3).
    """

    def __init__(self, data: Path, tier: str, kind: str) -> None:
        self._kind = kind
        self._pool = data / "pool"
        self._tier = ["--tier", tier] if tier else []
        self.node = Node(data, {"DICOM_ARCHIVE_PACKER_QUIET_SECONDS": "3600"}, self._tier)

    def accept(self, folder: Path, options: Sequence[str]) -> float:
        """Seconds that C-STORE takes, the start of storescu included."""
        return push(self.node.dimse_port, [folder], options=["+r", *options])

    def pack(self) -> None:
        self.node.cli("pack", "--now", *self._tier, timeout_seconds=600)

    def start(self) -> None:
        """Start it (again), with an empty pool."""
        self.stop()
        shutil.rmtree(self._pool, ignore_errors=True)
        self.node.start()

    def stop(self) -> None:
        if self.node.process is not None:
            self.node.stop()

    def check(self, images: Iterable[Sent]) -> None:
        """The frames are those of the files.

        Raises
        ------
        Missing
            One is not.
        """
        reader = NodeReader(self.node.http_port, self._kind)
        try:
            for image in images:
                frame = reader.frame(image)
                if len(frame) < 1000 or frame not in image.path.read_bytes():
                    raise Missing(f"the node gives another frame for {image.sop_instance_uid}")
        finally:
            reader.close()

    def reader(self) -> Reader:
        return NodeReader(self.node.http_port, self._kind)
