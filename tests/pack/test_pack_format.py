"""docs/pack-format.md says what is written: the locator column by column, and the order of what lies in a pack."""

from archive.pack.checksum import crc32
from archive.pack.locator import CRC_OFFSET, LOCATOR_BYTES, Locator
from tests.pack.pages import PACK_PAGE, check_columns, check_example, columns

EXAMPLE = Locator(1_053_504, 1_050_176, 2_345, 0x1234ABCD, 1_052_521, 1_052_608, 5, 0x00C0FFEE)


def test_the_locator_is_as_the_page_says() -> None:
    rows = columns(PACK_PAGE, "## Tail locator")
    check_columns(rows, LOCATOR_BYTES)
    data = EXAMPLE.pack()
    values = []
    for offset, length, field in rows:
        value = data[offset : offset + length].decode()
        if field.startswith("`"):
            assert value == field.strip("`")
        elif field in ("space", "spaces", "newline"):
            assert value.strip() == ""
        else:
            values.append(int(value, 16 if "hexadecimal" in field else 10))
    wanted = [1, 0, EXAMPLE.length, EXAMPLE.index_offset, EXAMPLE.index_length, EXAMPLE.index_crc, EXAMPLE.covered]
    assert values == [*wanted, EXAMPLE.blocks_offset, EXAMPLE.blocks, EXAMPLE.tail_crc, crc32(data[:CRC_OFFSET])]


def test_the_example() -> None:
    check_example(PACK_PAGE, "locator", EXAMPLE.pack())
