"""One flipped bit, found by the CRC-32 that it breaks: memory and links flip single bits, and then no other copy is needed.

A CRC-32 tells every place of one bit from every other up to 512 MiB. More than one wrong bit may look like one elsewhere, so whoever
mends by this holds the outcome against a digest.
"""

from archive.pack.checksum import Bytes, crc32


def _table() -> list[int]:
    out = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0xEDB88320 if byte & 1 else 0)
        out.append(byte)
    return out


_TABLE = _table()
_BY_TOP = {value >> 24: index for index, value in enumerate(_TABLE)}
_BITS = {_TABLE[1 << bit]: bit for bit in range(8)}


def without_flip(data: Bytes, crc: int) -> bytes | None:
    """The bytes as they were before one of their bits was flipped; None where no single bit explains another CRC-32 than `crc`."""
    syndrome = crc32(data) ^ crc
    if not syndrome:
        return bytes(data)
    for at in range(len(data) - 1, -1, -1):
        bit = _BITS.get(syndrome)
        if bit is not None:
            out = bytearray(data)
            out[at] ^= 1 << bit
            return bytes(out)
        index = _BY_TOP[syndrome >> 24]  # One zero byte taken back.
        syndrome = (syndrome ^ _TABLE[index]) << 8 & 0xFFFFFFFF | index
    return None
