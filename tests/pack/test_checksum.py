"""CRCs over whole ranges and over the grid of blocks, against zlib over the same bytes."""

import hashlib
import random
import zlib

import pytest

from archive.pack.checksum import BLOCK_BYTES, BlockCrcs, crc32, crc32_of_blocks, digest_of

LENGTHS = [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES, 3 * BLOCK_BYTES + 17]


def test_it_is_the_crc_of_zip() -> None:
    assert crc32(b"123456789") == 0xCBF43926
    assert crc32(memoryview(b"6789"), crc32(b"12345")) == 0xCBF43926


def test_digests_of_objects() -> None:
    assert digest_of(b"") == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"  # of the paper
    assert digest_of(memoryview(b"abc"), "sha256") == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize("length", LENGTHS)
def test_blocks_of_bytes_that_come_in_any_pieces(length: int) -> None:
    random_bytes = random.Random(length)
    data = random_bytes.randbytes(length)
    crcs = BlockCrcs()
    at = 0
    while at < length:
        piece = random_bytes.randrange(1, 200_000)
        crcs.update(data[at : at + piece])
        at += piece
    wanted = [zlib.crc32(data[start : start + BLOCK_BYTES]) for start in range(0, length, BLOCK_BYTES)]
    assert crcs.length == length
    assert crcs.finish() == wanted
    assert crc32_of_blocks(wanted, length) == zlib.crc32(data)
