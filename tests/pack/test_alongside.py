"""What is done beside a stream: in order, whole, and never in its way for ever."""

import threading

import pytest

from archive.pack import alongside
from archive.pack.alongside import Alongside


def threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "alongside"]


def test_every_chunk_in_order_and_elsewhere() -> None:
    seen: list[tuple[bytes, int]] = []
    chunks = [bytes([n]) * n for n in range(50)]
    with Alongside(lambda chunk: seen.append((bytes(chunk), threading.get_ident()))) as work:
        assert list(work.through(chunks)) == chunks
        work.finish()
        assert [chunk for chunk, _ in seen] == chunks
    assert threading.get_ident() not in {thread for _, thread in seen}
    assert threads() == []


def test_it_is_not_far_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alongside, "BEHIND_BYTES_MAX", 1000)
    go = threading.Event()
    sent: list[int] = []
    with Alongside(lambda _: go.wait(10)) as work:
        stream = work.through([bytes(400)] * 10)

        def send() -> None:
            sent.extend(len(chunk) for chunk in stream)

        sender = threading.Thread(target=send)
        sender.start()
        sender.join(0.3)
        assert 1 <= len(sent) <= 3
        go.set()
        sender.join(10)
        assert sent == [400] * 10
        work.finish()


def test_an_error_is_raised_by_the_stream_or_at_its_end() -> None:
    def fail(chunk: memoryview) -> None:
        if bytes(chunk) == b"bad":
            raise ValueError("cannot")

    with Alongside(fail) as work, pytest.raises(ValueError, match="cannot"):
        list(work.through([b"good", b"bad"]))
        work.finish()
    with Alongside(fail) as work, pytest.raises(ValueError, match="cannot"):
        for _ in work.through([b"bad"] * 100_000):
            pass
    assert threads() == []


def test_what_is_abandoned_is_over() -> None:
    begun = threading.Event()
    done: list[int] = []

    def work_on(_: memoryview) -> None:
        begun.set()
        done.append(1)
        threading.Event().wait(0.05)

    with pytest.raises(KeyError), Alongside(work_on) as work:
        for number, _ in enumerate(work.through([b"x"] * 100)):
            if number == 50:
                begun.wait(10)
                raise KeyError
    assert threads() == []
    assert len(done) < 50
