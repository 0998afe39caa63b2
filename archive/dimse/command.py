"""Command sets: implicit VR little endian elements of group 0000 (DICOM PS3.7 6.3.1, 9.3, annex E)."""

from collections.abc import Iterable, Mapping
from enum import IntEnum
from struct import Struct, error

from archive.dimse.pdu import AbortReason, Violation

COMMAND_BYTES_MAX = 64 * 1024
"""Largest command set that is read; real ones have some hundred bytes."""

NO_DATA_SET = 0x0101
RESPONSE = 0x8000

_ELEMENT = Struct("<HHI")
_UNSIGNED_SHORT = Struct("<H")
_UNSIGNED_SHORT_ELEMENT = Struct("<HHIH")
_GROUP_LENGTH = Struct("<HHII")


class Field(IntEnum):
    """Command elements, by element number (PS3.7 table E.1-1)."""

    AFFECTED_SOP_CLASS_UID = 0x0002
    REQUESTED_SOP_CLASS_UID = 0x0003
    COMMAND_FIELD = 0x0100
    MESSAGE_ID = 0x0110
    MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
    MOVE_DESTINATION = 0x0600
    PRIORITY = 0x0700
    COMMAND_DATA_SET_TYPE = 0x0800
    STATUS = 0x0900
    ERROR_COMMENT = 0x0902
    AFFECTED_SOP_INSTANCE_UID = 0x1000
    REQUESTED_SOP_INSTANCE_UID = 0x1001
    EVENT_TYPE_ID = 0x1002
    ACTION_TYPE_ID = 0x1008
    NUMBER_OF_REMAINING_SUBOPERATIONS = 0x1020
    NUMBER_OF_COMPLETED_SUBOPERATIONS = 0x1021
    NUMBER_OF_FAILED_SUBOPERATIONS = 0x1022
    NUMBER_OF_WARNING_SUBOPERATIONS = 0x1023
    MOVE_ORIGINATOR_AE_TITLE = 0x1030
    MOVE_ORIGINATOR_MESSAGE_ID = 0x1031


class CommandField(IntEnum):
    """What a command asks for (PS3.7 table E.1-1); the response has `RESPONSE` added."""

    C_STORE_RQ = 0x0001
    C_GET_RQ = 0x0010
    C_FIND_RQ = 0x0020
    C_MOVE_RQ = 0x0021
    C_ECHO_RQ = 0x0030
    N_EVENT_REPORT_RQ = 0x0100
    N_ACTION_RQ = 0x0130
    C_CANCEL_RQ = 0x0FFF


class Command:
    """A command set as it came.

    Parameters
    ----------
    elements : mapping of int to bytes
        Values by element number, padding included.
    """

    __slots__ = ("_elements", "command_field", "message_id", "has_data_set")

    def __init__(self, elements: Mapping[int, bytes]) -> None:
        self._elements = elements
        self.command_field = self.number(Field.COMMAND_FIELD)
        self.has_data_set = self.number(Field.COMMAND_DATA_SET_TYPE) != NO_DATA_SET
        self.message_id = self.number(Field.MESSAGE_ID, 0)

    @classmethod
    def decode(cls, data: bytes | bytearray) -> "Command":
        """Read an encoded command set.

        Raises
        ------
        Violation
            It is not a sequence of elements of group 0000, or lacks Command Field or Command Data Set Type.
        """
        elements: dict[int, bytes] = {}
        at, end = 0, len(data)
        try:
            while at < end:
                group, element, length = _ELEMENT.unpack_from(data, at)
                at += 8 + length
                if group != 0 or at > end:
                    raise Violation(AbortReason.INVALID_PARAMETER, "a command set that is none")
                elements[element] = bytes(data[at - length : at])
        except error:
            raise Violation(AbortReason.INVALID_PARAMETER, "a command set that ends inside an element") from None
        return cls(elements)

    @property
    def is_response(self) -> bool:
        return bool(self.command_field & RESPONSE)

    def number(self, field: int, default: int | None = None) -> int:
        """Value of a US element.

        Raises
        ------
        Violation
            It is missing and there is no default, or it has another length than two.
        """
        value = self._elements.get(field)
        if value is None and default is not None:
            return default
        if value is None or len(value) != 2:
            raise Violation(AbortReason.INVALID_PARAMETER, f"a command set without a proper (0000,{field:04X})")
        return int(_UNSIGNED_SHORT.unpack(value)[0])

    def text(self, field: int) -> str:
        """Value of a UI or AE element without padding; empty when it is missing.

        Bytes that are no ASCII stay visible, as one character each.
        """
        return self._elements.get(field, b"").decode("latin-1").strip("\0 ")

    def respond(
        self,
        status: int,
        error_comment: str = "",
        echoed: Iterable[int] = (),
        has_data_set: bool = False,
        further: Mapping[int, int | bytes] | None = None,
    ) -> bytes:
        """Encode the response to this command.

        Parameters
        ----------
        status : int
            PS3.7 annex C and the services of PS3.4.
        error_comment : str
            Cut to the 64 characters of an LO value.
        echoed : iterable of int
            Further elements that are given back as they came, where they came.
        has_data_set : bool
            A data set follows.
        further : mapping of int to int or bytes
            Elements that this kind of response has besides.
        """
        elements: dict[int, int | bytes] = {
            **(further or {}),
            Field.COMMAND_FIELD: self.command_field | RESPONSE,
            Field.MESSAGE_ID_BEING_RESPONDED_TO: self.message_id,
            Field.COMMAND_DATA_SET_TYPE: 0x0001 if has_data_set else NO_DATA_SET,
            Field.STATUS: status,
        }
        for field in (Field.AFFECTED_SOP_CLASS_UID, *echoed):
            if field in self._elements:
                elements[field] = self._elements[field]
        if error_comment:
            elements[Field.ERROR_COMMENT] = as_long_string(error_comment)
        return encode_command(elements)


def encode_command(elements: Mapping[int, int | bytes]) -> bytes:
    """Encode a command set, group length included.

    Parameters
    ----------
    elements : mapping of int to int or bytes
        Values by element number: int for US elements, bytes for the rest, which are padded with NUL where their length is odd.
    """
    parts = [
        _UNSIGNED_SHORT_ELEMENT.pack(0, element, 2, value)
        if isinstance(value, int)
        else _ELEMENT.pack(0, element, len(value) + len(value) % 2) + value + b"\0" * (len(value) % 2)
        for element, value in sorted(elements.items())
    ]
    encoded = b"".join(parts)
    return _GROUP_LENGTH.pack(0, 0, 4, len(encoded)) + encoded


def as_ae_title(title: str) -> bytes:
    """A title as an AE value: even, by a space where it must be (PS3.5 6.2)."""
    return (title + " " * (len(title) % 2)).encode("ascii")


def as_long_string(text: str) -> bytes:
    """Text as an LO value: 64 ASCII characters at most, even, without backslash and control characters (PS3.5 6.2)."""
    safe = "".join(c if " " <= c <= "~" and c != "\\" else "?" for c in text)
    if len(safe) > 64:
        safe = safe[:61] + "..."
    return (safe + " " * (len(safe) % 2)).encode("ascii")
