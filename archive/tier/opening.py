"""From a tier's URL to the tier."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from archive.config import WebhdfsSection
from archive.disk import LOCAL_DISK, Disk
from archive.errors import WrongUse
from archive.tier.directory import DirectoryTier
from archive.tier.protocol import Tier
from archive.tier.webhdfs import WebHdfsTier

_ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


def open_tier(url: str, embedded: Path, disk: Disk = LOCAL_DISK, webhdfs: WebhdfsSection | None = None) -> Tier:
    """The tier that a URL names; the empty one is the embedded folder.

    Raises
    ------
    WrongUse
        A scheme that is not known, `file:` with a host or without an absolute path, `webhdfs:` without the port of a NameNode.
    """
    if not url:
        return DirectoryTier(embedded, disk)
    parts = urlsplit(url)
    if parts.scheme == "file":
        if parts.netloc or not parts.path.startswith("/"):
            raise WrongUse(f"tier {url}: write file:///absolute/folder")
        return DirectoryTier(Path(unquote(parts.path)), disk)
    if parts.scheme == "webhdfs":
        addresses = parts.netloc.split(",")
        if not all(_ADDRESS.fullmatch(address) for address in addresses) or parts.query or parts.fragment:
            raise WrongUse(f"tier {url}: write webhdfs://namenode:port/folder or webhdfs://namenode:port,namenode:port/folder")
        return WebHdfsTier(addresses, unquote(parts.path), webhdfs or WebhdfsSection())
    raise WrongUse(f"tier {url}: this version knows file:///folder and webhdfs://namenode:port/folder")
