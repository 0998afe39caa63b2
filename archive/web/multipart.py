"""`multipart/related` bodies whose length is known before the first byte is sent (RFC 2046 5.1, DICOM PS3.18 8.6.1)."""

import os
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Framing:
    """The bytes around the parts of one answer.

    Every answer has a boundary of its own, random so that no stored object can hold it.
    """

    boundary: str

    @classmethod
    def new(cls) -> "Framing":
        return cls(os.urandom(16).hex())

    def content_type(self, media_type: str) -> str:
        """Of the whole answer; the type of the parts stands in quotes, as RFC 2387 wants."""
        return f'multipart/related; type="{media_type}"; boundary={self.boundary}'

    def head(self, content_type: str, length: int, content_location: str = "", first: bool = False) -> bytes:
        """What stands before the payload of a part of `length` bytes; the CRLF that ends the part before belongs to it."""
        before = "" if first else "\r\n"
        location = f"Content-Location: {content_location}\r\n" if content_location else ""
        text = f"{before}--{self.boundary}\r\nContent-Type: {content_type}\r\n{location}Content-Length: {length}\r\n\r\n"
        return text.encode("ascii", "replace")

    def tail(self) -> bytes:
        """What stands behind the last part."""
        return f"\r\n--{self.boundary}--\r\n".encode("ascii")


def part_type(media_type: str, transfer_syntax_uid: str) -> str:
    """Content-Type of a part (DICOM PS3.18 8.7.3.1)."""
    return f"{media_type}; transfer-syntax={transfer_syntax_uid}" if transfer_syntax_uid else media_type


def total_length(heads: Iterable[bytes], lengths: Iterable[int], tail: bytes) -> int:
    """Content-Length of a multipart answer."""
    return sum(map(len, heads)) + sum(lengths) + len(tail)
