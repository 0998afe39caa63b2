"""The tail locator: comes back, notices every flipped bit, refuses what a newer version wrote."""

import pytest

from archive.errors import Damaged, UnknownFormat
from archive.pack.checksum import crc32
from archive.pack.locator import CRC_OFFSET, LOCATOR_BYTES, Locator
from tests.pack.build import flipped

LOCATOR = Locator(2**63, 2**62, 2**32, 0, 2**61 + 1, 2**60, 999_999_999_999, 0xFFFFFFFF)


def with_crc(text: bytes) -> bytes:
    return text[:CRC_OFFSET] + f"{crc32(text[:CRC_OFFSET]):08x}\n".encode()


def test_it_comes_back() -> None:
    data = LOCATOR.pack()
    assert len(data) == LOCATOR_BYTES
    assert data.isascii()
    assert Locator.unpack(data) == LOCATOR


def test_any_flipped_bit_is_damage() -> None:
    data = LOCATOR.pack()
    for bit in range(8 * LOCATOR_BYTES):
        with pytest.raises(Damaged, match="locator"):
            Locator.unpack(flipped(data, bit // 8, bit % 8))


def test_another_length_is_damage() -> None:
    data = LOCATOR.pack()
    for wrong in (b"", data[1:], data[:-1], data + b" ", b" " + data):
        with pytest.raises(Damaged, match="does not end with a tail locator"):
            Locator.unpack(wrong)


def test_a_newer_version_is_refused_by_name_whatever_it_holds() -> None:
    """Its fields may be others; its CRC holds in the same place."""
    start = b"dicom-archive-pack 0002 flags 00000000 "
    for newer in (start + LOCATOR.pack()[len(start) : CRC_OFFSET], (start + b"something else").ljust(CRC_OFFSET)):
        with pytest.raises(UnknownFormat, match="the pack has format version 2.*knows version 1"):
            Locator.unpack(with_crc(newer))


def test_flags_that_must_be_understood_are_refused_by_name() -> None:
    newer = LOCATOR.pack().replace(b"flags 00000000", b"flags 00000010")
    with pytest.raises(UnknownFormat, match="flags 0x10"):
        Locator.unpack(with_crc(newer))


def test_fields_that_are_none_are_damage() -> None:
    """This version with a CRC that holds: nothing that this version writes."""
    with pytest.raises(Damaged, match="locator"):
        Locator.unpack(with_crc(LOCATOR.pack().replace(b" index ", b" INDEX ")))
