import tracemalloc
import zlib

import pytest

from archive.dicom.inflate import inflate
from archive.errors import NotUnderstood

PLAIN = bytes(range(256)) * 64


def deflated(window_bits: int) -> bytes:
    stream = zlib.compressobj(wbits=window_bits)
    return stream.compress(PLAIN) + stream.flush()


@pytest.mark.parametrize("window_bits", [-15, 15])
@pytest.mark.parametrize("padding", [b"", b"\0"])
def test_a_deflated_data_set_is_inflated(window_bits: int, padding: bytes) -> None:
    assert inflate(memoryview(deflated(window_bits) + padding), len(PLAIN)) == PLAIN


def test_the_result_is_bounded() -> None:
    with pytest.raises(NotUnderstood, match="more than"):
        inflate(deflated(-15), len(PLAIN) - 1)


def test_a_bomb_is_refused_before_it_goes_off() -> None:
    stream = zlib.compressobj(9, wbits=-15)
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(64)) + stream.flush()
    tracemalloc.start()
    try:
        with pytest.raises(NotUnderstood, match="more than"):
            inflate(bomb, 1 << 20)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_every_truncation_is_refused() -> None:
    whole = deflated(-15)
    for length in range(len(whole)):
        with pytest.raises(NotUnderstood):
            inflate(whole[:length], len(PLAIN))


@pytest.mark.parametrize("data", [b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100", b"\xff" * 40])
def test_what_is_not_deflated_is_refused(data: bytes) -> None:
    with pytest.raises(NotUnderstood):
        inflate(data, 1 << 20)
