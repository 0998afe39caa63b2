"""Compressed frames, decoded with kept codecs through pydicom (DICOM PS3.5 8.2, annex A.4).

pydicom corrects signs and unused bits, and tells what a codestream says otherwise than its data set. JPEG Extended of 12 bit has
no decoder here that may be distributed freely; what cannot be decoded is an error, never a picture that may be wrong.
"""

from dataclasses import dataclass
from typing import Any

from archive.errors import NotUnderstood

ENCAPSULATED_UNCOMPRESSED = "1.2.840.10008.1.2.1.98"

# One for each, so that what comes out does not depend on which of them failed. GDCM, which aborts its process on some damaged codestreams,
# decodes what nothing else does.
_CODECS = {
    **dict.fromkeys(("1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.51"), "pillow"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"), "gdcm"),
    **dict.fromkeys(("1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"), "pyjpegls"),
    **dict.fromkeys((f"1.2.840.10008.1.2.4.{n}" for n in (90, 91, 201, 202, 203)), "pylibjpeg"),
    "1.2.840.10008.1.2.5": "pylibjpeg",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """What the data set says of each of its frames (DICOM PS3.3 C.7.6.3).

    Attributes
    ----------
    planar_configuration : int
        Of the compressed frames; decoded ones are by pixel (0).
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int

    @property
    def frame_bytes(self) -> int:
        """Length of a decoded frame."""
        return self.rows * self.columns * self.samples_per_pixel * self.bits_allocated // 8


def decode_frame(transfer_syntax_uid: str, picture: Picture, frame: bytes) -> tuple[bytes, str]:
    """A frame as little endian pixels by pixel, and the photometric interpretation that it has now.

    Colour that was sampled down (`YBR_FULL_422`) becomes RGB; any other stays what the codec gives, bit by bit.

    Raises
    ------
    NotUnderstood
        There is no decoder for it, or it is not what the data set says.
    """
    if transfer_syntax_uid == ENCAPSULATED_UNCOMPRESSED:
        return _of_length(frame[: picture.frame_bytes], picture), picture.photometric_interpretation
    import warnings

    import numpy as np
    from pydicom.encaps import encapsulate
    from pydicom.pixels.decoders.base import get_decoder
    from pydicom.pixels.utils import get_j2k_parameters

    codec = _CODECS.get(transfer_syntax_uid)
    if codec is None:
        raise NotUnderstood(f"there is no decoder for transfer syntax {transfer_syntax_uid}")
    # pydicom cuts what is too wide to the width that the data set says.
    precision = get_j2k_parameters(frame).get("precision", 0)
    if precision > picture.bits_allocated:
        raise NotUnderstood(f"a codestream of {precision} bits, the data set allocates {picture.bits_allocated}")
    photometric = picture.photometric_interpretation
    options: dict[str, Any] = {
        "decoding_plugin": codec,
        "as_rgb": photometric == "YBR_FULL_422",
        "number_of_frames": 1,
        "rows": picture.rows,
        "columns": picture.columns,
        "samples_per_pixel": picture.samples_per_pixel,
        "bits_allocated": picture.bits_allocated,
        "bits_stored": picture.bits_stored,
        "pixel_representation": picture.pixel_representation,
        "photometric_interpretation": photometric,
    }
    if picture.samples_per_pixel > 1:
        options["planar_configuration"] = picture.planar_configuration
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of what codestream and data set disagree about, which is put right or fails.
            pixels, found = get_decoder(transfer_syntax_uid).as_array(encapsulate([frame], has_bot=False), index=0, **options)
    except Exception as error:  # Whatever a codec raises of bytes that it does not like.
        reason = " ".join(str(error).split())
        raise NotUnderstood(f"a frame cannot be decoded from transfer syntax {transfer_syntax_uid}: {reason}") from error
    if pixels.dtype.itemsize * 8 > picture.bits_allocated:
        raise NotUnderstood(f"a frame decodes to {pixels.dtype.itemsize * 8} bits, the data set allocates {picture.bits_allocated}")
    wanted = np.dtype(f"<{'ui'[picture.pixel_representation]}{picture.bits_allocated // 8}")
    decoded = pixels.astype(wanted, copy=False).tobytes()
    return _of_length(decoded, picture), str(found["photometric_interpretation"])


def _of_length(decoded: bytes, picture: Picture) -> bytes:
    if len(decoded) != picture.frame_bytes:
        raise NotUnderstood(f"a frame decodes to {len(decoded)} bytes, the data set wants {picture.frame_bytes}")
    return decoded
