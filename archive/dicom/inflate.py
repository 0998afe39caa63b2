"""Data sets that are deflated as a whole (DICOM PS3.5 A.5, RFC 1951)."""

import zlib

from archive.dicom.scan import Buffer
from archive.errors import NotUnderstood


def inflate(data_set: Buffer, bytes_max: int) -> bytes:
    """The data set inside a deflated one.

    What follows the end of the deflated stream is padding. Streams with the zlib header that some writers put before them are read too.

    Parameters
    ----------
    data_set : Buffer
        As it came.
    bytes_max : int
        Largest size of the result.

    Raises
    ------
    NotUnderstood
        Not deflated, cut off, or larger than `bytes_max` once inflated.
    """
    try:
        return _inflate(data_set, bytes_max, -zlib.MAX_WBITS)
    except zlib.error as error:
        try:
            return _inflate(data_set, bytes_max, zlib.MAX_WBITS)
        except zlib.error:
            raise NotUnderstood(f"the data set is not deflated as its transfer syntax says: {error}") from error


def _inflate(data_set: Buffer, bytes_max: int, window_bits: int) -> bytes:
    stream = zlib.decompressobj(window_bits)
    inflated = stream.decompress(data_set, bytes_max + 1)
    if len(inflated) > bytes_max:
        raise NotUnderstood(f"the data set inflates to more than {bytes_max} bytes")
    if not stream.eof:
        raise NotUnderstood("the deflated data set is cut off")
    return inflated
