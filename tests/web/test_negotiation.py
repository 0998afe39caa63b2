"""Accept in all the ways that viewers write it."""

import pytest

from archive.web.frames import frame_representations
from archive.web.negotiation import MediaRange, NotAcceptable, Representation, accepts_gzip, choose, parse_accept
from archive.web.retrieve import instance_representations

EXPLICIT = "1.2.840.10008.1.2.1"
IMPLICIT = "1.2.840.10008.1.2"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
OHIF = "application/dicom+json, multipart/related; type=application/octet-stream; transfer-syntax=*"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("*/*", [MediaRange("*/*")]),
        ("", []),
        ("nonsense", []),
        ("a/b;q=0.5, C/D ; Q=2", [MediaRange("a/b", {}, 0.5), MediaRange("c/d", {}, 1.0)]),
        ('multipart/related; type="application/dicom"', [MediaRange("multipart/related", {"type": "application/dicom"})]),
        ("multipart/related;type=application/dicom;q=0.1", [MediaRange("multipart/related", {"type": "application/dicom"}, 0.1)]),
        ('a/b; x="1, 2; \\"3\\""; q=1, c/d', [MediaRange("a/b", {"x": '1, 2; "3"'}), MediaRange("c/d")]),
        ("a/b;q=high, c/d", [MediaRange("c/d")]),
        ('a/b; x="never closed, c/d', [MediaRange("a/b")]),
        (
            OHIF,
            [
                MediaRange("application/dicom+json"),
                MediaRange("multipart/related", {"type": "application/octet-stream", "transfer-syntax": "*"}),
            ],
        ),
    ],
)
def test_parse_accept(text: str, found: list[MediaRange]) -> None:
    parsed = list(parse_accept(text))
    assert [(r.media_type, r.quality) for r in parsed] == [(r.media_type, r.quality) for r in found]
    if "never" not in text:
        assert parsed == found


@pytest.mark.parametrize(
    ("accept", "multipart"),
    [
        ("*/*", True),
        ("multipart/*", True),
        ("multipart/related", True),
        ("application/*", False),
        ("application/dicom", False),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', True),
        (f"multipart/related; type=application/dicom; transfer-syntax={EXPLICIT}", True),
        (f'application/dicom; transfer-syntax="{EXPLICIT}"', False),
        ('multipart/related; type="application/dicom"; q=0.5, application/dicom', False),
        ("image/png, */*;q=0.1", True),
        ("MULTIPART/Related; TYPE=Application/DICOM; Transfer-Syntax=*", True),
        ("multipart/related; type=application/*", True),
        ("*/*, multipart/related; type=application/dicom; q=0", False),
    ],
)
def test_an_instance_is_sent_as_asked(accept: str, multipart: bool) -> None:
    assert choose(accept, instance_representations(EXPLICIT, single=True)).multipart is multipart


@pytest.mark.parametrize(
    "accept",
    [
        "image/png",
        "text/html",
        "",
        "*/*;q=0",
        f"application/dicom; transfer-syntax={JPEG_2000}",
        "multipart/related; type=application/dicom+xml",
        "multipart/mixed; type=application/dicom",
    ],
)
def test_an_instance_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptable, match="at hand: multipart/related; type=.application/dicom"):
        choose(accept, instance_representations(EXPLICIT, single=True))


@pytest.mark.parametrize(
    ("syntax", "accept", "media_type"),
    [
        (EXPLICIT, "*/*", "application/octet-stream"),
        (EXPLICIT, "multipart/related; type=application/octet-stream", "application/octet-stream"),
        (IMPLICIT, f"multipart/related; type=application/octet-stream; transfer-syntax={EXPLICIT}", "application/octet-stream"),
        (IMPLICIT, f"multipart/related; type=application/octet-stream; transfer-syntax={IMPLICIT}", "application/octet-stream"),
        (JPEG_2000, "*/*", "image/jp2"),
        (JPEG_2000, 'multipart/related; type="image/jp2"', "image/jp2"),
        (JPEG_2000, 'multipart/related; type="image/*"', "image/jp2"),
        (JPEG_2000, "multipart/related; type=application/octet-stream; transfer-syntax=*", "application/octet-stream"),
        (JPEG_2000, f"multipart/related; type=application/octet-stream; transfer-syntax={JPEG_2000}", "application/octet-stream"),
        (
            JPEG_2000,
            'multipart/related; type=image/jp2; transfer-syntax=*, multipart/related; type="application/octet-stream"',
            "image/jp2",
        ),
        (JPEG_2000, OHIF, "application/octet-stream"),
    ],
)
def test_frames_are_sent_as_stored(syntax: str, accept: str, media_type: str) -> None:
    chosen = choose(accept, frame_representations(syntax, True))
    assert (chosen.media_type, chosen.multipart) == (media_type, True)


def test_compressed_frames_are_never_passed_off_as_plain_pixels() -> None:
    with pytest.raises(NotAcceptable):
        choose('multipart/related; type="application/octet-stream"', frame_representations(JPEG_2000, True))
    with pytest.raises(NotAcceptable):
        choose(f"multipart/related; type=application/octet-stream; transfer-syntax={EXPLICIT}", frame_representations(JPEG_2000, True))


def test_several_frames_are_never_sent_bare() -> None:
    with pytest.raises(NotAcceptable):
        choose("application/octet-stream", frame_representations(EXPLICIT, False))


def test_among_equals_the_server_decides() -> None:
    first, second = Representation("a/b"), Representation("a/c")
    assert choose("a/c, a/b", (first, second)) is first
    assert choose("a/*;q=0.3, a/c;q=0.4", (first, second)) is second
    assert choose("a/*, a/b;q=0", (first, second)) is second


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("gzip", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("*", True),
        ("br, GZIP;q=0.5", True),
        ("gzip;q=0, *", False),
        ("gzip; q=x", False),
    ],
)
def test_accepts_gzip(text: str, taken: bool) -> None:
    assert accepts_gzip(text) is taken
