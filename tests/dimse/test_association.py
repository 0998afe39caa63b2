"""How associations end: as they should, by abort, by violation, by loss at any byte, by silence."""

import logging
import random
import socket
import time
from collections.abc import Callable

import pytest

from tests.dimse.conftest import Served
from tests.dimse.peer import ABORT, RELEASE_RQ, Peer, associate_rq, c_store, c_store_rq, p_data, pdv

PROVIDER_ABORT = bytes.fromhex("07 00 00000004 0000 02")
USER_ABORT = bytes.fromhex("07 00 00000004 0000 00 00")


def settle(served: Served) -> None:
    """Wait until no association is open."""
    deadline = time.monotonic() + 5
    while served.server.counters.associations_open or served.server._threads:
        assert time.monotonic() < deadline, served.server.counters
        time.sleep(0.005)


def test_release(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.echo()
        peer.release()
    settle(served)
    counters = served.server.counters
    assert (counters.associations_accepted, counters.associations_released, counters.associations_aborted) == (1, 1, 0)
    assert counters.echoes == 1


def test_what_follows_a_release_is_ignored(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(RELEASE_RQ + RELEASE_RQ + b"garbage")
        assert peer.receive()[:1] == b"\x06"
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.receive() == b""
    settle(served)
    assert served.server.counters.associations_released == 1


def test_release_inside_a_message_forgets_it(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq())), p_data(pdv(3, 0, b"abc")))
        peer.release()
    settle(served)
    assert (len(served.ingest.arrived), served.ingest.aborted) == (0, 1)


