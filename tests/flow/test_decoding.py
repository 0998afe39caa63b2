"""Frames are decoded in another process, which may die of one and is there again for the next."""

import contextlib
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from archive.dicom.decoding import Picture
from archive.errors import NotUnderstood
from archive.flow import decoding
from archive.flow.decoding import Decoder

SYNTAX = "1.2.840.10008.1.2.1.98"
PICTURE = Picture(2, 2, 1, 8, 8, 0, "MONOCHROME2", 0)


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    one = Decoder(1 << 20)
    yield one
    one.close()


def process_of(decoder: Decoder) -> int:
    process = decoder._process
    assert process is not None
    return process.pid


def test_frames(decoder: Decoder) -> None:
    assert decoder.decode(SYNTAX, PICTURE, b"abcd") == (b"abcd", "MONOCHROME2")
    first = process_of(decoder)
    with pytest.raises(NotUnderstood, match="3 bytes"):
        decoder.decode(SYNTAX, PICTURE, b"abc")
    assert decoder.decode(SYNTAX, PICTURE, b"efgh")[0] == b"efgh"
    assert process_of(decoder) == first


def test_a_decoder_beside_many_open_files(decoder: Decoder) -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(2048, limit[1]), limit[1]))
    with contextlib.ExitStack() as held:
        held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limit)
        for _ in range(1024):
            held.callback(os.close, os.dup(0))
        assert decoder.decode(SYNTAX, PICTURE, b"abcd")[0] == b"abcd"


def test_a_process_that_died_is_started_again(decoder: Decoder) -> None:
    decoder.decode(SYNTAX, PICTURE, b"abcd")
    os.kill(process_of(decoder), signal.SIGKILL)
    time.sleep(0.1)
    assert decoder.decode(SYNTAX, PICTURE, b"abcd")[0] == b"abcd"


def test_a_frame_that_kills_its_decoder_is_an_error(decoder: Decoder) -> None:
    decoder.decode(SYNTAX, PICTURE, b"abcd")
    pid = process_of(decoder)
    os.kill(pid, signal.SIGSTOP)

    def kill_it() -> None:
        time.sleep(0.3)
        os.kill(pid, signal.SIGSEGV)
        os.kill(pid, signal.SIGCONT)

    threading.Thread(target=kill_it).start()
    with pytest.raises(NotUnderstood, match="makes its decoder fail"):
        decoder.decode(SYNTAX, PICTURE, b"abcd")
    assert decoder.decode(SYNTAX, PICTURE, b"abcd")[0] == b"abcd"


def test_a_decoder_that_hangs_is_given_up(decoder: Decoder, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder.decode(SYNTAX, PICTURE, b"abcd")
    monkeypatch.setattr(decoding, "DECODE_SECONDS_MAX", 0.2)
    os.kill(process_of(decoder), signal.SIGSTOP)
    with pytest.raises(NotUnderstood, match="no answer"):
        decoder.decode(SYNTAX, PICTURE, b"abcd")
    monkeypatch.setattr(decoding, "DECODE_SECONDS_MAX", 60.0)
    assert decoder.decode(SYNTAX, PICTURE, b"abcd")[0] == b"abcd"


def test_a_frame_beyond_the_limit_is_not_begun(decoder: Decoder) -> None:
    with pytest.raises(NotUnderstood, match="limits.inflated_bytes_max"):
        decoder.decode(SYNTAX, Picture(2000, 2000, 1, 8, 8, 0, "MONOCHROME2", 0), b"")
