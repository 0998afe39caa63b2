"""Pieces cut into PDUs are put together again by whoever reads PDUs, whatever their sizes."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import P_DATA_TF

from archive.dimse.fragments import TOGETHER_BYTES, fragments_of
from archive.errors import Damaged


def pdus(encoded: bytes) -> list[bytes]:
    out, at = [], 0
    while at < len(encoded):
        length = struct.unpack(">I", encoded[at + 2 : at + 6])[0]
        out.append(encoded[at : at + 6 + length])
        at += 6 + length
    return out


@given(st.lists(st.binary(max_size=70), min_size=1).filter(any), st.integers(min_value=1, max_value=100))
def test_pieces_arrive_whole(pieces: list[bytes], fragment_bytes_max: int) -> None:
    whole = b"".join(pieces)
    encoded = b"".join(part for some in fragments_of(5, pieces, len(whole), fragment_bytes_max) for part in some)
    got = []
    for pdu in pdus(encoded):
        read = P_DATA_TF()
        read.decode(pdu)
        [item] = read.presentation_data_value_items
        assert item.presentation_context_id == 5
        assert item.presentation_data_value is not None
        got.append((item.presentation_data_value[0], item.presentation_data_value[1:]))
    assert b"".join(data for _, data in got) == whole
    assert [control for control, _ in got] == [0] * (len(got) - 1) + [2]
    assert all(0 < len(data) <= max(2, fragment_bytes_max) for _, data in got)
    assert all(len(data) % 2 == 0 for _, data in got[:-1])


def test_nothing_is_copied_and_a_large_object_is_not_gathered() -> None:
    taken = 0

    def pieces() -> object:
        nonlocal taken
        for _ in range(64):
            taken += 1
            yield memoryview(large)

    large = bytes(1 << 20)
    for n, some in enumerate(fragments_of(1, pieces(), 64 << 20, 131066)):  # type: ignore[arg-type]
        assert taken <= 1.2 * (n + 1) + 1
        assert sum(map(len, some)) <= TOGETHER_BYTES + (1 << 20)
        assert all(isinstance(part, bytes) and len(part) == 12 or part.obj is large for part in some)  # type: ignore[union-attr]
    assert taken == 64


@pytest.mark.parametrize("length", [9, 11])
def test_pieces_of_another_length_are_an_error(length: int) -> None:
    with pytest.raises(Damaged):
        list(fragments_of(1, [b"12345", b"67890"], length, 4))
