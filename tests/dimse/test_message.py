"""Messages in every fragmentation, byte for byte."""

import contextlib
import random
import socket
from collections.abc import Callable

import pytest

from archive.dimse.command import Command, CommandField, encode_command
from archive.dimse.message import Context, Messages
from archive.dimse.pdu import Violation
from archive.dimse.wire import Wire
from tests.dimse.conftest import Served
from tests.dimse.peer import CT, EXPLICIT, IMPLICIT, JPEG, VERIFICATION, Peer, c_store, c_store_rq, p_data, pdv
from tests.dimse.receptions import MemoryIngest


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut into fragments, some of them empty."""
    if rng.random() < 0.1:
        return [data]
    places = sorted(rng.choices(range(len(data) + 1), k=rng.randrange(0, 8)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def random_message(command: bytes, data_set: bytes, context_id: int, rng: random.Random) -> bytes:
    """PDUs of a message in random fragments, several to a PDU, command and data set in one PDU too."""
    parts = [(1, part) for part in cut(command, rng)] + [(0, part) for part in cut(data_set, rng)]
    last = {max(n for n, (kind, _) in enumerate(parts) if kind == which) for which in (0, 1)}
    values = [pdv(context_id, kind | (2 if n in last else 0), part) for n, (kind, part) in enumerate(parts)]
    pdus = []
    while values:
        count = rng.randrange(1, 5)
        pdus.append(p_data(*values[:count]))
        values = values[count:]
    return b"".join(pdus)


@pytest.mark.parametrize("room_bytes", [1 << 20, 1000, 7])
def test_any_fragmentation_arrives_byte_for_byte(serve: Callable[..., Served], room_bytes: int) -> None:
    served = serve(MemoryIngest(room_bytes=room_bytes))
    rng, sent = random.Random(room_bytes), []
    with Peer(served.port) as peer:
        peer.associate(contexts=[(1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT]), (5, CT, [JPEG])])
        for n in range(150):
            data_set = rng.randbytes(rng.choice([0, 1, 2, 9, 333, 4096, 8191, 8192, 8193, 20_001]))
            uid, context_id = f"1.2.{n}", rng.choice([3, 5])
            sent.append((uid, {3: EXPLICIT, 5: JPEG}[context_id], data_set))
            message = random_message(c_store_rq(uid, message_id=n), data_set, context_id, rng)
            for at in range(0, len(message), size := rng.choice([1 << 20, 1448, 401])):
                peer.send(message[at : at + size])
            answer = peer.response()
            assert (answer.number(0x0900), answer.number(0x0120), answer.text(0x1000)) == (0, n, uid)
        peer.release()
    assert [(a.sop_instance_uid, a.transfer_syntax_uid, a.data_set) for a in served.ingest.arrived] == sent


def test_the_largest_pdu_is_taken_and_a_larger_one_is_not(serve: Callable[..., Served]) -> None:
    served = serve(pdu_bytes_max=65536)
    data_set = random.Random(2).randbytes(65536 - 6)
    with Peer(served.port) as peer:
        user = peer.associate().user_information
        assert user is not None and user.maximum_length == 65536
        peer.send(c_store(data_set))
        assert peer.status() == 0
        peer.send(c_store(data_set + b"x"))
        assert peer.receive() == bytes.fromhex("07 00 00000004 0000 02 06")
    assert [a.data_set for a in served.ingest.arrived] == [data_set]


def test_an_object_larger_than_any_buffer(serve: Callable[..., Served]) -> None:
    served = serve(MemoryIngest(room_bytes=100_000))
    data_set = random.Random(4).randbytes(9_000_001)
    pieces = [data_set[at : at + 262_138] for at in range(0, len(data_set), 262_138)]
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq())))
        for n, piece in enumerate(pieces, 1):
            peer.send(p_data(pdv(3, 2 if n == len(pieces) else 0, piece)))
        assert peer.status() == 0
    assert served.ingest.arrived[0].data_set == data_set


def test_responses_keep_to_what_the_peer_takes(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate(maximum_length=40)
        peer.send(c_store(b"abc", "1." + "9" * 60))
        sizes, encoded = [], b""
        while True:
            pdu = peer.receive()
            sizes.append(len(pdu) - 6)
            encoded += pdu[12:]
            if pdu[11] & 2:
                break
        assert max(sizes) == 40 and len(sizes) > 3
        assert b"1." + b"9" * 60 in encoded


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        (p_data(pdv(5, 3, c_store_rq())), 6),  # a context that was not accepted
        (p_data(pdv(3, 2, b"abc")), 5),  # a data set without a command
        (p_data(pdv(3, 3, c_store_rq())) + p_data(pdv(1, 2, b"abc")), 5),  # a data set in another context
        (p_data(pdv(3, 3, c_store_rq())) + p_data(pdv(3, 0, b"abc")) + p_data(pdv(3, 3, c_store_rq())), 5),  # a command inside it
        (p_data(pdv(3, 1, c_store_rq()[:20])) + p_data(pdv(3, 2, b"abc")), 5),  # a data set inside a command
        (p_data(pdv(3, 3, c_store_rq()[:-1])), 6),
        (p_data(pdv(3, 3, b"")), 6),
        (b"".join(p_data(pdv(3, 1, bytes(16000))) for _ in range(5)), 6),  # a command without end
        (p_data(pdv(3, 3, c_store_rq())) + p_data(b""), 6),
        (p_data(b"\0\0\0\x01\x03"), 6),
        (p_data(b"\0\0\0\x01\x03\x03"), 6),
        (p_data(b"\xff\xff\xff\xff\x03\x03" + c_store_rq()), 6),
        (p_data(pdv(3, 3, c_store_rq()) + b"\0\0\0"), 6),
        (p_data(pdv(3, 3, c_store_rq())) + p_data(pdv(3, 2, b"abc")[:-1]), 6),  # longer than its PDU
        (p_data(pdv(3, 3, c_store_rq(data_set_type=0x0101).replace(b"\x01\x00\x00\x00\x10\x01", b"\x01\x80\x00\x00\x10\x01"))), 0),
    ],
)
def test_broken_messages_are_aborted_with_the_reason(served: Served, what: bytes, reason: int) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(what)
        assert peer.receive() == bytes.fromhex("07 00 00000004 0000 02") + bytes([reason])
    assert served.ingest.arrived == []
    with Peer(served.port) as peer:
        peer.associate()
        peer.echo()


def test_a_response_to_somebody_elses_request_is_no_answer_to_ours() -> None:
    """Reports and sub-operations are counted each for itself: both may bear the same number."""
    report, store, other = (
        encode_command({0x0100: field | 0x8000, 0x0120: number, 0x0800: 0x0101, 0x0900: 0})
        for field, number in ((0x0100, 1), (0x0001, 1), (0x0001, 2))
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), timeout=10)
        wire = Wire(listener.accept()[0], 2.0, 2.0)
    with client, contextlib.closing(wire):
        messages = Messages(wire, {3: Context(3, CT, EXPLICIT)}, 16384, 16384)
        taken: list[int] = []

        def take(command: Command) -> bool:
            taken.append(command.command_field)
            return command.command_field == 0x8100

        messages.take_other = take
        client.sendall(p_data(pdv(3, 3, report)) + p_data(pdv(3, 3, store)))
        assert messages.read_response(CommandField.C_STORE_RQ, 1).command_field == 0x8001
        assert taken == [0x8100]
        client.sendall(p_data(pdv(3, 3, other)))
        with pytest.raises(Violation, match="no response to message 1"):
            messages.read_response(CommandField.C_STORE_RQ, 1)
