"""Which of the representations that a resource has is sent (DICOM PS3.18 8.7, RFC 9110 12.5).

A media range says more than RFC 9110 knows: `multipart/related; type="application/dicom"; transfer-syntax=*`. Quotes around the
type may be missing, names are compared without case, and the `accept` query parameter takes the place of the header.
"""

import functools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from aiohttp import web

from archive.errors import ArchiveError

ANY_SYNTAX = "*"

_ELEMENT = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*"?)+')
_PARAMETER = re.compile(r';\s*([^\s=;,"]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^;,"]*)')
_TYPE = re.compile(r"\s*([^\s;,/\"]+/[^\s;,\"]+)\s*(?=;|$)")


class NotAcceptable(ArchiveError):
    """None of the representations at hand is one that the client takes (406)."""


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One element of an Accept header.

    Parameters
    ----------
    media_type : str
        `type/subtype` in lower case; either may be `*`.
    parameters : dict of str to str
        By name in lower case, unquoted, without `q`.
    quality : float
        0 (never) to 1.
    """

    media_type: str
    parameters: dict[str, str] = field(default_factory=dict)
    quality: float = 1.0


@dataclass(frozen=True, slots=True)
class Representation:
    """One way in which a resource can be sent.

    Parameters
    ----------
    media_type : str
        Of the payload, or of every part of it.
    multipart : bool
        Wrapped in `multipart/related`.
    transfer_syntax_uids : frozenset of str
        What a client may name to get it; empty where transfer syntaxes make no sense.
    syntax_wanted : bool
        Sent to those alone who name a transfer syntax (or `*`), since the media type's own default is another one.
    """

    media_type: str
    multipart: bool = False
    transfer_syntax_uids: frozenset[str] = frozenset()
    syntax_wanted: bool = False

    def __str__(self) -> str:
        text = f'multipart/related; type="{self.media_type}"' if self.multipart else self.media_type
        return f"{text}; transfer-syntax={sorted(self.transfer_syntax_uids)[0]}" if self.transfer_syntax_uids else text


def accept_of(request: web.Request) -> str:
    """What the request accepts: the `accept` query parameter, else the header, else everything (DICOM PS3.18 8.3.3.1, 8.7.4)."""
    asked = request.rel_url.query.getall("accept", ()) if "accept" in request.query_string else ()
    if asked:
        # A plus sign in a query string stands for a space, and few clients write application/dicom%2Bjson.
        return ", ".join(re.sub(r"(?<=[a-z]) (?=[a-z])", "+", text) for text in asked)
    found = request.headers.getall("Accept", ())
    return found[0] if len(found) == 1 else ", ".join(found) or "*/*"


def parse_accept(text: str) -> Iterator[MediaRange]:
    """The media ranges of an Accept header; what is none is passed over, as RFC 9110 lets a server do."""
    for element in _ELEMENT.findall(text):
        head = _TYPE.match(element)
        if head is None:
            continue
        parameters = {}
        for name, value in _PARAMETER.findall(element, head.end()):
            value = value.strip()
            parameters[name.lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
        try:
            quality = min(max(float(parameters.pop("q", "1")), 0.0), 1.0)
        except ValueError:
            continue
        yield MediaRange(head[1].lower(), parameters, quality)


@functools.lru_cache(maxsize=1024)
def choose(accept: str, representations: tuple[Representation, ...]) -> Representation:
    """The representation that the client likes best; among equals the server's order decides.

    Parameters
    ----------
    accept : str
        As `accept_of` gives it.
    representations : tuple of Representation
        At hand, the preferred first.

    Raises
    ------
    NotAcceptable
        There is none; the message names what is at hand.
    """
    ranges = list(parse_accept(accept))
    best, best_quality = None, 0.0
    for representation in representations:
        quality = _quality(representation, ranges)
        if quality > best_quality:
            best, best_quality = representation, quality
    if best is None:
        at_hand = ", ".join(str(r) for r in representations)
        raise NotAcceptable(f"cannot be sent as {accept[:300]!r}; at hand: {at_hand}")
    return best


def accepts_gzip(accept_encoding: str) -> bool:
    """Whether a gzipped body may be sent (RFC 9110 12.5.3)."""
    taken = {}
    for element in accept_encoding.lower().split(","):
        coding, _, weight = element.replace(" ", "").partition(";")
        taken[coding] = weight == "" or re.fullmatch(r"q=(0?\.0*[1-9]\d*|1(\.0*)?)", weight) is not None
    return taken.get("gzip", taken.get("*", False))


def _quality(representation: Representation, ranges: list[MediaRange]) -> float:
    """The quality that the most specific range which fits gives (RFC 9110 12.5.1)."""
    fitting = [(specific, r.quality) for r in ranges if (specific := _fits(representation, r)) >= 0]
    if not fitting:
        return 0.0
    most = max(specific for specific, _ in fitting)
    return max(quality for specific, quality in fitting if specific == most)


def _fits(representation: Representation, asked: MediaRange) -> int:
    """How specifically a range names a representation; -1 where it does not."""
    specific = 0
    if asked.media_type.startswith("multipart/"):
        if not representation.multipart or asked.media_type not in ("multipart/related", "multipart/*"):
            return -1
        wanted = asked.parameters.get("type", "*/*").lower()
        specific = 10 if asked.media_type == "multipart/related" else 0
    elif asked.media_type == "*/*":
        wanted = "*/*"
    elif representation.multipart:
        return -1
    else:
        wanted = asked.media_type
        specific = 10
    if wanted not in ("*/*", "*"):
        main, _, sub = wanted.partition("/")
        media_type = representation.media_type.lower()
        any_sub = sub in ("*", "")
        if not (media_type.startswith(f"{main}/") if any_sub else media_type == wanted):
            return -1
        specific += 4 if any_sub else 8
    syntax = asked.parameters.get("transfer-syntax")
    if syntax is None:
        return -1 if representation.syntax_wanted else specific
    if syntax == ANY_SYNTAX or not representation.transfer_syntax_uids:
        return specific + 1
    return specific + 2 if syntax in representation.transfer_syntax_uids else -1
