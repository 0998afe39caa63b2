"""What lies where in a data folder, as far as the processes of a node care; the rooms below know the inside of their folders."""

from pathlib import Path

from archive.config import Settings
from archive.errors import NotFound, WrongUse
from archive.tier.directory import DirectoryTier
from archive.tier.opening import open_tier

FOLDERS = ("journal", "index", "pool", "derived")
PACKS = "packs"


def with_absolute_data(settings: Settings) -> Settings:
    """The same settings with the data folder as an absolute path, for processes that may start elsewhere."""
    node = settings.node.model_copy(update={"data": settings.node.data.absolute()})
    return settings.model_copy(update={"node": node})


def make_layout(settings: Settings) -> None:
    """Make the data folder and its subfolders where they are missing; a new one is for its owner alone.

    A tier's folder is made for a new archive only: one that is missing later may be a disk that is not mounted.

    Raises
    ------
    WrongUse
        The folder, or the tier's, cannot be made or written, or the tier's URL is none.
    """
    data = settings.node.data
    tier = open_tier(settings.node.tier, data / PACKS)
    is_new = not any((data / name).exists() for name in FOLDERS)
    if is_new and settings.node.tier and isinstance(tier, DirectoryTier):
        try:
            tier.make_root()
        except OSError as error:
            raise WrongUse(f"tier {settings.node.tier}: {error.strerror}") from error
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in FOLDERS if settings.node.tier else (*FOLDERS, PACKS):
            (data / name).mkdir(exist_ok=True)
    except OSError as error:
        raise WrongUse(f"data folder {data}: {error.strerror}") from error


def want_archive(settings: Settings) -> Path:
    """The data folder, for verbs that only read.

    Raises
    ------
    NotFound
        No archive ever lived there.
    """
    data = settings.node.data
    if not (data / "journal").is_dir():
        raise NotFound(f"there is no archive in {data}")
    return data
