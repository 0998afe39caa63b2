"""The control socket: requests, progress, reports and errors between a verb and the node."""

import errno
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from archive.errors import Exhausted, NotUnderstood, Unavailable
from archive.node import control
from archive.node.asking import ask
from archive.node.control import ControlServer
from archive.node.lock import lock_data
from archive.node.messages import Message, receive, send
from archive.node.sockets import bind_control, connect_control

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    packs: int
    seconds: float


def pack_now(request: Message, progress: Progress) -> Report:
    progress("packing 1 of 2")
    progress("packing 2 of 2")
    return Report(int(request.get("packs", 2)), 0.5)


def refuse(request: Message, progress: Progress) -> None:
    raise Exhausted("the tier is full")


def fail(request: Message, progress: Progress) -> None:
    raise RuntimeError("a mistake of ours")


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    with closing(bind_control(tmp_path)) as listener:
        server = ControlServer(listener, {"pack-now": pack_now, "refuse": refuse, "fail": fail})
        server.start()
        yield tmp_path
        assert server.join(5.0)


def test_progress_and_report_come_back(data: Path) -> None:
    said: list[str] = []
    assert ask(data, {"verb": "pack-now", "packs": 7}, said.append) == {"done": True, "packs": 7, "seconds": 0.5}
    assert said == ["packing 1 of 2", "packing 2 of 2"]


def test_errors_keep_their_class(data: Path) -> None:
    with pytest.raises(Exhausted, match="the tier is full"):
        ask(data, {"verb": "refuse"}, print)


def test_an_unknown_verb_is_told_what_is_known(data: Path) -> None:
    with pytest.raises(Exception, match="unknown control verb 'dance'; known: fail, pack-now, refuse"):
        ask(data, {"verb": "dance"}, print)


def test_a_mistake_of_ours_is_an_answer_and_a_log_line(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(Exception, match="internal error: a mistake of ours"):
        ask(data, {"verb": "fail"}, print)
    assert "control verb failed" in caplog.text


def test_garbage_and_silence_harm_nobody(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "REQUEST_SECONDS_MAX", 0.1)
    with closing(connect_control(data)) as rude:
        rude.sendall(b"\x00\xff\n")
        assert next(receive(rude))["kind"] == NotUnderstood.__name__
    with closing(connect_control(data)) as silent:
        assert "no request came" in next(receive(silent))["error"]
    with closing(connect_control(data)):
        assert ask(data, {"verb": "pack-now"}, print)["done"]


def test_what_was_asked_for_goes_on_when_the_caller_leaves(tmp_path: Path) -> None:
    left, finished = threading.Event(), threading.Event()

    def work(request: Message, progress: Progress) -> None:
        assert left.wait(5.0)
        for n in range(100):
            progress(f"step {n}")
        finished.set()

    with closing(bind_control(tmp_path)) as listener:
        ControlServer(listener, {"work": work}).start()
        with closing(connect_control(tmp_path)) as caller:
            send(caller, {"verb": "work"})
        left.set()
        assert finished.wait(5.0)


def test_one_more_than_the_limit_is_told_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "CONNECTIONS_MAX", 1)
    go = threading.Event()
    with closing(bind_control(tmp_path)) as listener:
        server = ControlServer(listener, {"wait": lambda request, progress: go.wait(5.0)})
        server.start()
        with closing(connect_control(tmp_path)) as first:
            send(first, {"verb": "wait"})
            while not server._running:
                pass
            with pytest.raises(Exhausted):
                ask(tmp_path, {"verb": "wait"}, print)
            assert not server.join(0.05)
            go.set()
            assert next(receive(first)) == {"done": True, "report": True}


def test_a_node_that_goes_away_is_no_success(tmp_path: Path) -> None:
    with closing(bind_control(tmp_path)) as listener:

        def hang_up() -> None:
            connection, _ = listener.accept()
            with connection:
                next(receive(connection))
                send(connection, {"progress": "begun"})

        thread = threading.Thread(target=hang_up)
        thread.start()
        with pytest.raises(Unavailable, match="went away before it was done"):
            ask(tmp_path, {"verb": "pack-now"}, print)
        thread.join()


def test_a_node_that_just_took_the_lock_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        ask(tmp_path, {"verb": "pack-now"}, print)
    with lock_data(tmp_path, "serve"):
        answers: list[Message] = []
        asking = threading.Thread(target=lambda: answers.append(ask(tmp_path, {"verb": "pack-now"}, print)))
        asking.start()
        asking.join(0.2)
        assert asking.is_alive()
        with closing(bind_control(tmp_path)) as listener:
            ControlServer(listener, {"pack-now": pack_now}).start()
            asking.join(5.0)
        assert answers[0]["done"]


class ShortOfFiles(socket.socket):
    """Its process may not open another file, the first two times."""

    refused = 0

    def accept(self) -> tuple[socket.socket, object]:
        if self.refused < 2:
            self.refused += 1
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return super().accept()


def test_who_could_not_be_let_in_is_let_in_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(control, "RETRY_SECONDS", 0.01, raising=False)
    with closing(ShortOfFiles(fileno=bind_control(tmp_path).detach())) as listener:
        ControlServer(listener, {"pack-now": pack_now}).start()
        with closing(connect_control(tmp_path)) as caller:
            caller.settimeout(5)
            send(caller, {"verb": "pack-now"})
            assert list(receive(caller))[-1]["done"]
    assert caplog.text.count("Too many open files") == 2
