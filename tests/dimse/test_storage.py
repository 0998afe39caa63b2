"""C-STORE and C-ECHO: what is answered, and that the association stays usable after every refusal."""

import errno
import logging
from collections.abc import Callable

import pytest

from archive.dimse.command import encode_command
from archive.errors import Duplicate, Exhausted, Mismatch, NotUnderstood
from tests.dimse.conftest import Served
from tests.dimse.peer import CT, EXPLICIT, IMPLICIT, JPEG, VERIFICATION, Peer, c_store, c_store_rq, p_data, pdv
from tests.dimse.receptions import MemoryIngest

MR = "1.2.840.10008.5.1.4.1.1.4"


def test_an_object_is_handed_over_with_its_names(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate(calling="CT1")
        peer.send(c_store(b"abc", "1.2.840.1"))
        answer = peer.response()
        assert (answer.command_field, answer.number(0x0900), answer.number(0x0120)) == (0x8001, 0, 7)
        assert (answer.text(0x0002), answer.text(0x1000), answer.has_data_set) == (CT, "1.2.840.1", False)
        peer.release()
    [arrived] = served.ingest.arrived
    assert (arrived.sop_class_uid, arrived.sop_instance_uid, arrived.transfer_syntax_uid) == (CT, "1.2.840.1", EXPLICIT)
    assert (arrived.source, arrived.source_ae_title, arrived.data_set) == ("dimse:CT1@127.0.0.1", "CT1", b"abc")
    assert served.server.counters.snapshot()["objects_stored"] == 1
    assert served.server.counters.data_set_bytes == 3


FAILURES = [
    (NotUnderstood("no Study Instance UID"), 0xC000),
    (Mismatch("the data set names SOP Instance 1.2, the command 1.3"), 0xA900),
    (Duplicate("known"), 0x0111),
    (Exhausted("journal full"), 0xA700),
    (OSError(errno.ENOSPC, "No space left on device"), 0xA700),
    (RuntimeError("a bug"), 0x0110),
]


@pytest.mark.parametrize("where", ["begin", "room", "filled", "commit"])
@pytest.mark.parametrize(("error", "status"), FAILURES, ids=lambda value: getattr(type(value), "__name__", ""))
def test_a_refusal_is_answered_after_the_whole_data_set_and_the_next_object_is_stored(
    serve: Callable[..., Served], where: str, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve(MemoryIngest(room_bytes=100))
    served.ingest.failures[where] = error
    with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
        peer.associate()
        peer.send(
            p_data(pdv(3, 3, c_store_rq("1.2.3"))), p_data(pdv(3, 0, bytes(300))), p_data(pdv(3, 0, b"")), p_data(pdv(3, 2, bytes(9000)))
        )
        answer = peer.response()
        assert (answer.number(0x0900), answer.text(0x1000)) == (status, "1.2.3")
        assert answer.text(0x0902) and len(answer.text(0x0902)) <= 64
        del served.ingest.failures[where]
        peer.send(c_store(b"abc"))
        assert peer.status() == 0
        peer.release()
    assert [a.data_set for a in served.ingest.arrived] == [b"abc"]
    assert served.ingest.aborted == (0 if where == "begin" else 1)
    refused = [r.message for r in caplog.records if r.message.startswith("object refused")]
    assert len(refused) == 1
    assert f"status=0x{status:04X} peer=127.0.0.1:" in refused[0] and "calling='PEER' sop_instance_uid='1.2.3'" in refused[0]
    assert ("a bug" in caplog.text) == (type(error) is RuntimeError), "what went wrong inside belongs into the log"
    counters = served.server.counters
    assert (counters.objects_stored, counters.objects_refused, counters.data_set_bytes) == (1, 1, 9303)


@pytest.mark.parametrize(
    "uid", ["", "1.2/../../etc/passwd", "..", "1..2", ".1", "1.", "1" * 65, "1.2.x", "1.2 3", "1.2\0.3", "1.2.\xe9", "1\n2"]
)
@pytest.mark.parametrize("which", ["instance", "class"])
def test_ill_formed_uids_are_refused_before_they_become_a_name(
    served: Served, uid: str, which: str, caplog: pytest.LogCaptureFixture
) -> None:
    served.ingest.failures["begin"] = AssertionError("reached the ingest")
    uids = {0x1000: b"1.2.3", 0x0002: CT.encode(), 0x1000 if which == "instance" else 0x0002: uid.encode("latin-1")}
    command = encode_command({0x0100: 1, 0x0110: 1, 0x0800: 1, **uids})
    with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
        peer.associate()
        peer.send(p_data(pdv(3, 3, command)), p_data(pdv(3, 0, bytes(9999))), p_data(pdv(3, 2, bytes(9))))
        answer = peer.response()
        assert answer.number(0x0900) == 0x0117
        assert answer.text(0x0902).startswith("AffectedSOPInstanceUID" if which == "instance" else "AffectedSOPClassUID")
        assert answer.text(0x1000) == uids[0x1000].decode("latin-1").strip("\0 ")
        peer.echo()
        peer.release()
    assert "object refused: status=0x0117" in caplog.text


@pytest.mark.parametrize("uid", [b"1.2.3 ", b"1.2.3\0", b"1.2.03"])
def test_padding_and_leading_zeros_of_real_devices_are_taken(served: Served, uid: bytes) -> None:
    command = encode_command({0x0002: CT.encode(), 0x0100: 1, 0x0110: 1, 0x0800: 1, 0x1000: uid})
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, command)), p_data(pdv(3, 2, b"x")))
        assert peer.status() == 0
    assert served.ingest.arrived[0].sop_instance_uid == uid.decode().strip("\0 ")


