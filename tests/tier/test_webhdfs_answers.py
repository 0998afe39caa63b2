"""What WebHDFS answers, without an HDFS."""

import pytest

from archive.config import WebhdfsSection
from archive.errors import NotFound, Unavailable, WrongUse
from archive.tier.opening import open_tier
from archive.tier.webhdfs import WebHdfsTier
from archive.tier.webhdfs_answers import Block, Checksum, FileStatus, error_of, exception_of
from archive.tier.webhdfs_checksum import FileChecksum, is_comparable
from archive.tier.webhdfs_datanodes import DataNodes
from tests.tier.conftest import nowhere

REPLICATED = {"pathSuffix": "x", "type": "FILE", "length": 5, "fileId": 16387, "blockSize": 134217728, "modificationTime": 1795350045497}
ERASURE_CODED = REPLICATED | {"ecPolicyObj": {"name": "RS-3-2-1024k", "cellSize": 1048576, "numDataUnits": 3, "numParityUnits": 2}}


def test_file_statuses() -> None:
    assert FileStatus.from_json(REPLICATED) == ("x", False, 5, 16387, 134217728, 1795350045497000, 0, 0)
    assert FileStatus.from_json(ERASURE_CODED)[-2:] == (3, 1048576)
    assert FileStatus.from_json(REPLICATED | {"type": "DIRECTORY"}).is_folder


def test_a_data_node_counts_once() -> None:
    assert Block.from_json({"length": 7, "corrupt": False, "names": ["a:1", "b:1", "a:1"]}) == (7, 2, False)


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        ({"RemoteException": {"exception": "E", "message": "first\nsecond"}}, ("E", "first")),
        ({"RemoteException": {"exception": "E"}}, ("E", "")),
        ({"RemoteException": "E"}, ("", "")),
        ({}, ("", "")),
        (None, ("", "")),
        ([1], ("", "")),
    ],
)
def test_exceptions(body: object, wanted: tuple[str, str]) -> None:
    assert exception_of(body) == wanted


@pytest.mark.parametrize(
    ("http_status", "exception", "kind", "text"),
    [
        (404, "FileNotFoundException", NotFound, "it: m"),
        (404, "", Unavailable, "HTTP status 404 without a WebHDFS exception"),
        (403, "DSQuotaExceededException", Unavailable, "a quota of HDFS is reached: m"),
        (403, "AccessControlException", Unavailable, "HDFS does not allow it: m"),
        (401, "", Unavailable, "HDFS does not allow it"),
        (403, "IOException", Unavailable, "IOException: m"),
    ],
)
def test_errors(http_status: int, exception: str, kind: type[Exception], text: str) -> None:
    error = error_of("it", http_status, exception, "m")
    assert type(error) is kind
    assert text in str(error)


ONE_BLOCK = Checksum.from_json(
    {"algorithm": "MD5-of-0MD5-of-512CRC32C", "bytes": "00000200" + "00" * 8 + "11" * 16 + "00000000", "length": 28}
)


def test_the_md5_of_a_checksum() -> None:
    assert ONE_BLOCK == ("MD5-of-0MD5-of-512CRC32C", 512, b"\x11" * 16)
    assert is_comparable(ONE_BLOCK)
    assert not is_comparable(ONE_BLOCK._replace(chunk_bytes=4096))
    assert not is_comparable(ONE_BLOCK._replace(algorithm="COMPOSITE-CRC32C"))
    assert not is_comparable(ONE_BLOCK._replace(algorithm="MD5-of-0MD5-of-512CRC32"))


@pytest.mark.parametrize("step", [1, 7, 511, 512, 513, 5000])
def test_a_checksum_does_not_depend_on_the_pieces(step: int) -> None:
    data = bytes(range(256)) * 20 + b"the rest"
    whole, parts = FileChecksum(), FileChecksum()
    whole.update(data)
    for at in range(0, len(data), step):
        parts.update(data[at : at + step])
    assert parts.md5(1024) == whole.md5(1024)
    assert whole.md5(1024) != whole.md5(2048)


@pytest.mark.parametrize("row", ["", "a", "a=", "=b", "a=b:", "a=b:c"])
def test_data_nodes_that_cannot_be_mapped(row: str) -> None:
    with pytest.raises(WrongUse, match="webhdfs.data_nodes"):
        DataNodes(WebhdfsSection(data_nodes=[row]))


@pytest.mark.parametrize(
    "url", ["webhdfs://", "webhdfs://host/x", "webhdfs://host:1,other/x", "webhdfs://host:1/x?y=1", "webhdfs://u@host:1/x"]
)
def test_urls_without_sense(url: str) -> None:
    with pytest.raises(WrongUse, match="webhdfs://namenode:port/folder"):
        open_tier(url, nowhere())


@pytest.mark.parametrize("path", ["", "/", "/a/", "/a"])
def test_urls(path: str) -> None:
    tier = open_tier(f"webhdfs://nn1:9870,nn2:9870{path}", nowhere())
    assert isinstance(tier, WebHdfsTier)
    assert tier.url == f"webhdfs://nn1:9870,nn2:9870{path.rstrip('/')}"


def test_kerberos_without_its_package_is_said() -> None:
    with pytest.raises(WrongUse, match=r"dicom-archive\[kerberos\]"):
        open_tier("webhdfs://host:1/x", nowhere(), webhdfs=WebhdfsSection(kerberos=True))
