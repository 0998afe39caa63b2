"""A data set that lies in pieces, cut into P-DATA-TF PDUs without copying it (DICOM PS3.8 9.3.5, annex E)."""

from collections.abc import Iterable, Iterator

from archive.dicom.scan import Buffer
from archive.dimse.pdu import LAST_FRAGMENT, PDU_HEADER, PDV_HEADER, PduType
from archive.errors import Damaged

TOGETHER_BYTES = 1 << 20
"""About so much is handed over at once: enough for a system call to pay off, little enough that a large object comes piece by piece."""


def fragments_of(context_id: int, pieces: Iterable[Buffer], length: int, fragment_bytes_max: int) -> Iterator[list[Buffer]]:
    """Headers and slices of the pieces in the order of the wire, some PDUs at a time.

    Parameters
    ----------
    pieces : iterable of Buffer
        The data set, in order.
    length : int
        Bytes of all pieces; at least 1.
    fragment_bytes_max : int
        Largest fragment that the peer takes; fragments are even but for the last one.

    Raises
    ------
    Damaged
        The pieces are shorter or longer than that.
    """
    size = max(2, min(fragment_bytes_max, TOGETHER_BYTES) & ~1)
    full = _header(context_id, 0, size)
    out: list[Buffer] = []
    gathered, missing, left = 0, 0, length  # missing: bytes that the fragment begun still wants
    for piece in pieces:
        view = memoryview(piece)
        at, end = 0, len(view)
        while at < end:
            if not missing:
                if not left:
                    raise Damaged(f"a data set of more than {length} bytes")
                missing = min(size, left)
                out.append(full if left > size else _header(context_id, LAST_FRAGMENT, missing))
                left -= missing
            taken = min(missing, end - at)
            out.append(view[at : at + taken])
            at += taken
            missing -= taken
            gathered += taken
            if not missing and gathered >= TOGETHER_BYTES:
                yield out
                out, gathered = [], 0
    if left or missing:
        raise Damaged(f"a data set of {length - left - missing} bytes where {length} should be")
    if out:
        yield out


def _header(context_id: int, control: int, fragment_bytes: int) -> bytes:
    length = fragment_bytes + 2
    return PDU_HEADER.pack(PduType.P_DATA_TF, length + 4) + PDV_HEADER.pack(length, context_id, control)