def test_a_row_is_about_what_is_stored_and_not_only_about_its_context(serve: Callable[..., Served]) -> None:
    served = serve(peers={"PEER": {"sop_classes": [CT], "transfer_syntaxes": [EXPLICIT], "may_retrieve": True}})
    mr = encode_command({0x0002: MR.encode(), 0x0100: 1, 0x0110: 1, 0x0800: 1, 0x1000: b"1.2.3"})
    with Peer(served.port) as peer:
        peer.associate(contexts=[(1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT]), (5, CT, [JPEG])], roles={CT: (1, 1)})
        peer.send(p_data(pdv(3, 3, mr)), p_data(pdv(3, 2, b"xy")))
        assert peer.status() == 0x0124
        peer.send(p_data(pdv(5, 3, c_store_rq())), p_data(pdv(5, 2, b"xy")))  # accepted for what it gets by C-GET
        assert peer.status() == 0x0124
        peer.send(c_store(b"xy"))
        assert peer.status() == 0
    assert len(served.ingest.arrived) == 1


def test_a_store_without_a_data_set_is_not_understood(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, c_store_rq(data_set_type=0x0101))))
        assert peer.status() == 0xC000
        peer.echo()


def test_operations_of_other_services_are_refused_and_their_data_sets_read(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    find = encode_command({0x0002: CT.encode(), 0x0100: 0x0020, 0x0110: 5, 0x0700: 0, 0x0800: 1})
    with Peer(served.port) as peer, caplog.at_level(logging.WARNING):
        peer.associate()
        peer.send(p_data(pdv(3, 3, find)), p_data(pdv(3, 2, bytes(500))))
        answer = peer.response()
        assert (answer.command_field, answer.number(0x0900), answer.number(0x0120)) == (0x8020, 0x0211, 5)
        peer.send(p_data(pdv(1, 3, c_store_rq())), p_data(pdv(1, 2, bytes(500))))  # on the Verification context
        assert peer.status() == 0x0211
        peer.echo()
    assert served.ingest.arrived == []
    assert caplog.text.count("operation 0x") == 2


def test_a_cancel_of_what_is_over_is_passed_by(served: Served) -> None:
    with Peer(served.port) as peer:
        peer.associate()
        peer.send(p_data(pdv(3, 3, encode_command({0x0100: 0x0FFF, 0x0120: 3, 0x0800: 0x0101}))))
        peer.echo()
