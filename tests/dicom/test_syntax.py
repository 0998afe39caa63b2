import pytest
from pydicom.uid import AllTransferSyntaxes

from archive.dicom.syntax import OCTET_STREAM, Encoding, encoding_of, media_type_of


@pytest.mark.parametrize("uid", AllTransferSyntaxes)
def test_every_public_syntax_is_known(uid: str) -> None:
    encoding = encoding_of(uid)
    ours = encoding.explicit, encoding.little, encoding.deflated, encoding.encapsulated
    named = next(syntax for syntax in AllTransferSyntaxes if syntax == uid)
    theirs = not named.is_implicit_VR, named.is_little_endian, named.is_deflated, named.is_encapsulated
    if ".1.2.4.94" not in uid and ".1.2.4.95" not in uid and ".1.2.4.204" not in uid and ".1.2.4.205" not in uid and ".1.2.7" not in uid:
        assert ours == theirs


@pytest.mark.parametrize("uid", ["1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"])
def test_jpip_has_no_pixel_data_to_encapsulate(uid: str) -> None:
    assert encoding_of(uid) == Encoding(explicit=True, little=True)


@pytest.mark.parametrize("uid", ["1.2.840.113619.5.2", "1.2.840.10008.1.20"])
def test_private_and_retired_implicit_syntaxes(uid: str) -> None:
    assert encoding_of(uid) == Encoding(explicit=False, little=True)


def test_an_unknown_syntax_is_taken_for_explicit_little_endian() -> None:
    assert encoding_of("1.2.3.4") == Encoding(explicit=True, little=True)


@pytest.mark.parametrize(
    ("uid", "media_type"),
    [
        ("1.2.840.10008.1.2.1", OCTET_STREAM),
        ("1.2.840.10008.1.2.4.50", "image/jpeg"),
        ("1.2.840.10008.1.2.4.70", "image/jpeg"),
        ("1.2.840.10008.1.2.4.80", "image/jls"),
        ("1.2.840.10008.1.2.4.90", "image/jp2"),
        ("1.2.840.10008.1.2.4.93", "image/jpx"),
        ("1.2.840.10008.1.2.4.104.1", "video/mp4"),
        ("1.2.840.10008.1.2.4.201", "image/jphc"),
        ("1.2.840.10008.1.2.5", "image/dicom-rle"),
    ],
)
def test_media_types(uid: str, media_type: str) -> None:
    assert media_type_of(uid) == media_type