def test_a_release_answer_to_no_request_is_aborted(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        assert peer.send(bytes.fromhex("06 00 00000004 00000000")).receive() == PROVIDER_ABORT + b"\x02"


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (associate_rq(), 2),  # a second one
        (bytes.fromhex("02 00 00000004 00000000"), 2),
        (bytes.fromhex("03 00 00000004 00000000"), 2),
        (bytes.fromhex("00 00 00000004 00000000"), 1),
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (bytes.fromhex("05 00 00000005 0000000000"), 6),
        (bytes.fromhex("07 00 ffffffff 00000000"), 6),
        (bytes.fromhex("04 00 ffffffff 00000000"), 6),
    ],
)
def test_pdus_out_of_place_are_aborted(served: Served, what: bytes, reason: int) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        assert peer.send(what).receive() == PROVIDER_ABORT + bytes([reason])


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 1),
        (bytes.fromhex("04 00 00000004 00000000"), 2),
        (RELEASE_RQ, 2),
        (bytes.fromhex("01 00 ffffffff"), 6),
        (bytes.fromhex("01 00 00000004 00010000"), 6),
        (associate_rq()[:200] + bytes(len(associate_rq()) - 200), 6),
        (associate_rq(contexts=[]), 6),
    ],
)
def test_greetings_that_are_none_are_aborted(served: Served, what: bytes, reason: int, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
        assert peer.send(what).receive() == PROVIDER_ABORT + bytes([reason])
    settle(served)
    assert [r.message for r in caplog.records if "connection dropped: peer=127.0.0.1:" in r.message]
    assert served.server.counters.associations_accepted == 0
    assert served.server.counters.connections_dropped == 1


def conversation() -> list[bytes]:
    """The PDUs of an association that stores 100 bytes in several fragments."""
    return [
        associate_rq(),
        p_data(pdv(3, 1, c_store_rq()[:40])),
        p_data(pdv(3, 3, c_store_rq()[40:]), pdv(3, 0, bytes(10))),
        p_data(pdv(3, 0, b""), pdv(3, 0, bytes(40))),
        p_data(pdv(3, 2, bytes(50))),
        RELEASE_RQ,
    ]


@pytest.mark.parametrize("how", ["close", "reset"])
def test_loss_at_any_byte_loses_what_was_not_answered_and_nothing_else(served: Served, how: str) -> None:
    data = b"".join(conversation())
    complete = len(data) - len(RELEASE_RQ)
    for end in range(len(data)):
        with Peer(served.port) as peer:
            peer.send(data[:end])
            if how == "close":
                # Closing with an unread answer would be a reset.
                peer.socket.shutdown(socket.SHUT_WR)
                while peer.receive():
                    continue
            else:
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    settle(served)
    arrived = served.ingest.arrived
    assert {a.data_set for a in arrived} <= {bytes(100)}
    assert len(arrived) <= len(data) - complete
    if how == "close":
        assert len(arrived) == len(data) - complete
    with Peer(served.port) as peer:
        peer.associate()
        peer.echo()


def test_abort_after_any_pdu(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    pdus = conversation()
    for count in range(1, len(pdus)):
        with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
            peer.send(*pdus[:count], ABORT)
            while peer.receive():
                continue
    settle(served)
    assert len(served.ingest.arrived) == 1
    assert served.ingest.aborted == 2
    assert served.server.counters.associations_aborted == len(pdus) - 1
    assert sum("aborted by the peer's service user, reason 0" in r.message for r in caplog.records) == len(pdus) - 1


def test_a_stall_inside_a_pdu_is_dropped_and_its_object_forgotten(serve: Callable[..., Served], caplog: pytest.LogCaptureFixture) -> None:
    served = serve(stall_seconds_max=0.3, idle_seconds_max=30)
    started = time.monotonic()
    with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
        peer.associate()
        peer.send((p_data(pdv(3, 3, c_store_rq())) + p_data(pdv(3, 2, bytes(5000))))[:-100])
        assert peer.receive() == USER_ABORT
    assert 0.25 < time.monotonic() - started < 2
    settle(served)
    assert (len(served.ingest.arrived), served.ingest.aborted) == (0, 1)
    assert any("aborted" in r.message and "silent for too long" in r.message for r in caplog.records)


def test_an_idle_association_is_aborted_in_its_time(serve: Callable[..., Served]) -> None:
    served = serve(stall_seconds_max=0.2, idle_seconds_max=0.7)
    with Peer(served.port) as peer:
        peer.associate()
        time.sleep(0.4)
        peer.echo()
        started = time.monotonic()
        assert peer.receive() == USER_ABORT
        assert 0.5 < time.monotonic() - started < 2


def test_a_greeting_in_drops_is_bounded_by_artim(serve: Callable[..., Served]) -> None:
    served = serve(artim_seconds=0.5)
    started = time.monotonic()
    with Peer(served.port) as peer:
        for byte in associate_rq():
            try:
                peer.send(bytes([byte]))
            except OSError:
                break
            if time.monotonic() - started > 3:
                break
            time.sleep(0.05)
    settle(served)
    assert 0.4 < time.monotonic() - started < 2
    assert served.server.counters.associations_accepted == 0


def test_a_peer_that_never_closes_is_closed_after_artim(serve: Callable[..., Served]) -> None:
    served = serve(artim_seconds=0.3)
    with Peer(served.port) as peer:
        peer.associate()
        assert peer.send(RELEASE_RQ).receive()[:1] == b"\x06"
        started = time.monotonic()
        assert peer.receive() == b""
        assert 0.2 < time.monotonic() - started < 2


def test_ten_thousand_fuzzed_pdus_leave_the_server_as_it_was(serve: Callable[..., Served]) -> None:
    served = serve(artim_seconds=0.2, stall_seconds_max=0.2)
    rng = random.Random(11)
    good = conversation()
    for _ in range(10_000 // len(good)):
        stream = bytearray(b"".join(good))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(stream)) if rng.random() < 0.5 else rng.randrange(len(good[0]), len(stream))
            stream[at] = rng.randrange(256)
        with Peer(served.port) as peer:
            peer.send(stream)
    settle(served)
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(c_store(b"after all that"))
        assert peer.status() == 0
        peer.release()
    assert served.ingest.arrived[-1].data_set == b"after all that"
    settle(served)
    assert served.server._slots.take(), "slots leaked"


def test_ends_are_logged_with_names_and_figures(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), Peer(served.port) as peer:
        peer.associate(calling="CT1")
        peer.send(c_store(b"abc"))
        peer.status()
        peer.release()
        settle(served)
    accepted, released = (r.message for r in caplog.records if r.name == "archive.dimse.association")
    assert accepted.startswith("association accepted: peer=127.0.0.1:") and "calling='CT1' called='ARCHIVE'" in accepted
    assert "contexts=2/2" in accepted
    assert released.startswith("association released: peer=127.0.0.1:") and "messages=1 bytes=3 seconds=0." in released
