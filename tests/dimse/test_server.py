"""Many connections at once: silent ones, idle ones, too many; and a clean end."""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from archive.config import Settings
from archive.dimse.server import UNASSOCIATED_MAX, Server
from archive.dimse.slots import AssociationSlots, create_slots
from archive.dimse.verification import Verification
from tests.dimse.conftest import Served
from tests.dimse.peer import ABORT, RELEASE_RP, RELEASE_RQ, Peer, associate_rq, c_store, c_store_rq, p_data, pdv
from tests.dimse.test_association import USER_ABORT, settle

LOCAL_LIMIT_EXCEEDED = bytes.fromhex("03 00 00000004 00 02 03 02")


def test_sixty_silent_and_sixty_idle_peers_hold_up_nobody(serve: Callable[..., Served]) -> None:
    served = serve(artim_seconds=30, idle_seconds_max=60)
    with ExitStack() as stack:
        _silent, idle = ([stack.enter_context(Peer(served.port)) for _ in range(60)] for _ in range(2))
        for peer in idle:
            peer.associate()
        started = time.monotonic()
        with Peer(served.port) as peer:
            peer.associate()
            peer.send(c_store(bytes(10_000)))
            assert peer.status() == 0
            peer.release()
        assert time.monotonic() - started < 2
        for peer in idle:
            peer.echo()
        assert served.server.counters.associations_open == 60
    settle(served)


def test_sixty_that_stall_or_die_and_the_next_is_served(serve: Callable[..., Served]) -> None:
    """At every point of an object: some stay and say nothing more, some are reset, some close, some abort."""
    served = serve(stall_seconds_max=30, idle_seconds_max=60, associations_max=100)
    conversation = p_data(pdv(3, 3, c_store_rq())) + p_data(pdv(3, 0, bytes(4000))) + p_data(pdv(3, 2, bytes(4000)))
    with ExitStack() as stack:
        for number in range(60):
            peer = stack.enter_context(Peer(served.port))
            peer.associate()
            peer.send(conversation[: 1 + number * (len(conversation) - 1) // 60])
            if number % 4 == 1:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                peer.socket.close()
            elif number % 4 == 2:
                peer.socket.close()
            elif number % 4 == 3:
                peer.send(ABORT)
        started = time.monotonic()
        with Peer(served.port) as peer:
            peer.associate()
            peer.send(c_store(bytes(10_000)))
            assert peer.status() == 0
            peer.release()
        assert time.monotonic() - started < 1
    settle(served)
    assert len(served.ingest.arrived) == 1
    assert served.server.counters.associations_aborted == 60


def test_a_full_node_rejects_with_a_reason_and_takes_the_next_when_one_leaves(
    serve: Callable[..., Served], caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(associations_max=2)
    with Peer(served.port) as first, Peer(served.port) as second, Peer(served.port) as third, caplog.at_level(logging.WARNING):
        first.associate()
        second.associate()
        assert third.send(associate_rq(calling="THIRD")).receive() == LOCAL_LIMIT_EXCEEDED
        assert "association rejected: peer=127.0.0.1:" in caplog.text and "calling='THIRD'" in caplog.text
        assert "local limit exceeded" in caplog.text
        first.release()
        with Peer(served.port) as fourth:
            fourth.associate()
            fourth.echo()
            second.echo()
    assert served.server.counters.associations_rejected == 1


def test_silent_connections_take_no_association_slot_and_the_oldest_goes_first(serve: Callable[..., Served]) -> None:
    served = serve(associations_max=1, artim_seconds=30)
    with ExitStack() as stack:
        silent = [stack.enter_context(Peer(served.port)) for _ in range(UNASSOCIATED_MAX)]
        peer = stack.enter_context(Peer(served.port))
        peer.associate()
        peer.echo()
        assert silent[0].receive() == b""
        silent[-1].socket.settimeout(0.1)
        with pytest.raises(TimeoutError):
            silent[-1].socket.recv(1)


def test_connections_that_linger_after_their_end_hold_no_slot(serve: Callable[..., Served]) -> None:
    served = serve(associations_max=1, artim_seconds=30)
    with ExitStack() as stack:
        for _ in range(5):
            peer = stack.enter_context(Peer(served.port))
            peer.associate()
            assert peer.send(RELEASE_RQ).receive() == RELEASE_RP


def test_titles_by_policy(serve: Callable[..., Served]) -> None:
    served = serve(called_ae_title_required=True, calling_ae_titles=["CT1"])
    for called, calling, reason in (("ARCHIVE", "MR1", 3), ("OTHER", "CT1", 7)):
        with Peer(served.port) as peer:
            assert peer.send(associate_rq(called=called, calling=calling)).receive() == bytes.fromhex("03 00 00000004 00 01 01") + bytes(
                [reason]
            )
    with Peer(served.port) as peer:
        peer.associate(called="ARCHIVE", calling="CT1")


def test_a_peer_has_as_many_associations_as_its_row_says(serve: Callable[..., Served]) -> None:
    served = serve(peers={"CT1": {"associations_max": 2}}, associations_max=3)
    with ExitStack() as stack:
        first, second, third, other = (stack.enter_context(Peer(served.port)) for _ in range(4))
        first.associate(calling="CT1")
        second.associate(calling="CT1")
        local_limit_exceeded = bytes.fromhex("03 00 00000004 00 02 03 02")
        assert third.send(associate_rq(calling="CT1")).receive() == local_limit_exceeded
        other.associate(calling="MR1")
        first.release()
        stack.enter_context(Peer(served.port)).associate(calling="CT1")


def test_stop_aborts_the_idle_and_refuses_the_new(served: Served) -> None:
    with Peer(served.port) as silent, Peer(served.port) as idle:
        idle.associate()
        assert served.server.counters.connections == 2
        started = time.monotonic()
        served.server.stop(5)
        assert time.monotonic() - started < 2
        assert idle.receive() == USER_ABORT
        assert silent.receive() == b""
    assert served.server.counters.associations_open == 0


def test_stop_lets_an_object_on_its_way_come_to_its_end(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq())), p_data(pdv(3, 0, b"abc")))
        time.sleep(0.1)
        stopping = threading.Thread(target=served.server.stop, args=(5,))
        stopping.start()
        time.sleep(0.2)
        peer.send(p_data(pdv(3, 2, b"def")))
        assert peer.status() == 0
        assert peer.receive() == USER_ABORT
        stopping.join()
    assert [a.data_set for a in served.ingest.arrived] == [b"abcdef"]


def test_stop_aborts_what_takes_too_long(serve: Callable[..., Served]) -> None:
    served = serve(stall_seconds_max=60)
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq())), p_data(pdv(3, 0, b"abc")))
        time.sleep(0.1)
        started = time.monotonic()
        served.server.stop(0.3)
        assert 0.25 < time.monotonic() - started < 2.5
        assert peer.receive() == USER_ABORT
    assert (len(served.ingest.arrived), served.ingest.aborted) == (0, 1)


