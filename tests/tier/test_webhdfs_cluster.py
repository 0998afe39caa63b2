"""What happens to a cluster: disks that turn bits over, DataNodes that die, a NameNode that restarts, quotas, permissions."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from archive.errors import ArchiveError, Damaged, NotFound, Unavailable
from archive.pack.naming import PackName
from archive.tier.protocol import NumberTaken
from archive.tier.webhdfs import WebHdfsTier
from tests.hdfs import Hdfs
from tests.tier.conftest import DATA, Cluster, name_of, put
from tests.tier.fault_proxy import Fault

ONE = [str(name_of(DATA))]


@pytest.fixture(autouse=True)
def whole_again(cluster: Cluster) -> Iterator[None]:
    """Whatever a test stops runs again before the next."""
    yield
    cluster.hdfs.command("up")


def replicas_of(cluster: Cluster, data: bytes) -> list[str]:
    """Numbers of the DataNodes whose disks hold exactly these bytes, as one block."""
    return [str(number) for number in (1, 2, 3) if any(file.read_bytes() == data for file in _same_size(cluster.hdfs, number, len(data)))]


def _same_size(hdfs: Hdfs, datanode: int, size: int) -> list[Path]:
    return [file for file in hdfs.replica_files(datanode) if file.stat().st_size == size]


def flip(hdfs: Hdfs, datanode: int, data: bytes, at: int) -> None:
    (file,) = [file for file in _same_size(hdfs, datanode, len(data)) if file.read_bytes() == data]
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(bytes([data[at] ^ 0x10]))


def unlike_others(number: int) -> bytes:
    """Bytes of a size that no other test has, so that their replicas are found on the disks."""
    return DATA[number:] + bytes(number)[: number // 2]


# --- bits


@pytest.mark.parametrize("bad", [1, 2])
def test_a_flipped_byte_in_a_replica_is_never_given_out(cluster: Cluster, bad: int) -> None:
    data = unlike_others(1000 + 2 * bad)
    tier = cluster.tier(replicas_min=3)
    name = put(tier, data)
    assert len(replicas_of(cluster, data)) == 3
    for number in range(1, bad + 1):
        flip(cluster.hdfs, number, data, 1_234_567)
    for _ in range(6):  # whichever DataNode is asked
        assert tier.read(name, 0, len(data)) == data
        assert tier.read(name, 1_234_567, 1) == data[1_234_567:1_234_568]


@pytest.mark.timeout(300)
def test_a_pack_all_of_whose_replicas_are_bad_is_not_given_out(cluster: Cluster) -> None:
    data = unlike_others(2000)
    tier = cluster.tier(replicas_min=3)
    name = put(tier, data)
    for number in (1, 2, 3):
        flip(cluster.hdfs, number, data, 2_000_000)
    with pytest.raises((Damaged, Unavailable)):
        tier.read(name, 1_999_000, 2000)
    assert tier.read(name, 0, 1000) == data[:1000]


def test_what_the_name_node_knows_as_corrupt_is_damaged(cluster: Cluster) -> None:
    tier = cluster.tier()
    name = put(tier)
    cluster.at_data_nodes(Fault("op=OPEN", times=9, answer_bytes=0))
    cluster.at_name_node(Fault("GETFILEBLOCKLOCATIONS", answer=lambda whole: whole.replace(b'"corrupt":false', b'"corrupt":true ')))
    with pytest.raises(Damaged, match="every replica of one of its blocks is bad"):
        tier.read(name, 0, 1000)


# --- DataNodes


@pytest.mark.timeout(300)
def test_one_and_two_of_three_data_nodes_die(cluster: Cluster) -> None:
    tier = cluster.tier(answer_seconds=10, read_patience_seconds=60)
    name = put(tier)
    cluster.hdfs.command("kill-datanode", "1")
    for offset in range(0, len(DATA) - 100, 500_000):
        assert tier.read(name, offset, 100) == DATA[offset : offset + 100]
    second = put(tier, sequence=2)  # two replicas are replicas_min
    cluster.hdfs.command("kill-datanode", "2")
    for asked in (name, second):
        assert tier.read(asked, 0, len(DATA)) == DATA
    with pytest.raises(Unavailable):
        put(tier, sequence=3)
    assert cluster.files() == [str(name), str(second)]
    cluster.hdfs.command("up")
    third = put(tier, sequence=3)
    assert cluster.files() == [str(name), str(second), str(third)]
    assert tier.read(third, 0, len(DATA)) == DATA


@pytest.mark.timeout(300)
@pytest.mark.parametrize("killed", [["1"], ["1", "2"], ["1", "2", "3"]])
def test_data_nodes_die_during_an_upload(cluster: Cluster, killed: list[str]) -> None:
    """Whichever of them is written to: the pack rests whole, or not at all and the next try does it."""
    tier = cluster.tier(answer_seconds=10, read_patience_seconds=60)

    def kill() -> None:
        for number in killed:
            cluster.hdfs.command("kill-datanode", number)

    if not put_through(tier, kill):
        assert cluster.files() == []
        cluster.hdfs.command("up")
        put(tier)
    cluster.hdfs.command("up")
    rests_once(cluster)


def put_through(tier: WebHdfsTier, event: Callable[[], None]) -> bool:
    """A put during which something happens; whether it was done."""

    def chunks() -> Iterator[bytes]:
        yield DATA[:1_500_000]
        event()
        for at in range(1_500_000, len(DATA), 100_000):
            time.sleep(0.05)
            yield DATA[at : at + 100_000]

    try:
        put(tier, chunks=chunks())
    except Unavailable:
        return False
    return True


def rests_once(cluster: Cluster) -> None:
    assert cluster.files() == ONE
    assert cluster.direct().read(name_of(DATA), 0, len(DATA)) == DATA


# --- the NameNode


@pytest.mark.timeout(300)
@pytest.mark.parametrize("how", ["restart-namenode", "kill-namenode"])
def test_the_name_node_restarts_during_an_upload(cluster: Cluster, how: str) -> None:
    tier = cluster.tier(answer_seconds=10, read_patience_seconds=60, write_patience_seconds=60, commit_seconds=90)
    starting: list[threading.Thread] = []

    def event() -> None:
        cluster.hdfs.command(how)
        if how == "kill-namenode":  # and comes back only while the upload waits for it
            starting.append(threading.Timer(3, cluster.hdfs.command, ["start-namenode"]))
            starting[0].start()

    done = put_through(tier, event)
    for thread in starting:
        thread.join()
    cluster.hdfs.command("up")
    if not done:
        for left in tier.delete_in_flight("node-a"):  # as the next start does it
            assert left.startswith("node-a-000000000001.zip")
        assert cluster.files() == []
        put_again(tier)
    rests_once(cluster)


def put_again(tier: WebHdfsTier) -> PackName:
    """As the packer does: a DataNode may still hold a connection to the NameNode that went, and fails once over it."""
    for _ in range(5):
        with contextlib.suppress(Unavailable):
            return put(tier)
        time.sleep(1)
    return put(tier)


@pytest.mark.timeout(300)
def test_without_a_name_node_everything_says_so_soon(cluster: Cluster) -> None:
    tier = cluster.direct(read_patience_seconds=1, write_patience_seconds=2)
    name = put_again(tier)
    cluster.hdfs.command("stop-namenode")
    asked: list[Callable[[], object]] = [
        lambda: tier.read(name, 0, 1),
        lambda: tier.length(name),
        lambda: list(tier.list_packs("node-a")),
        tier.nodes,
        tier.check,
        lambda: tier.delete_in_flight("node-a"),
        lambda: put(tier, sequence=2),
    ]
    for ask in asked:
        started = time.monotonic()
        with pytest.raises(Unavailable):
            ask()
        assert time.monotonic() - started < 8
    cluster.hdfs.command("up")
    until = time.monotonic() + 60
    while True:  # the first requests of a Java process take seconds
        try:
            tier.check()
            break
        except Unavailable:
            assert time.monotonic() < until
    rests_once(cluster)


# --- rules of the cluster


def test_a_quota_is_named(cluster: Cluster) -> None:
    tier = cluster.tier()
    tier.check()
    cluster.hdfs.ask("PUT", cluster.folder, op="SETQUOTA", namespacequota="1000", storagespacequota="1000000")
    with pytest.raises(Unavailable, match="quota of HDFS is reached"):
        put(tier)
    assert cluster.files() == []


def test_another_user_is_told(cluster: Cluster) -> None:
    name = put(cluster.tier())
    stranger = cluster.tier(user="somebody-else", write_patience_seconds=0)
    for ask in (lambda: put(stranger, sequence=2), lambda: stranger.read(name, 0, 1), lambda: stranger.delete(name), stranger.check):
        with pytest.raises(Unavailable, match="does not allow it: Permission denied: user=somebody-else"):
            ask()
    rests_once(cluster)


def test_an_erasure_coded_folder_is_read_back(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    tier = cluster.tier(replicas_min=2)
    tier.check()
    cluster.hdfs.ask("PUT", cluster.folder, op="ENABLEECPOLICY", ecpolicy="XOR-2-1-1024k")
    cluster.hdfs.ask("PUT", cluster.folder, op="SETECPOLICY", ecpolicy="XOR-2-1-1024k")
    with caplog.at_level("INFO"):
        name = put(tier)
    assert "is read back" in caplog.text
    assert tier.read(name, 0, len(DATA)) == DATA
    with pytest.raises(Unavailable, match="fewer live replicas"):
        put(cluster.tier(replicas_min=3, commit_seconds=1), sequence=2)


def test_unfinished_uploads_of_others_go_after_a_long_time(cluster: Cluster) -> None:
    tier = cluster.tier()
    for other in ("b-000000000001.zip", "c-000000000001.zip"):
        cluster.hdfs.write(f"{cluster.folder}/.inflight/{other}", b"x")
    cluster.hdfs.ask("PUT", f"{cluster.folder}/.inflight/b-000000000001.zip", op="SETTIMES", modificationtime="1000")
    assert tier.delete_in_flight("a") == ["b-000000000001.zip"]
    assert cluster.files() == [".inflight/c-000000000001.zip"]


def test_files_are_not_for_everybody(cluster: Cluster) -> None:
    name = put(cluster.tier())
    asked = cluster.hdfs.ask("GET", f"{cluster.folder}/{name}", op="GETFILESTATUS")["FileStatus"]
    assert asked["permission"] == "640"
    assert cluster.hdfs.ask("GET", f"{cluster.folder}/node-a", op="GETFILESTATUS")["FileStatus"]["permission"] == "750"


def test_storage_classes_are_storage_policies(cluster: Cluster) -> None:
    tier = cluster.tier()
    name = put(tier)
    for storage_class, policy in (("cold", 2), ("warm", 5), ("hot", 7)):
        tier.set_storage_class(name, storage_class)
        assert cluster.hdfs.ask("GET", f"{cluster.folder}/{name}", op="GETFILESTATUS")["FileStatus"]["storagePolicy"] == policy
    with pytest.raises(NotFound):
        tier.set_storage_class(name_of(DATA, 9), "cold")


@pytest.mark.parametrize("length", [1, 511, 512, 513, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20, DATA.__len__()])
@pytest.mark.parametrize("block_bytes", [0, 1 << 20])
def test_checksums_agree_whatever_the_length(cluster: Cluster, length: int, block_bytes: int) -> None:
    tier = cluster.direct(block_bytes=block_bytes)
    name = put(tier, DATA[:length])
    assert tier.read(name, 0, length) == DATA[:length]
    if block_bytes:
        found = cluster.hdfs.ask("GET", f"{cluster.folder}/{name}", op="GETFILESTATUS")["FileStatus"]
        assert found["blockSize"] == block_bytes


def test_folders_of_any_name(cluster: Cluster) -> None:
    cluster.folder += "/Bilder für alle/100%"
    tier = cluster.tier()
    name = put(tier)
    assert tier.read(name, 0, len(DATA)) == DATA
    assert [entry.name for entry in tier.list_packs("node-a")] == [name]
    assert (tier.nodes(), list(tier.strangers())) == (["node-a"], [])
    with pytest.raises(NumberTaken):
        put(tier)
    tier.delete(name)
    assert list(tier.list_packs("node-a")) == []


def test_puts_and_reads_at_once(cluster: Cluster) -> None:
    """Several threads with one tier; each gets its own bytes."""
    tier = cluster.direct()
    failures: list[object] = []

    def work(number: int) -> None:
        data = unlike_others(10 * number)
        try:
            name = put(tier, data, sequence=number)
            for offset in range(0, len(data) - 1000, 400_000):
                if tier.read(name, offset, 1000) != data[offset : offset + 1000]:
                    failures.append(f"wrong bytes of {number}")
        except ArchiveError as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [entry.name.sequence for entry in tier.list_packs("node-a")] == [1, 2, 3, 4, 5, 6]
