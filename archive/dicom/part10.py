"""Files as DICOM PS3.10 chapter 7 lays them out: preamble, prefix, file meta information, data set."""

from dataclasses import dataclass
from functools import lru_cache
from struct import pack

from archive.dicom.scan import Buffer, RawElement, scan_elements, sniff_encoding
from archive.dicom.syntax import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    encoding_of,
)
from archive.dicom.uid import check_uid
from archive.errors import NotUnderstood

IMPLEMENTATION_CLASS_UID = "2.25.313733327525123451112676332509245069338"
IMPLEMENTATION_VERSION_NAME = "DICOM-ARCHIVE-1"

PREAMBLE_LENGTH = 128
_START = PREAMBLE_LENGTH + 4
_START_OF_META = bytes(PREAMBLE_LENGTH) + b"DICM\x02\x00\x00\x00UL\x04\x00"
_META = encoding_of(EXPLICIT_VR_LITTLE_ENDIAN)
_UIDS = {0x00020002: "sop_class_uid", 0x00020003: "sop_instance_uid", 0x00020010: "transfer_syntax_uid"}


@dataclass(frozen=True, slots=True)
class FileMeta:
    """What stands before the data set.

    Parameters
    ----------
    sop_class_uid, sop_instance_uid : str
        As the file meta information names them; empty where it does not.
    transfer_syntax_uid : str
        As named; where it is missing, the uncompressed syntax that the bytes of the data set show.
    source_ae_title : str
        Empty where it is missing.
    length : int
        Bytes before the data set: its offset in the file.
    """

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    source_ae_title: str
    length: int


def write_file_meta(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str = "") -> bytes:
    """Everything that precedes the data set in a file; the same arguments give the same bytes.

    Raises
    ------
    BadInput
        One of the UIDs is none.
    """
    before, after = _repeated_meta(sop_class_uid, transfer_syntax_uid, source_ae_title)
    instance = _short_element(0x0003, b"UI", check_uid(sop_instance_uid, "SOPInstanceUID"))
    return _START_OF_META + pack("<I", len(before) + len(instance) + len(after)) + before + instance + after


@lru_cache(maxsize=256)
def _repeated_meta(sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> tuple[bytes, bytes]:
    """What stands before and after the SOP Instance UID."""
    before = b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01" + _short_element(0x0002, b"UI", check_uid(sop_class_uid, "SOPClassUID"))
    after = b"".join(
        (
            _short_element(0x0010, b"UI", check_uid(transfer_syntax_uid, "TransferSyntaxUID")),
            _short_element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID),
            _short_element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME),
            _short_element(0x0016, b"AE", source_ae_title[:16]) if source_ae_title else b"",
        )
    )
    return before, after


def read_file_meta(buffer: Buffer) -> FileMeta:
    """The file meta information of a file, as much of it as there is.

    The group ends at the first element of another one, whatever its group length says: too many writers get that wrong.

    Raises
    ------
    NotUnderstood
        Not a DICOM file: no prefix, or no file meta information after it.
    """
    if len(buffer) < _START or bytes(buffer[PREAMBLE_LENGTH:_START]) != b"DICM":
        raise NotUnderstood("not a DICOM file: no DICM after 128 bytes")
    found = _group(buffer)
    if not found:
        raise NotUnderstood("not a DICOM file: no file meta information")
    if found[-1].truncated:
        raise NotUnderstood("the file ends within its file meta information")
    text = {element.tag: _text(buffer, element) for element in found if element.tag in _UIDS or element.tag == 0x00020016}
    length = found[-1].end
    uids = {name: text.get(tag, "") for tag, name in _UIDS.items()}
    uids["transfer_syntax_uid"] = uids["transfer_syntax_uid"] or _seen_syntax(memoryview(buffer)[length:])
    return FileMeta(**uids, source_ae_title=text.get(0x00020016, ""), length=length)


def names_instance(file_meta: Buffer, sop_instance_uid: str) -> bool:
    """Whether what `write_file_meta` made is of this SOP Instance; quicker than reading all of it."""
    return _short_element(0x0003, b"UI", sop_instance_uid) in bytes(file_meta)


def _short_element(number: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return b"\x02\x00" + pack("<H2sH", number, vr, len(value)) + value


def _group(buffer: Buffer) -> list[RawElement]:
    """Elements of group 2 in ascending order; all name their VR, or none does, as some old files have it."""
    found: list[RawElement] = []
    try:
        for element in scan_elements(buffer, _META, _START, stop_tag=0x00030000):
            previous = found[-1] if found else RawElement(0x0001FFFF, element.vr, 0, 0, False, 0)
            if element.tag <= previous.tag or bool(element.vr) != bool(previous.vr):
                break
            found.append(element)
    except NotUnderstood:
        if not found:
            raise
    return found


def _text(buffer: Buffer, element: RawElement) -> str:
    return bytes(buffer[element.offset : element.offset + min(element.length, 1024)]).decode("ascii", "replace").strip("\0 ")


def _seen_syntax(data_set: Buffer) -> str:
    encoding = sniff_encoding(data_set, EXPLICIT_VR_LITTLE_ENDIAN)
    if not encoding.explicit:
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if encoding.little else EXPLICIT_VR_BIG_ENDIAN
