"""Transfer syntaxes: how the bytes of a data set are laid out (DICOM PS3.5 chapter 10, annex A)."""

from dataclasses import dataclass

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"

_ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"
_DEFLATED_IMAGE_FRAME = "1.2.840.10008.1.2.8.1"
_PAPYRUS_3 = "1.2.840.10008.1.20"
_GE_PRIVATE_IMPLICIT = "1.2.840.113619.5.2"
# JPIP objects hold a URL in place of pixel data; every second one is deflated as a whole.
_JPIP = frozenset(("1.2.840.10008.1.2.4.94", "1.2.840.10008.1.2.4.204"))
_JPIP_DEFLATED = frozenset(("1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"))

OCTET_STREAM = "application/octet-stream"

_MEDIA_TYPES = {
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in range(50, 71)), "image/jpeg"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "image/jls"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91"), "image/jp2"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.92", "1.2.840.10008.1.2.4.93"), "image/jpx"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (100, "100.1", 101, "101.1")), "video/mpeg2"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}{s}" for n in range(102, 107) for s in ("", ".1")), "video/mp4"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.107", "1.2.840.10008.1.2.4.108"), "video/H265"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (110, 111, 112)), "image/jxl"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (201, 202, 203)), "image/jphc"),
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}


@dataclass(frozen=True, slots=True)
class Encoding:
    """How the elements of a data set are written.

    Parameters
    ----------
    explicit : bool
        Elements name their value representation.
    little : bool
        Numbers are little endian.
    deflated : bool
        The whole data set is deflated; the other three speak of the inflated one.
    encapsulated : bool
        Pixel data is a sequence of fragments.
    """

    explicit: bool
    little: bool
    deflated: bool = False
    encapsulated: bool = False


_IMPLICIT_LITTLE = Encoding(explicit=False, little=True)
_EXPLICIT_LITTLE = Encoding(explicit=True, little=True)
_EXPLICIT_BIG = Encoding(explicit=True, little=False)
_DEFLATED = Encoding(explicit=True, little=True, deflated=True)
_ENCAPSULATED = Encoding(explicit=True, little=True, encapsulated=True)

_ENCODINGS = {
    IMPLICIT_VR_LITTLE_ENDIAN: _IMPLICIT_LITTLE,
    _PAPYRUS_3: _IMPLICIT_LITTLE,
    _GE_PRIVATE_IMPLICIT: _IMPLICIT_LITTLE,
    EXPLICIT_VR_LITTLE_ENDIAN: _EXPLICIT_LITTLE,
    EXPLICIT_VR_BIG_ENDIAN: _EXPLICIT_BIG,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN: _DEFLATED,
    _ENCAPSULATED_UNCOMPRESSED: _ENCAPSULATED,
    _DEFLATED_IMAGE_FRAME: _ENCAPSULATED,
    **dict.fromkeys(_JPIP, _EXPLICIT_LITTLE),
    **dict.fromkeys(_JPIP_DEFLATED, _DEFLATED),
    **dict.fromkeys(_MEDIA_TYPES, _ENCAPSULATED),
}


def encoding_of(transfer_syntax_uid: str) -> Encoding:
    """What a transfer syntax says about the bytes.

    Syntaxes that are not known (private ones, later ones) are taken for explicit little endian, as every one
    but the oldest is; whether their pixel data is encapsulated is seen from its undefined length.
    """
    return _ENCODINGS.get(transfer_syntax_uid, _EXPLICIT_LITTLE)


def media_type_of(transfer_syntax_uid: str) -> str:
    """Media type of single frames or of bulk data in this syntax (DICOM PS3.18 8.7.3).

    Uncompressed and unknown syntaxes give `application/octet-stream`.
    """
    return _MEDIA_TYPES.get(transfer_syntax_uid, OCTET_STREAM)
