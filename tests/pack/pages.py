"""What the format pages say, against what is written: hex dumps behind a marker, and the columns of tables.

`DICOM_ARCHIVE_WRITE_EXAMPLES=1 scripts/test tests/pack` writes the dumps into the pages.
"""

import os
import re
from pathlib import Path

from tests.kit import ROOT

JOURNAL_PAGE = ROOT / "docs" / "journal-format.md"
PACK_PAGE = ROOT / "docs" / "pack-format.md"
WRITE = os.environ.get("DICOM_ARCHIVE_WRITE_EXAMPLES") == "1"


def hex_dump(data: bytes) -> str:
    """Offset, hex and ASCII, 16 bytes a line; a run of equal lines is one `*`, as `hexdump -C` writes it."""
    lines: list[str] = []
    before = b""
    for offset in range(0, len(data), 16):
        row = data[offset : offset + 16]
        if row == before and offset + 16 < len(data):
            if lines[-1] != "*":
                lines.append("*")
            continue
        before = row
        pairs = " ".join(f"{byte:02x}" for byte in row[:8]) + "  " + " ".join(f"{byte:02x}" for byte in row[8:])
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{offset:08x}  {pairs:48}  |{text}|")
    return "\n".join([*lines, f"{len(data):08x}"])


def check_example(page: Path, name: str, data: bytes) -> None:
    """The page's dump behind `<!-- hex: name -->` is of these bytes."""
    text = page.read_text()
    found = re.search(rf"(<!-- hex: {name} -->\n)(?:```\n(.*?)\n```\n)?", text, re.DOTALL)
    assert found is not None, f"{page.name} has no place for the example {name}"
    if WRITE:
        page.write_text(text[: found.end(1)] + f"```\n{hex_dump(data)}\n```\n" + text[found.end() :])
    else:
        assert found[2] == hex_dump(data)


def columns(page: Path, heading: str) -> list[tuple[int, int, str]]:
    """Rows `| offset | bytes | field |` of the first table below a heading, as far as both are numbers."""
    text = page.read_text()
    table = text[text.index(f"\n{heading}\n") :].split("| offset | bytes | field |\n")[1].split("\n\n")[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (.+) \|$", table, re.MULTILINE)
    return [(int(offset), int(length), field) for offset, length, field in rows]


def check_columns(rows: list[tuple[int, int, str]], total: int) -> None:
    """Each column starts where the one before ends."""
    at = 0
    for offset, length, field in rows:
        assert offset == at, field
        at += length
    assert at == total
