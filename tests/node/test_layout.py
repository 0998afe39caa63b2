"""What is made at a first start, and what is not made at a later one."""

from pathlib import Path

import pytest

from archive.config import Settings
from archive.errors import WrongUse
from archive.node.layout import FOLDERS, make_layout
from archive.tier.opening import open_tier


def settings_of(data: Path, tier: Path | None = None) -> Settings:
    return Settings.model_validate({"node": {"data": data, "tier": tier.as_uri() if tier else ""}})


def test_the_folder_of_a_tier_is_made_for_a_new_archive(tmp_path: Path) -> None:
    tier = tmp_path / "srv" / "packs"
    make_layout(settings_of(tmp_path / "var", tier))
    open_tier(tier.as_uri(), tmp_path / "none").check()
    assert {p.name for p in (tmp_path / "var").iterdir()} == set(FOLDERS)


def test_the_folder_of_a_tier_that_vanished_is_not_made_again(tmp_path: Path) -> None:
    """It may be a disk that is not mounted."""
    tier = tmp_path / "packs"
    make_layout(settings_of(tmp_path / "var", tier))
    tier.rmdir()
    make_layout(settings_of(tmp_path / "var", tier))
    assert not tier.exists()


def test_a_tier_that_cannot_be_made_is_wrong_use_and_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(WrongUse, match=r"tier file://.*/file/packs: Not a directory"):
        make_layout(settings_of(tmp_path / "var", tmp_path / "file" / "packs"))
    (tmp_path / "file").unlink()
    make_layout(settings_of(tmp_path / "var", tmp_path / "file" / "packs"))
    assert (tmp_path / "file" / "packs").is_dir()


def test_packs_of_the_embedded_tier_lie_in_the_data_folder(tmp_path: Path) -> None:
    make_layout(settings_of(tmp_path / "var"))
    assert {p.name for p in (tmp_path / "var").iterdir()} == {*FOLDERS, "packs"}
