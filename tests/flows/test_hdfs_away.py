"""HDFS is away: objects are taken in up to the journal's bound, what is near is served, what is not is refused soon, and it is said.

When HDFS comes back everything is packed by itself.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.flow.objects import make_object
from tests.flows.far import WAIT_SECONDS, Answer, FarNode, make_study, wait_until
from tests.hdfs import Hdfs
from tests.tier.fault_proxy import Fault

AWAY: dict[str, list[tuple[str, ...]]] = {
    "the NameNode is stopped": [("stop-namenode",)],
    "the NameNode hangs": [("pause-namenode",)],
    "all DataNodes are killed": [("kill-datanode", "1"), ("kill-datanode", "2"), ("kill-datanode", "3")],
}


def assert_refused(answer: Answer) -> None:
    assert answer.status == 503, answer
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["error"] == "Service Unavailable" and answer.json()["detail"]
    assert answer.seconds < WAIT_SECONDS + 2


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("what", AWAY)
def test_hdfs_is_away(far: FarNode, what: str) -> None:
    warm, cold, later, near = (make_study(study) for study in range(1, 5))
    far.store_all([*warm, *cold, *near])
    far.wait_until_packed()
    far.go_cold()
    far.assert_served([*warm, *near])
    far.assert_frames(warm)
    assert far.ready() == (True, {})

    for command in AWAY[what]:
        far.hdfs.command(*command)
    wait_until(lambda: "tier" in far.ready()[1], 30, far.node)
    # What is near is served, and searches answer.
    far.assert_frames(warm, seconds_max=1)
    far.assert_served(warm)
    assert {row["0020000D"]["Value"][0] for row in far.get("/dicomweb/studies").json()} == {"1.2.1", "1.2.2", "1.2.4"}
    # What is not near is refused, in time, and many who ask for it keep nobody else waiting.
    with ThreadPoolExecutor(30) as viewers:
        asked = [viewers.submit(ask, one) for one in cold * 3 for ask in (far.frame, far.metadata, far.series)]
        time.sleep(0.3)
        far.assert_frames([*warm, *near, *warm, *near], seconds_max=1)
        for answer in asked:
            assert_refused(answer.result())
    # Objects are taken in and served from the journal.
    far.store_all(later)
    far.assert_served(later)
    # It is said, everywhere.
    wait_until(lambda: far.ready()[1].keys() == {"tier", "packing"}, 40, far.node)
    assert (far.figure("tier_works"), far.figure("packing_works")) == (0, 0)
    assert far.figure("journal_instances") == len(later)
    status = far.status()
    assert status["tier_problem"] and status["packing_problem"].startswith("packing failed")
    assert status["waiting_instances"] == len(later)
    text = far.node.cli("status").stdout
    assert "does not work: " in text and "packing failed" in text

    far.hdfs.command("up")
    far.wait_until_ready()
    far.assert_whole()
    assert (far.figure("tier_works"), far.figure("packing_works")) == (1, 1)
    assert far.node.cli("verify").stdout.startswith("nothing is damaged")


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_journal_takes_objects_up_to_its_bound(start_far: Callable[..., FarNode]) -> None:
    far = start_far(packer_pack_bytes_target=16 << 20)
    first = make_study(1)
    far.store_all(first)
    far.wait_until_packed()
    far.hdfs.command("stop-namenode")
    large = [make_object(2, 1, number, pixel_bytes=3_000_000) for number in range(1, 51)]
    statuses = far.store(large)
    taken = statuses.index(0xA700)
    assert taken >= (64 << 20) // 3_001_000  # and a few more, since the bound is looked at ten times a second
    assert statuses == [0x0000] * taken + [0xA700] * (50 - taken)
    assert far.store(make_study(3)) == [0xA700] * 6
    ready, wrong = far.ready()
    assert not ready and "journal.bytes_max" in wrong["journal"] and "tier" in wrong
    far.assert_served(far.sent)

    far.hdfs.command("up")
    far.wait_until_packed()
    far.store_all([*large[taken : taken + 3], *make_study(3)])
    far.assert_whole()


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_node_starts_while_hdfs_is_away(far: FarNode, start_far: Callable[..., FarNode], hdfs: Hdfs) -> None:
    """It serves what is near and takes objects in; the number of the last pack is learned before the first one is written."""
    first, second, third = make_study(1), make_study(2), make_study(3)
    far.store_all(first)
    far.wait_until_packed()
    far.store_all(second)
    far.node.kill()  # Its upload, if one runs, is cut.
    hdfs.write(f"{far.folder}/.inflight/{far.node_name}-000000000007.zip", b"left over")
    hdfs.command("stop-namenode")
    far.node.start(wait_seconds=60)
    far.assert_frames(first)
    far.assert_served([*first, *second])
    far.store_all(third)
    far.assert_served(third)
    assert {"tier", "packing"} <= far.ready()[1].keys()
    # Another one, which lost everything but its name.
    lost = start_far("lost", far.folder)
    lost.store_all(make_study(4))
    lost.assert_served(lost.sent)
    assert lost.status()["packing_problem"] and lost.status()["tier_problem"]
    lost.node.kill()

    hdfs.command("up")
    far.assert_whole()
    before = len(far.packs())
    lost.node.start()
    lost.wait_until_packed()
    assert [pack.sequence for pack in far.packs()] == list(range(1, before + 2))
    lost.assert_served([*far.sent, *lost.sent])


def test_safe_mode_lets_reads_pass_and_keeps_packs_waiting(far: FarNode) -> None:
    cold, later = make_study(1), make_study(2)
    far.store_all(cold)
    far.wait_until_packed()
    far.go_cold()
    far.hdfs.command("enter-safemode")
    try:
        assert "afe mode" in far.ready()[1]["tier"]
        far.assert_served(cold)
        far.store_all(later)
        wait_until(lambda: "afe mode" in far.status()["packing_problem"], 30, far.node)
    finally:
        far.hdfs.command("leave-safemode")
    far.assert_whole()


@pytest.mark.timeout(240)
def test_one_data_node_of_three_is_no_trouble_for_reads_and_too_few_for_packs(far: FarNode) -> None:
    cold, second, third = make_study(1), make_study(2), make_study(3)
    far.store_all(cold)
    far.wait_until_packed()
    far.go_cold()
    far.hdfs.command("kill-datanode", "1")
    far.store_all(second)
    far.wait_until_packed()
    far.hdfs.command("kill-datanode", "3")
    far.assert_served(cold)
    far.assert_frames(cold)
    far.store_all(third)
    wait_until(lambda: "packing" in far.ready()[1], 60, far.node)
    assert far.status()["packing_problem"].startswith("packing failed")
    far.assert_served(far.sent)
    far.hdfs.command("up")
    far.assert_whole()


@pytest.mark.parametrize("quota", [{"storagespacequota": "1000000"}, {"namespacequota": "3"}], ids=["space", "names"])
def test_a_full_quota_keeps_packs_waiting(far: FarNode, quota: dict[str, str]) -> None:
    cold, later = make_study(1), make_study(2)
    far.store_all(cold)
    far.wait_until_packed()
    far.go_cold()
    far.hdfs.ask("PUT", far.folder, op="SETQUOTA", **({"namespacequota": "-1", "storagespacequota": "-1"} | quota))
    far.store_all(later)
    wait_until(lambda: "quota" in far.status()["packing_problem"], 30, far.node)
    assert "a quota of HDFS is reached" in far.ready()[1]["packing"]
    far.assert_served([*cold, *later])
    far.hdfs.ask("PUT", far.folder, op="SETQUOTA", namespacequota="-1", storagespacequota="-1")
    far.assert_whole()


def test_slow_daemons_make_nothing_fail(start_behind: Callable[..., FarNode]) -> None:
    far = start_behind()
    cold, later = make_study(1), make_study(2)
    far.store_all(cold)
    far.wait_until_packed()
    far.go_cold()
    slow = Fault(times=1000, delay_seconds=0.4)
    for proxy in far.proxies.values():
        proxy.faults.append(slow)
    far.store_all(later)
    far.assert_frames(cold)
    far.assert_served([*cold, *later])
    assert far.ready() == (True, {})
    far.assert_whole()
    assert slow.seen > 10


def test_daemons_that_are_too_slow_are_told_apart_from_none(start_behind: Callable[..., FarNode]) -> None:
    """Each answer comes later than it is waited for."""
    far = start_behind()
    cold = make_study(1)
    far.store_all(cold)
    far.wait_until_packed()
    far.go_cold()
    late = far.at_data_nodes(Fault("op=OPEN", times=1000, delay_seconds=6))
    for one in cold[:2]:
        assert_refused(far.frame(one))
    assert far.ready()[0] and late.seen
    late.times = 0
    wait_until(lambda: far.frame(cold[0]).status == 200, 20, far.node)
    far.assert_whole()
