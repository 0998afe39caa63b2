"""The table of remote AEs among the settings; the rest of them is held by tests/house and the verbs' tests."""

from pathlib import Path

import pytest

from archive.config import RemoteAe, Settings, load_settings
from archive.errors import WrongUse

TABLE = """
[peers]
PLAIN = "10.0.0.7:104"

[peers."STORE SCU"]
may_query = false
sop_classes = ["1.2.840.10008.5.1.4.1.1.2"]
"""


def load(tmp_path: Path, text: str, **overrides: object) -> Settings:
    file = tmp_path / "settings.toml"
    file.write_text(text)
    return load_settings(file, {"peers": dict(overrides)}, {})


def test_remote_aes_with_and_without_a_row_of_their_own(tmp_path: Path) -> None:
    settings = load(tmp_path, TABLE, MOVED="[::1]:11113")
    assert settings.peers == {
        "PLAIN": RemoteAe(host="10.0.0.7", port=104),
        "MOVED": RemoteAe(host="[::1]", port=11113),
        "STORE SCU": RemoteAe(may_query=False, sop_classes=["1.2.840.10008.5.1.4.1.1.2"]),
    }
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(
    "text",
    [
        '[peers]\nA = "nowhere"',
        '[peers]\nA = "host:0"',
        '[peers]\n"SEVENTEEN LETTERS" = "host:104"',
        '[peers]\n"BACK\\\\SLASH" = "host:104"',
        "[peers.A]\nmay_delete = true",
        "[peers.A]\nport = 70000",
    ],
)
def test_rows_that_are_none_are_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(WrongUse, match=r"setting peers\."):
        load(tmp_path, text)
