"""A node under load while requests to HDFS are cut, lost, changed and late, and while its daemons die.

No object is lost, no pack rests twice, no wrong byte is given out, nothing is left behind: no thread, no connection, no file.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.flows.far import FarNode, make_study, wait_until
from tests.flows.load import footprint, grown, loaded
from tests.tier.fault_proxy import Fault

QUESTIONS = ["LISTSTATUS_BATCH", "op=CREATE", "GETFILESTATUS", "GETFILECHECKSUM", "GETFILEBLOCKLOCATIONS", "op=RENAME", "op=OPEN"]


def flipped(data: bytes) -> bytes:
    at = len(data) * 3 // 4
    return data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :]


def shorter_by_the_head(answer: bytes) -> bytes:
    return answer.replace(b"content-length: 2", b"content-length: 1", 1).replace(b"Content-Length: 2", b"Content-Length: 1", 1)


NAME_NODE = [
    Fault(answer_bytes=0),  # done, and not told
    Fault(answer_bytes=20),
    Fault(refuse=True),
    Fault(delay_seconds=1.5),  # done, when nobody waits for it any more
]
DATA_NODES = [
    *[Fault("op=CREATE", request_bytes=count) for count in (0, 100_000, 700_000)],
    Fault("op=CREATE", answer_bytes=0),
    Fault("op=CREATE", request=flipped),
    Fault("op=CREATE", request=lambda body: body[:-1]),
    *[Fault("op=OPEN", answer_bytes=count, times=3) for count in (0, 300, 70_000)],
    Fault("op=OPEN", answer=flipped, times=2),  # the third time it would be taken for damage
    Fault("op=OPEN", answer=shorter_by_the_head, times=2),
    Fault("op=OPEN", delay_seconds=1.5, times=2),
    Fault("op=OPEN", refuse=True, times=3),
]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_requests_fail_in_every_way_under_load(start_behind: Callable[..., FarNode]) -> None:
    far = start_behind(pool_ahead_bytes_max=0, pool_reads_max=2, webhdfs_answer_seconds=1, journal_bytes_max=1 << 30)
    for study in range(1, 21):
        far.store_all(make_study(study))
    far.wait_until_packed()
    far.go_cold()
    with loaded(far, read_to=12):
        time.sleep(2)
    far.wait_until_packed()
    before = footprint(far)

    faults = [replace(fault, match=question) for question in QUESTIONS for fault in NAME_NODE]
    far.proxies["namenode"].faults += faults
    faults += [far.at_data_nodes(replace(fault)) for fault in DATA_NODES]
    with loaded(far) as load:
        until = time.monotonic() + 100
        while any(fault.seen < fault.times for fault in faults):
            assert time.monotonic() < until, [fault for fault in faults if fault.seen < fault.times]
            far.node.cli("pack", "--now", exit_code=None)  # or it would wait five seconds after each failure
    assert load.read > 20
    far.assert_whole()
    wait_until(lambda: not grown(before, footprint(far)), 30, far.node, lambda: grown(before, footprint(far)))
    assert far.node.cli("verify").stdout.startswith("nothing is damaged")
    assert far.node.stop() == 0
    assert [path.name for folder in ("incoming", "open") for path in (far.node.data / "journal" / folder).iterdir()] == []
    assert list((far.node.data / "pool" / "filling").iterdir()) == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_daemons_die_under_load(start_far: Callable[..., FarNode]) -> None:
    far = start_far(webhdfs_commit_seconds=5, journal_bytes_max=1 << 30)
    far.store_all(make_study(1))
    with loaded(far):
        time.sleep(2)
    far.wait_until_packed()
    before = footprint(far)
    with loaded(far) as load:
        for commands in (
            [("kill-datanode", "1")],
            [("kill-datanode", "2")],
            [("up",)],
            [("restart-namenode",)],
            [("kill-namenode",), ("up",)],
        ):
            for command in commands:
                far.hdfs.command(*command)
            time.sleep(1)
    assert load.read > 20
    far.assert_whole()
    wait_until(lambda: not grown(before, footprint(far)), 30, far.node, lambda: grown(before, footprint(far)))

    # A byte turns over on the disk of a DataNode, in each of its blocks.
    lengths = {status["length"] for status in far.pack_rows()}
    spoiled = [path for path in far.hdfs.replica_files(3) if path.stat().st_size in lengths]
    assert spoiled
    for path in spoiled:
        data = path.read_bytes()
        path.write_bytes(flipped(data))
    far.go_cold()
    far.assert_served(far.sent)
    far.assert_whole()
