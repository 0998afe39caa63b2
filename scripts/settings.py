"""Writes docs/settings.md and config/dicom-archive.toml from the table of settings in archive/config.py.

`scripts/settings` writes both; `scripts/settings --check` exits 1 where a page differs from the table.
"""

import json
import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import Any

from archive.config import ENVIRONMENT_PREFIX, Row, settings_table

ROOT = Path(__file__).resolve().parent.parent


def toml_value(value: Any) -> str:
    """A default as TOML writes it."""
    return json.dumps(str(value) if isinstance(value, Path) else value)


def plain_size(value: Any, unit: str) -> str:
    """`256 MiB` for a round number of bytes, else an empty text."""
    if unit == "bytes" and isinstance(value, int):
        for size, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= size and value % size == 0:
                return f"{value // size} {name}"
    return ""


def markdown_page(rows: Iterable[Row]) -> str:
    """docs/settings.md."""
    lines = [
        "# Settings",
        "",
        "<!-- Written by scripts/settings from archive/config.py: change it there. -->",
        "",
        "A setting is read from its default, then the TOML file (`--config`), then the environment, then the command line; the later wins.",
        f"`[section] key = value` in the file is `{ENVIRONMENT_PREFIX}SECTION_KEY` in the environment (lists with commas). An unknown or",
        "ill-formed setting stops the program with exit code 2 and its name. `config/dicom-archive.toml` holds all of them, commented.",
    ]
    for section, group in groupby(rows, key=lambda row: row.section):
        lines += ["", f"## [{section}]", "", "| key | default | unit | what it does |", "|---|---|---|---|"]
        for row in group:
            size = plain_size(row.default, row.unit)
            default = f"`{toml_value(row.default)}`" + (f" ({size})" if size else "")
            lines.append(f"| `{row.key}` | {default} | {row.unit} | {row.help} |")
    return "\n".join(lines) + "\n"


def toml_page(rows: Iterable[Row]) -> str:
    """config/dicom-archive.toml: every setting at its default, commented out, so that a later version's default applies."""
    lines = [
        "# Settings of a dicom-archive node, each at its default. Written by scripts/settings from archive/config.py.",
        "# Uncomment and change what differs; `dicom-archive serve --config FILE` reads it. docs/settings.md has the same as a table.",
    ]
    for section, group in groupby(rows, key=lambda row: row.section):
        # A table with a title of its own begins to exist with its header.
        lines += ["", f"#[{section}]" if "." in section else f"[{section}]"]
        for row in group:
            unit = f" ({plain_size(row.default, row.unit) or row.unit})" if row.unit else ""
            lines += [f"# {row.help}{unit}", f"#{row.key} = {toml_value(row.default)}"]
    return "\n".join(lines) + "\n"


def pages(rows: Iterable[Row]) -> dict[Path, str]:
    """What each page has to say, by path.

    Raises
    ------
    ValueError
        A setting without help.
    """
    rows = list(rows)
    for row in rows:
        if not row.help:
            raise ValueError(f"setting {row.section}.{row.key} has no help")
    return {ROOT / "docs/settings.md": markdown_page(rows), ROOT / "config/dicom-archive.toml": toml_page(rows)}


def differing_pages(rows: Iterable[Row]) -> list[str]:
    """Pages that do not say what the table says."""
    return [str(path.relative_to(ROOT)) for path, text in pages(rows).items() if not path.exists() or path.read_text() != text]


def main() -> int:
    if sys.argv[1:] == ["--check"]:
        differing = differing_pages(settings_table())
        if differing:
            print(f"differs from archive/config.py: {', '.join(differing)}; run scripts/settings", file=sys.stderr)
        return 1 if differing else 0
    if sys.argv[1:]:
        print("usage: scripts/settings [--check]", file=sys.stderr)
        return 2
    for path, text in pages(settings_table()).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
