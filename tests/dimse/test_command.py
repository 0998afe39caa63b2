"""Command sets against pynetdicom's messages and against damage."""

import random
from io import BytesIO
from typing import Any

import pytest
from pynetdicom.dimse_messages import C_ECHO_RSP, C_FIND_RQ, C_STORE_RQ, C_STORE_RSP, N_ACTION_RQ
from pynetdicom.dimse_primitives import C_ECHO, C_FIND, C_STORE, N_ACTION
from pynetdicom.dsutils import decode, encode

from archive.dimse.command import Command, as_long_string, encode_command
from archive.dimse.pdu import Violation
from tests.dimse.peer import CT, c_store_rq


def pynetdicom_bytes(message: Any, primitive: Any) -> bytes:
    message.primitive_to_message(primitive)
    encoded = encode(message.command_set, True, True)
    assert encoded is not None
    return encoded


def store_request() -> C_STORE:
    request = C_STORE()
    request.MessageID, request.Priority = 65535, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = CT, "1.2.3.44"
    request.MoveOriginatorApplicationEntityTitle, request.MoveOriginatorMessageID = "MOVER", 17
    request.DataSet = BytesIO(b"x")
    return request


def test_a_request_of_pynetdicom_is_read() -> None:
    command = Command.decode(pynetdicom_bytes(C_STORE_RQ(), store_request()))
    assert (command.command_field, command.message_id, command.has_data_set, command.is_response) == (1, 65535, True, False)
    assert (command.text(0x0002), command.text(0x1000), command.text(0x1030)) == (CT, "1.2.3.44", "MOVER")
    assert (command.number(0x0700), command.number(0x1031)) == (2, 17)


def test_other_requests_of_pynetdicom_are_read() -> None:
    find = C_FIND()
    find.MessageID, find.Priority, find.AffectedSOPClassUID = 1, 0, "1.2.840.10008.5.1.4.1.2.2.1"
    find.Identifier = BytesIO(b"x")
    assert Command.decode(pynetdicom_bytes(C_FIND_RQ(), find)).command_field == 0x0020
    action = N_ACTION()
    action.MessageID, action.ActionTypeID = 1, 1
    action.RequestedSOPClassUID, action.RequestedSOPInstanceUID = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
    command = Command.decode(pynetdicom_bytes(N_ACTION_RQ(), action))
    assert (command.command_field, command.has_data_set, command.number(0x1008)) == (0x0130, False, 1)
    assert command.text(0x1001) == "1.2.840.10008.1.20.1.1"


def test_responses_are_pynetdicoms_byte_for_byte() -> None:
    response = C_STORE()
    response.MessageIDBeingRespondedTo, response.Status = 65535, 0xA900
    response.AffectedSOPClassUID, response.AffectedSOPInstanceUID = CT, "1.2.3.44"
    expected = pynetdicom_bytes(C_STORE_RSP(), response)
    assert Command.decode(pynetdicom_bytes(C_STORE_RQ(), store_request())).respond(0xA900, echoed=(0x1000,)) == expected
    echo = C_ECHO()
    echo.MessageIDBeingRespondedTo, echo.Status, echo.AffectedSOPClassUID = 3, 0, "1.2.840.10008.1.1"
    request = Command.decode(encode_command({0x0002: b"1.2.840.10008.1.1", 0x0100: 0x30, 0x0110: 3, 0x0800: 0x0101}))
    assert request.respond(0) == pynetdicom_bytes(C_ECHO_RSP(), echo)


def test_a_response_with_a_comment_is_read_by_pynetdicom() -> None:
    answer = decode(BytesIO(Command.decode(c_store_rq()).respond(0xC000, "what \\ is\nthis " + 80 * "x", (0x1000,))), True, True)
    assert (answer.Status, answer.CommandField, answer.AffectedSOPInstanceUID) == (0xC000, 0x8001, "1.2.3")
    assert answer.ErrorComment == "what ? is?this " + 46 * "x" + "..."
    assert answer.CommandGroupLength == len(Command.decode(c_store_rq()).respond(0xC000, 80 * "x", (0x1000,))) - 12


@pytest.mark.parametrize("text", ["", "odd", "even", "ü€", 64 * "a", 65 * "a"])
def test_long_strings_are_even_short_and_ascii(text: str) -> None:
    value = as_long_string(text)
    assert len(value) % 2 == 0 and len(value) <= 64 and value.isascii()


def test_padding_is_no_part_of_a_value_and_nothing_is_lost_of_the_rest() -> None:
    command = Command.decode(encode_command({0x0002: b"1.2 ", 0x0100: 1, 0x0800: 1, 0x1000: b"1.2.\xe9"}))
    assert (command.text(0x0002), command.text(0x1000), command.text(0x1030)) == ("1.2", "1.2.\xe9", "")


def test_a_command_set_cut_anywhere_is_a_violation_or_lacks_what_was_cut() -> None:
    whole = c_store_rq()
    for end in range(len(whole)):
        try:
            command = Command.decode(whole[:end])
        except Violation:
            continue
        assert command.text(0x1000) == ""


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        c_store_rq()[:-1],
        c_store_rq() + b"\x08\x00\x05\x00\x02\x00\x00\x00AB",  # an element of a data set
        c_store_rq() + b"\x00\x00\x00\x20\xff\xff\xff\xff",
        encode_command({0x0100: b"\x01\x00\x00\x00", 0x0800: 1}),
        encode_command({0x0100: 1}),
        encode_command({0x0800: 1}),
    ],
)
def test_what_is_no_command_set_is_a_violation(damaged: bytes) -> None:
    with pytest.raises(Violation):
        Command.decode(damaged)


def test_random_bytes_never_escape_as_another_error() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        mutated = bytearray(c_store_rq())
        for _ in range(rng.randrange(1, 6)):
            mutated[rng.randrange(len(mutated))] = rng.randrange(256)
        try:
            Command.decode(mutated).respond(0, "x", (0x1000,))
        except Violation:
            continue