def test_a_stopped_server_leaves_the_listener_to_the_others() -> None:
    with ExitStack() as stack:
        port, _, servers = start_workers(stack)
        servers[0].stop()
        for _ in range(3):
            with Peer(port) as peer:
                peer.associate()
                peer.release()
        assert servers[1].counters.associations_accepted == 3


def start_workers(stack: ExitStack) -> tuple[int, list[AssociationSlots], list[Server]]:
    """Two servers that share a listening socket; the port, and what they count by."""
    listener = stack.enter_context(socket.socket())
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    descriptor = create_slots(2)
    stack.callback(os.close, descriptor)
    slots = [AssociationSlots(descriptor, index, 9) for index in (0, 1)]
    servers = [Server(Settings.model_validate({}), listener, [Verification()], own) for own in slots]
    for server in servers:
        server.start()
        stack.callback(server.stop)
    return listener.getsockname()[1], slots, servers


def test_two_workers_share_what_comes_at_once() -> None:
    with ExitStack() as stack:
        port, _, servers = start_workers(stack)
        for peer in [stack.enter_context(Peer(port)) for _ in range(6)]:
            peer.associate()
        deadline = time.monotonic() + 5
        while sum(server.counters.associations_open for server in servers) < 6:  # counted a moment after the peer's answer went out
            assert time.monotonic() < deadline
            time.sleep(0.005)
        assert min(server.counters.associations_open for server in servers) >= 2


def test_the_worker_with_more_connections_leaves_new_ones_to_the_other_if_it_is_there() -> None:
    with ExitStack() as stack:
        port, slots, servers = start_workers(stack)
        slots[0].count_connection(5)
        for _ in range(4):
            stack.enter_context(Peer(port)).associate()
        assert [server.counters.connections for server in servers] == [0, 4]
        servers[1].stop()
        stack.enter_context(Peer(port)).associate()
        assert servers[0].counters.connections == 1


def test_sixteen_associations_at_once_store_everything(served: Served) -> None:
    def send(which: int) -> None:
        with Peer(served.port) as peer:
            peer.associate(calling=f"CT{which}")
            for n in range(20):
                peer.send(c_store(bytes([which]) * (100 + n), f"1.{which}.{n}"))
                assert peer.status() == 0
            peer.release()

    threads = [threading.Thread(target=send, args=(which,)) for which in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    arrived = {a.sop_instance_uid: a.data_set for a in served.ingest.arrived}
    assert arrived == {f"1.{which}.{n}": bytes([which]) * (100 + n) for which in range(16) for n in range(20)}
    settle(served)
    assert served.server.counters.objects_stored == 320
