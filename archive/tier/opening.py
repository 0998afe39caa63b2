"""From a tier's URL to the tier."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from archive.errors import WrongUse
from archive.tier.directory import DirectoryTier
from archive.tier.protocol import Tier


def open_tier(url: str, embedded: Path) -> Tier:
    """The tier that a URL names; the empty one is the embedded folder.

    Raises
    ------
    WrongUse
        A scheme that is not known, or `file:` with a host or without an absolute path.
    """
    if not url:
        return DirectoryTier(embedded)
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise WrongUse(f"tier {url}: write file:///absolute/folder")
        return DirectoryTier(Path(unquote(parts.path)))
    raise WrongUse(f"tier {url}: this version knows file:///folder")
