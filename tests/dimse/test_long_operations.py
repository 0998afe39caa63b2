"""What a service may do on an association while it answers one request: a service of the tests' own, over real sockets."""

import time
from collections.abc import Callable, Sequence

import pytest

from archive.config import RemoteAe
from archive.dimse.command import Command, CommandField, encode_command
from archive.dimse.message import Context
from archive.dimse.service import Requestor
from archive.dimse.status import CANCEL, CANNOT_UNDERSTAND, PENDING, SUCCESS
from archive.errors import BadInput
from tests.dimse.conftest import Served
from tests.dimse.peer import (
    ABORT,
    CONTEXTS,
    IMPLICIT,
    RELEASE_RQ,
    Peer,
    c_echo_rq,
    c_store,
    p_data,
    pdv,
)

COUNTING = "1.2.840.10008.5.1.4.1.2.2.1"
DATA_SET_BYTES_MAX = 50_000


class Counting:
    """Answers a request with as many pending responses as its data set has bytes, each with that data set; without one, until cancelled."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.extended: bytes | None = None

    def supports(self, abstract_syntax: str) -> bool:
        return abstract_syntax == COUNTING

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        return remote_ae.may_query

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        return proposed[0]

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        return scu, False

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        return information[:2]

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        if command.command_field != CommandField.C_FIND_RQ:
            return False
        messages, context_id = association.messages, context.context_id
        self.extended = association.extended.get(COUNTING)
        status, data = SUCCESS, b""
        if command.has_data_set:
            try:
                data = messages.receive_data_set(DATA_SET_BYTES_MAX)
            except BadInput:
                status = CANNOT_UNDERSTAND
            self.seen.append(data)
            for _ in range(min(len(data), 500)):
                messages.send_soon(context_id, command.respond(PENDING, has_data_set=True), data)
        while not command.has_data_set:
            messages.send_soon(context_id, command.respond(PENDING))
            messages.flush()
            time.sleep(0.002)
            if messages.is_cancelled(command.message_id):
                status = CANCEL
                break
        messages.send(context_id, command.respond(status))
        return True


def c_find_rq(message_id: int = 7, data_set: bool = True) -> bytes:
    return encode_command({0x0002: COUNTING.encode(), 0x0100: 0x0020, 0x0110: message_id, 0x0700: 0, 0x0800: 1 if data_set else 0x0101})


def c_cancel_rq(message_id: int = 7) -> bytes:
    return p_data(pdv(5, 3, encode_command({0x0100: 0x0FFF, 0x0120: message_id, 0x0800: 0x0101})))


@pytest.fixture
def counting(serve: Callable[..., Served]) -> tuple[Counting, Served]:
    service = Counting()
    return service, serve(services=[service], peers={"BLIND": {"may_query": False}})


def associated(peer: Peer, **options: object) -> Peer:
    peer.associate(contexts=[*CONTEXTS, (5, COUNTING, [IMPLICIT])], **options)
    return peer


@pytest.mark.parametrize("maximum_length", [0, 7, 64, 1000, 16384])
def test_many_answers_with_data_sets_in_fragments_that_the_peer_takes(counting: tuple[Counting, Served], maximum_length: int) -> None:
    data = bytes(range(200))
    with Peer(counting[1].port) as peer:
        associated(peer, maximum_length=maximum_length)
        peer.send(p_data(pdv(5, 3, c_find_rq())), p_data(pdv(5, 0, data[:77]), pdv(5, 2, data[77:])))
        for _ in data:
            command, answer = peer.message()
            assert (command.command_field, command.number(0x0900), command.number(0x0120), answer) == (0x8020, PENDING, 7, data)
        assert peer.status() == SUCCESS
        peer.echo()
    assert counting[0].seen == [data]


def test_no_pdu_is_larger_than_the_peer_takes(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer, maximum_length=64)
        peer.send(p_data(pdv(5, 3, c_find_rq())), p_data(pdv(5, 2, bytes(100))))
        sizes = {len(peer.receive()) - 6 for _ in range(50)}
    assert max(sizes) == 64


def test_a_data_set_beyond_the_bound_is_read_to_its_end(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer)
        for size in (DATA_SET_BYTES_MAX, DATA_SET_BYTES_MAX + 1):
            halves = [p_data(pdv(5, 0, bytes(size // 2))), p_data(pdv(5, 2, bytes(size - size // 2)))]
            peer.send(p_data(pdv(5, 3, c_find_rq())), *halves)
            while (command := peer.message()[0]).number(0x0900) == PENDING:
                continue
            assert command.number(0x0900) == (SUCCESS if size == DATA_SET_BYTES_MAX else CANNOT_UNDERSTAND)
        peer.echo()
    assert [len(data) for data in counting[0].seen] == [DATA_SET_BYTES_MAX, 0]


@pytest.mark.parametrize("pieces", [1, 20])
def test_a_cancel_is_noticed_between_answers(counting: tuple[Counting, Served], pieces: int) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer)
        for message_id in (7, 8):
            peer.send(p_data(pdv(5, 3, c_find_rq(message_id, data_set=False))))
            assert peer.status() == PENDING
            peer.send(c_cancel_rq(message_id + 1))  # of something else
            assert peer.status() == PENDING
            cancel = c_cancel_rq(message_id)
            for n in range(pieces):
                peer.send(cancel[len(cancel) * n // pieces : len(cancel) * (n + 1) // pieces])
                time.sleep(0.001)
            while (answer := peer.response()).number(0x0900) == PENDING:
                continue
            assert (answer.number(0x0900), answer.number(0x0120)) == (CANCEL, message_id)
        peer.echo()


def test_requests_sent_ahead_are_answered_in_their_order(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer, operations=(8, 1))
        peer.send(p_data(pdv(5, 3, c_find_rq(7, data_set=False))), c_cancel_rq(7))
        peer.send(c_store(b"abcd"), p_data(pdv(1, 3, c_echo_rq(21))), p_data(pdv(5, 3, c_find_rq(9))), p_data(pdv(5, 2, b"xy")))
        while (answer := peer.response()).number(0x0900) == PENDING:
            continue
        assert answer.number(0x0900) == CANCEL
        assert peer.response().command_field == 0x8001
        assert peer.response().number(0x0120) == 21
        assert [peer.message()[1] for _ in range(3)] == [b"xy", b"xy", b""]
    assert [a.data_set for a in counting[1].ingest.arrived] == [b"abcd"]


def test_a_request_in_the_middle_of_an_operation_waits_for_its_turn(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer)
        peer.send(p_data(pdv(5, 3, c_find_rq(data_set=False))))
        assert peer.status() == PENDING
        peer.send(c_store(b"abcd"))
        for _ in range(20):
            assert peer.status() == PENDING
        # Behind a request that waits, a cancel is not seen; the end of the connection is when nothing can be sent.
    deadline = time.monotonic() + 5
    while counting[1].server.counters.associations_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("end", [ABORT, RELEASE_RQ, b"", b"rubbish"])
def test_the_end_of_an_association_ends_the_operation(counting: tuple[Counting, Served], end: bytes) -> None:
    with Peer(counting[1].port) as peer:
        associated(peer)
        peer.send(p_data(pdv(5, 3, c_find_rq(data_set=False))))
        assert peer.status() == PENDING
        peer.send(end)
        peer.socket.shutdown(1)
        deadline = time.monotonic() + 5
        while counting[1].server.counters.associations_open:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_extended_negotiation_is_answered_and_kept(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        user = peer.associate(
            contexts=[(5, COUNTING, [IMPLICIT])], extended={COUNTING: b"\1\0\1", "1.2.840.10008.1.1": b"\1", "1.2.3.4.5.6": b"\1"}
        ).user_information
        assert user is not None
        answered = {str(item.sop_class_uid): item.service_class_application_information for item in user.ext_neg}
        assert answered == {COUNTING: b"\1\0"}
        peer.send(p_data(pdv(5, 3, c_find_rq())), p_data(pdv(5, 2, b"a")))
        assert peer.message()[1] == b"a"
    assert counting[0].extended == b"\1\0"


def test_a_peer_without_the_right_gets_no_context(counting: tuple[Counting, Served]) -> None:
    with Peer(counting[1].port) as peer:
        answer = peer.associate(contexts=[*CONTEXTS, (5, COUNTING, [IMPLICIT])], calling="BLIND")
        assert [context.result for context in answer.presentation_context] == [0, 0, 1]
