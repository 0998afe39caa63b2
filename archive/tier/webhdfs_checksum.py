"""The checksum that DataNodes keep, computed while a file is written: MD5 of the blocks' MD5s of CRC-32Cs of chunks."""

import hashlib
import struct
import sys
from array import array

from crc32c import crc32c

from archive.disk import Bytes
from archive.tier.webhdfs_answers import Checksum

CHUNK_BYTES = 512
"""dfs.bytes-per-checksum as every cluster has it; one that has another is read back instead."""
CRC_BYTES = 4
_CHUNK = struct.Struct(f"{CHUNK_BYTES}s")  # unpacking costs half of what slicing does


class FileChecksum:
    """Fed with a file from start to end; keeps 4 bytes for each 512, which is 2 MiB for a pack of 256 MiB."""

    def __init__(self) -> None:
        self._crcs = array("I")
        self._rest = b""

    def update(self, data: Bytes) -> None:
        view = memoryview(data)
        if self._rest:
            take = CHUNK_BYTES - len(self._rest)
            self._rest += bytes(view[:take])
            view = view[take:]
            if len(self._rest) < CHUNK_BYTES:
                return
            self._crcs.append(crc32c(self._rest))
        whole = len(view) - len(view) % CHUNK_BYTES
        self._crcs.extend([crc32c(chunk) for (chunk,) in _CHUNK.iter_unpack(view[:whole])])
        self._rest = bytes(view[whole:])

    def md5(self, block_bytes: int) -> bytes:
        """As the DataNodes of a file of such blocks answer it, once everything was fed.

        Parameters
        ----------
        block_bytes : int
            A multiple of 512, as HDFS demands.
        """
        crcs = array("I", self._crcs)
        if self._rest:
            crcs.append(crc32c(self._rest))
        if sys.byteorder == "little":
            crcs.byteswap()
        kept = memoryview(crcs.tobytes())
        step = block_bytes // CHUNK_BYTES * CRC_BYTES
        blocks = b"".join(hashlib.md5(kept[at : at + step], usedforsecurity=False).digest() for at in range(0, len(kept), step))
        # Hadoop digests the whole of the buffer that it gathers them in: 32 bytes that double as they fill, the rest of them zero.
        capacity = max(32, 1 << (len(blocks) - 1).bit_length())
        return hashlib.md5(blocks.ljust(capacity, b"\0"), usedforsecurity=False).digest()


def is_comparable(answered: Checksum) -> bool:
    """Whether the DataNodes' checksum is of the kind that `FileChecksum` computes."""
    return answered.algorithm.startswith("MD5-of-") and answered.algorithm.endswith("CRC32C") and answered.chunk_bytes == CHUNK_BYTES
