"""What networks do to single requests: nothing is lost, nothing rests twice, no wrong byte is given out, nothing is left in flight."""

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import cast

import pytest

from archive.disk import Bytes
from archive.errors import Damaged, NotFound, Unavailable
from archive.pack.naming import PACKS_PER_FOLDER, PackName
from archive.tier.protocol import NumberTaken
from tests.tier.conftest import DATA, NODE, Cluster, name_of, put
from tests.tier.fault_proxy import Fault, says

ONE = [str(name_of(DATA))]


def rests_once(cluster: Cluster) -> None:
    assert cluster.files() == ONE
    assert cluster.direct().read(name_of(DATA), 0, len(DATA)) == DATA


# --- uploads


@pytest.mark.parametrize("bytes_passed", [0, 1, 64 * 1024, len(DATA) // 2, len(DATA) - 1])
def test_an_upload_that_is_cut_leaves_nothing(cluster: Cluster, bytes_passed: int) -> None:
    fault = cluster.at_data_nodes(Fault("op=CREATE", request_bytes=bytes_passed))
    tier = cluster.tier()
    with pytest.raises(Unavailable):
        put(tier)
    assert fault.seen == 1
    assert cluster.files() == []
    put(tier)
    rests_once(cluster)


def test_an_upload_that_is_not_confirmed_is_not_taken_for_whole(cluster: Cluster) -> None:
    fault = cluster.at_data_nodes(Fault("op=CREATE", answer_bytes=0))
    tier = cluster.tier()
    with pytest.raises(Unavailable, match="did not confirm"):
        put(tier)
    assert fault.seen == 1
    assert cluster.files() == []
    put(tier)
    rests_once(cluster)


def cut_short(body: bytes) -> bytes:
    return body[: len(body) // 2]


def lengthened(body: bytes) -> bytes:
    return body + b"x"


def flipped(body: bytes) -> bytes:
    return body[:1000] + bytes([body[1000] ^ 1]) + body[1001:]


@pytest.mark.parametrize("change", [cut_short, lengthened, flipped])
def test_other_bytes_than_were_sent_are_refused(cluster: Cluster, change: Callable[[bytes], bytes]) -> None:
    """A proxy on the way that says 201 to something else."""
    fault = cluster.at_data_nodes(Fault("op=CREATE", request=change))
    tier = cluster.tier()
    with pytest.raises(Damaged, match="not at rest what was written"):
        put(tier)
    assert fault.seen == 1
    assert cluster.files() == []
    put(tier)
    rests_once(cluster)


def test_a_data_node_that_does_not_answer_is_replaced(cluster: Cluster) -> None:
    cluster.data_nodes[0].close()
    cluster.data_nodes[1].close()
    put(cluster.tier())
    rests_once(cluster)


def test_without_data_nodes_nothing_is_taken_from_the_packer(cluster: Cluster) -> None:
    for proxy in cluster.data_nodes:
        proxy.close()
    with pytest.raises(Unavailable, match="Connection refused"):
        put(cluster.tier())
    assert cluster.files() == []


@pytest.mark.parametrize("exception", ["DSQuotaExceededException", "IOException"])
def test_a_data_node_that_says_no_is_heard(cluster: Cluster, exception: str) -> None:
    fault = cluster.at_data_nodes(Fault("op=CREATE", times=9, answer=says("403 Forbidden", exception)))
    with pytest.raises(Unavailable, match="told by a test"):
        put(cluster.tier())
    assert fault.seen
    assert cluster.files() == []


def test_what_earlier_tries_left_is_removed_by_the_next(cluster: Cluster) -> None:
    cluster.at_data_nodes(Fault("op=CREATE", request_bytes=100_000))
    cluster.at_name_node(Fault("op=DELETE", times=99, refuse=True))
    with pytest.raises(Unavailable):
        put(cluster.tier(read_patience_seconds=0))
    assert len(cluster.files()) == 1
    cluster.hdfs.write(f"{cluster.folder}/.inflight/node-a-000000000002.zip.1", b"x")
    cluster.name_node.faults.clear()
    put(cluster.tier())
    assert cluster.files() == [".inflight/node-a-000000000002.zip.1", *ONE]


# --- answers of the NameNode


STEPS = ["LISTSTATUS_BATCH", "MKDIRS", "op=CREATE", "GETFILESTATUS", "GETFILECHECKSUM", "GETFILEBLOCKLOCATIONS", "RENAME"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(
    "fault",
    [
        Fault(answer_bytes=0),
        Fault(answer_bytes=20),
        Fault(refuse=True),
        Fault(delay_seconds=3),
        Fault(answer=says("403 Forbidden", "SafeModeException"), times=2),
        Fault(answer=says("403 Forbidden", "StandbyException")),
        Fault(answer=says("403 Forbidden", "RetriableException")),
        Fault(answer=lambda _: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"),
        Fault(answer=lambda _: b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}"),
    ],
    ids=["done-not-told", "half-told", "reset", "slow", "safe-mode", "standby", "retriable", "bad-gateway", "no-webhdfs"],
)
def test_a_put_outlives_one_bad_answer(cluster: Cluster, step: str, fault: Fault) -> None:
    """Each step of a put; what was done but not told is done once."""
    here = cluster.at_name_node(replace(fault, match=step))
    put(cluster.tier())
    assert here.seen
    rests_once(cluster)


def test_a_rename_that_comes_late_finds_nothing_to_rename(cluster: Cluster) -> None:
    """It was tried again meanwhile, and done."""
    cluster.at_name_node(Fault("op=RENAME", delay_seconds=4))
    put(cluster.tier())
    time.sleep(4)
    rests_once(cluster)
    with pytest.raises(NumberTaken):
        put(cluster.tier())


def test_a_rename_that_was_given_up_is_not_done_later(cluster: Cluster) -> None:
    fault = cluster.at_name_node(Fault("op=RENAME", delay_seconds=4))
    with pytest.raises(Unavailable, match="RENAME"):
        put(cluster.tier(write_patience_seconds=0))
    assert fault.seen == 1
    time.sleep(4)
    assert cluster.files() == []
    put(cluster.tier())
    rests_once(cluster)


def test_folders_that_somebody_removed_are_made_again(cluster: Cluster) -> None:
    tier = cluster.tier()
    tier.delete(put(tier))
    cluster.hdfs.ask("DELETE", cluster.folder, op="DELETE", recursive="true")
    put(tier)
    rests_once(cluster)


def test_safe_mode_that_does_not_end(cluster: Cluster) -> None:
    tier = cluster.tier(write_patience_seconds=1)
    put(tier)
    for operation in ("MKDIRS", "CREATE"):
        cluster.at_name_node(Fault(f"op={operation}", times=99, answer=says("403 Forbidden", "SafeModeException")))
    with pytest.raises(Unavailable, match="SafeModeException"):
        put(tier, sequence=2)
    with pytest.raises(Unavailable, match="SafeModeException"):
        tier.check()
    assert tier.read(name_of(DATA), 5, 100) == DATA[5:105]
    rests_once(cluster)


def test_too_few_replicas(cluster: Cluster) -> None:
    with pytest.raises(Unavailable, match="replicas_min = 4"):
        put(cluster.tier(replicas_min=4, commit_seconds=1))
    assert cluster.files() == []


# --- several NameNodes


def test_the_next_name_node_is_asked(cluster: Cluster) -> None:
    cluster.at_name_node(Fault(times=999, answer=says("403 Forbidden", "StandbyException")))
    for addresses in (["127.0.0.1:1", cluster.hdfs.address], [cluster.name_node.address, cluster.hdfs.address]):
        tier = cluster.tier(*addresses, write_patience_seconds=0, read_patience_seconds=0)
        tier.check()
        name = put(tier, sequence=len(cluster.name_node.requests) + 1)
        assert tier.read(name, 0, len(DATA)) == DATA
        asked = len(cluster.name_node.requests)
        tier.length(name)
        assert len(cluster.name_node.requests) == asked, "the one that answered last is asked first"


# --- reads


@pytest.mark.parametrize("bytes_passed", [0, 10, 200, 70_000, 1_500_000])
def test_a_read_that_is_cut_goes_on_elsewhere(cluster: Cluster, bytes_passed: int) -> None:
    tier = cluster.tier()
    name = put(tier)
    fault = cluster.at_data_nodes(Fault("op=OPEN", times=2, answer_bytes=bytes_passed))
    assert tier.read(name, 1, len(DATA) - 1) == DATA[1:]
    assert fault.seen == 2


def test_a_read_that_is_always_cut_is_unavailable(cluster: Cluster) -> None:
    tier = cluster.tier()
    name = put(tier)
    cluster.at_data_nodes(Fault("op=OPEN", times=99, answer_bytes=0))
    started = time.monotonic()
    with pytest.raises(Unavailable):
        tier.read(name, 0, len(DATA))
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "answer",
    [
        lambda whole: whole.replace(b"content-length: 1000", b"content-length: 900"),
        lambda whole: whole.replace(b"content-length: 1000", b"content-length: 1001") + b"x",
        lambda whole: b"HTTP/1.1 200 OK\r\n\r\n" + bytes(1000),
        lambda whole: b"HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nno WebHDFS",
        lambda whole: b"HTTP/1.1 204 No Content\r\n\r\n",
        lambda whole: b"what is this?",
    ],
)
def test_an_answer_of_another_length_is_never_taken(cluster: Cluster, answer: Callable[[bytes], bytes]) -> None:
    tier = cluster.tier()
    name = put(tier)
    fault = cluster.at_data_nodes(Fault("op=OPEN", answer=answer))
    assert tier.read(name, 77, 1000) == DATA[77:1077]
    assert fault.seen == 1
    cluster.at_data_nodes(Fault("op=OPEN", times=99, answer=answer))
    with pytest.raises(Unavailable):
        tier.read(name, 77, 1000)


def test_slow_data_nodes_are_given_up(cluster: Cluster) -> None:
    tier = cluster.tier(answer_seconds=0.5)
    name = put(cluster.tier())
    cluster.at_data_nodes(Fault("op=OPEN", delay_seconds=1))
    assert tier.read(name, 0, 1000) == DATA[:1000]
    cluster.at_data_nodes(Fault("op=OPEN", times=99, delay_seconds=1))
    started = time.monotonic()
    with pytest.raises(Unavailable):
        tier.read(name, 0, 1000)
    assert time.monotonic() - started < 8


def test_a_404_of_another_server_is_no_lost_pack(cluster: Cluster) -> None:
    """Only HDFS itself can say that a pack is not there."""
    tier = cluster.tier(read_patience_seconds=0.5)
    name = put(tier)
    cluster.at_name_node(Fault(times=99, answer=lambda _: b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno"))
    for ask in (lambda: tier.length(name), lambda: tier.read(name, 0, 1), lambda: list(tier.list_packs("node-a")), tier.nodes):
        with pytest.raises(Unavailable, match="404"):
            ask()


def test_a_pack_that_is_deleted_meanwhile_is_not_found(cluster: Cluster) -> None:
    tier = cluster.tier()
    name = put(tier)
    assert tier.read(name, 0, 1) == DATA[:1]
    tier.delete(name)
    with pytest.raises(NotFound, match=str(name)):
        tier.read(name, 0, 1)


def test_reads_are_bounded(cluster: Cluster) -> None:
    tier = cluster.tier(reads_max=2, read_patience_seconds=0.5)
    name = put(tier)
    streams = [cast(Generator[bytes, None, None], tier.stream(name, 0, len(DATA))) for _ in range(2)]
    first = [bytes(next(stream)) for stream in streams]
    with pytest.raises(Unavailable, match="reads_max = 2"):
        tier.read(name, 0, 1)
    streams[0].close()
    assert tier.read(name, 0, 1) == DATA[:1]
    assert first[1] + b"".join(map(bytes, streams[1])) == DATA


# --- what a put asks, and when


def test_a_data_node_opens_the_file_while_the_number_is_asked_for(cluster: Cluster) -> None:
    created: list[bool] = []

    def answer_late(answer: bytes) -> bytes:
        until = time.monotonic() + 1
        while not (came := any("op=CREATE" in line for line in cluster.name_node.requests)) and time.monotonic() < until:
            time.sleep(0.01)
        created.append(came)
        return answer

    cluster.at_name_node(Fault("LISTSTATUS_BATCH", answer=answer_late))
    put(cluster.tier())
    assert created == [True]
    rests_once(cluster)


def test_a_number_taken_while_a_pack_is_checked_is_not_published_twice(cluster: Cluster) -> None:
    other = str(PackName(NODE, 1, "f" * 64))

    def publish_another(answer: bytes) -> bytes:
        time.sleep(0.5)
        cluster.hdfs.write(f"{cluster.folder}/{other}", b"another node's pack")
        return answer

    cluster.at_name_node(Fault("GETFILECHECKSUM", answer=publish_another))
    with pytest.raises(NumberTaken):
        put(cluster.tier())
    assert cluster.files() == [other]


def test_who_finds_a_number_taken_leaves_the_upload_of_another_alone(cluster: Cluster) -> None:
    """Which then says itself that it is taken."""

    def chunks() -> Iterator[Bytes]:
        yield DATA[:2_000_000]
        cluster.hdfs.write(f"{cluster.folder}/{PackName(NODE, 1, 'f' * 64)}", b"another node's pack")
        with pytest.raises(NumberTaken):
            put(cluster.direct())
        yield DATA[2_000_000:]

    with pytest.raises(NumberTaken):
        put(cluster.tier(), chunks=chunks())
    assert cluster.files() == [str(PackName(NODE, 1, "f" * 64))]


@pytest.mark.parametrize("step", ["op=MKDIRS", "/.inflight?"])
def test_what_fails_beside_an_upload_ends_it_early(cluster: Cluster, step: str) -> None:
    sent: list[int] = []

    def chunks() -> Iterator[Bytes]:
        for at in range(0, len(DATA), 100_000):
            time.sleep(0.1)
            sent.append(at)
            yield DATA[at : at + 100_000]

    tier = cluster.tier()
    before = put(tier, sequence=PACKS_PER_FOLDER)  # which makes the folder for what is in flight
    fault = cluster.at_name_node(Fault(step, answer=says("403 Forbidden", "AccessControlException")))
    with pytest.raises(Unavailable, match="does not allow it"):
        put(tier, chunks=chunks())
    assert fault.seen
    assert len(sent) < 20
    assert cluster.files() == [str(before)]
