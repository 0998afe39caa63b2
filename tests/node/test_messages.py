"""Messages between processes: whole lines in, whole objects out."""

import socket
from contextlib import closing

import pytest

from archive.errors import NotUnderstood
from archive.node import messages


def test_messages_arrive_in_order_and_whole() -> None:
    ours, theirs = socket.socketpair()
    sent: list[messages.Message] = [{"verb": "ping"}, {"progress": "line\nbreak, ü"}, {"n": 1}]
    with closing(theirs):
        with closing(ours):
            for message in sent:
                messages.send(ours, message)
        assert list(messages.receive(theirs)) == sent


def test_a_line_without_its_end_is_no_message() -> None:
    ours, theirs = socket.socketpair()
    with closing(theirs):
        with closing(ours):
            ours.sendall(b'{"a": 1}\n{"b": 2}')
        assert list(messages.receive(theirs)) == [{"a": 1}]


@pytest.mark.parametrize("line", [b"\n", b"GET / HTTP/1.1\r\n", b"[1]\n", b"\xff\xfe\n", b"{\n"])
def test_what_is_no_json_object_is_not_understood(line: bytes) -> None:
    with pytest.raises(NotUnderstood):
        messages.decode(line)


def test_a_line_that_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MESSAGE_BYTES_MAX", 100)
    ours, theirs = socket.socketpair()
    with closing(theirs), closing(ours):
        ours.sendall(b"x" * 101)
        with pytest.raises(NotUnderstood, match="more than 100 bytes"):
            next(messages.receive(theirs))
