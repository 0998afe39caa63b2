"""From a tier's URL to the tier."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from archive.disk import LOCAL_DISK, Disk
from archive.errors import WrongUse
from archive.tier.directory import DirectoryTier
from archive.tier.protocol import Tier


def open_tier(url: str, embedded: Path, disk: Disk = LOCAL_DISK) -> Tier:
    """The tier that a URL names; the empty one is the embedded folder.

    Raises
    ------
    WrongUse
        A scheme that is not known, or `file:` with a host or without an absolute path.
    """
    if not url:
        return DirectoryTier(embedded, disk)
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise WrongUse(f"tier {url}: write file:///absolute/folder")
        return DirectoryTier(Path(unquote(parts.path)), disk)
    raise WrongUse(f"tier {url}: this version knows file:///folder")
