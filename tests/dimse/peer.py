"""A peer that sends exactly the bytes that a test wants, over a real socket."""

import socket
import struct
from collections.abc import Sequence
from types import TracebackType

from pydicom.uid import UID
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import (
    AbstractSyntaxSubItem,
    ApplicationContextItem,
    AsynchronousOperationsWindowSubItem,
    ImplementationClassUIDSubItem,
    MaximumLengthSubItem,
    PresentationContextItemRQ,
    SCP_SCU_RoleSelectionSubItem,
    SOPClassExtendedNegotiationSubItem,
    TransferSyntaxSubItem,
    UserInformationItem,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
)
from pynetdicom.presentation import PresentationContext

from archive.dimse.command import Command, encode_command

VERIFICATION = "1.2.840.10008.1.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
IMPLICIT, EXPLICIT, JPEG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.50"
CONTEXTS = ((1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT]))
FRAGMENT_BYTES = 250_000

RELEASE_RQ = bytes.fromhex("05 00 00000004 00000000")
RELEASE_RP = bytes.fromhex("06 00 00000004 00000000")
ABORT = bytes.fromhex("07 00 00000004 00000000")


def associate_rq(
    contexts: Sequence[tuple[int, str, list[str]]] = CONTEXTS,
    called: str = "ARCHIVE",
    calling: str = "PEER",
    maximum_length: int = 16384,
    roles: dict[str, tuple[int, int]] | None = None,
    extended: dict[str, bytes] | None = None,
    operations: tuple[int, int] | None = None,
) -> bytes:
    """An A-ASSOCIATE-RQ, encoded by pynetdicom."""
    pdu = A_ASSOCIATE_RQ()
    pdu.called_ae_title, pdu.calling_ae_title = called, calling
    application = ApplicationContextItem()
    application.application_context_name = UID("1.2.840.10008.3.1.1.1")
    length = MaximumLengthSubItem()
    length.maximum_length_received = maximum_length
    class_uid = ImplementationClassUIDSubItem()
    class_uid.implementation_class_uid = UID("2.25.1")
    user = UserInformationItem()
    user.user_data = [length, class_uid]
    for uid, (scu, scp) in (roles or {}).items():
        role = SCP_SCU_RoleSelectionSubItem()
        role.sop_class_uid, role.scu_role, role.scp_role = UID(uid), scu, scp
        user.user_data.append(role)
    for uid, information in (extended or {}).items():
        negotiation = SOPClassExtendedNegotiationSubItem()
        negotiation.sop_class_uid, negotiation.service_class_application_information = UID(uid), information
        user.user_data.append(negotiation)
    if operations is not None:
        window = AsynchronousOperationsWindowSubItem()
        window.maximum_number_operations_invoked, window.maximum_number_operations_performed = operations
        user.user_data.append(window)
    items = []
    for context_id, abstract, syntaxes in contexts:
        item = PresentationContextItemRQ()
        item.presentation_context_id = context_id
        name = AbstractSyntaxSubItem()
        name.abstract_syntax_name = UID(abstract)
        item.abstract_transfer_syntax_sub_items.append(name)
        for uid in syntaxes:
            syntax = TransferSyntaxSubItem()
            syntax.transfer_syntax_name = UID(uid)
            item.abstract_transfer_syntax_sub_items.append(syntax)
        items.append(item)
    pdu.variable_items = [application, *items, user]
    return pdu.encode()


def associate_ac(
    results: dict[int, tuple[int, str]], roles: dict[str, tuple[int, int]] | None = None, maximum_length: int = 16384
) -> bytes:
    """An A-ASSOCIATE-AC with a result and a transfer syntax by context id, encoded by pynetdicom."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = UID("1.2.840.10008.3.1.1.1")
    primitive.called_ae_title, primitive.calling_ae_title = "PEER", "ARCHIVE"
    primitive.result = 0
    contexts = []
    for context_id, (result, syntax) in results.items():
        context = PresentationContext()
        context.context_id, context.result = context_id, result
        context.transfer_syntax = [UID(syntax)]
        contexts.append(context)
    primitive.presentation_context_definition_results_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = maximum_length
    class_uid = ImplementationClassUIDNotification()
    class_uid.implementation_class_uid = UID("2.25.1")
    primitive.user_information = [length, class_uid]
    for uid, (scu, scp) in (roles or {}).items():
        role = SCP_SCU_RoleSelectionNegotiation()
        role.sop_class_uid, role.scu_role, role.scp_role = UID(uid), bool(scu), bool(scp)
        primitive.user_information.append(role)
    pdu = A_ASSOCIATE_AC()
    pdu.from_primitive(primitive)
    return pdu.encode()


def c_store_rq(sop_instance_uid: str = "1.2.3", sop_class_uid: str = CT, message_id: int = 7, data_set_type: int = 1) -> bytes:
    """An encoded C-STORE-RQ command set."""
    return encode_command(
        {
            0x0002: sop_class_uid.encode(),
            0x0100: 0x0001,
            0x0110: message_id,
            0x0700: 2,
            0x0800: data_set_type,
            0x1000: sop_instance_uid.encode(),
        }
    )


def c_echo_rq(message_id: int = 9) -> bytes:
    """An encoded C-ECHO-RQ command set."""
    return encode_command({0x0002: VERIFICATION.encode(), 0x0100: 0x0030, 0x0110: message_id, 0x0800: 0x0101})


def pdv(context_id: int, control: int, fragment: bytes) -> bytes:
    """A presentation data value: control 0 or 2 (last) of a data set, 1 or 3 (last) of a command."""
    return struct.pack(">IBB", len(fragment) + 2, context_id, control) + fragment


def p_data(*values: bytes) -> bytes:
    """A P-DATA-TF PDU of these presentation data values."""
    body = b"".join(values)
    return struct.pack(">BxI", 4, len(body)) + body


def c_store(data_set: bytes, sop_instance_uid: str = "1.2.3", context_id: int = 3) -> bytes:
    """A whole C-STORE request: command in one PDU, data set in one, or in several where it is large."""
    fragments = [data_set[at : at + FRAGMENT_BYTES] for at in range(0, len(data_set), FRAGMENT_BYTES)] or [b""]
    sent = [p_data(pdv(context_id, 0, fragment)) for fragment in fragments[:-1]]
    return b"".join([p_data(pdv(context_id, 3, c_store_rq(sop_instance_uid))), *sent, p_data(pdv(context_id, 2, fragments[-1]))])


class Peer:
    """A connection to a server, spoken to in bytes."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.socket.close()

    def send(self, *data: bytes | bytearray) -> "Peer":
        self.socket.sendall(b"".join(data))
        return self

    def receive(self) -> bytes:
        """The next PDU; empty when the server closed."""
        header = self._exactly(6)
        return header + self._exactly(int.from_bytes(header[2:], "big")) if header else b""

    def associate(self, **options: object) -> A_ASSOCIATE_AC:
        """Associate; the server has to accept."""
        self.send(associate_rq(**options))  # type: ignore[arg-type]
        answer = self.receive()
        assert answer[:1] == b"\x02", answer.hex()
        accepted = A_ASSOCIATE_AC()
        accepted.decode(answer)
        return accepted

    def message(self) -> tuple[Command, bytes]:
        """The next message: its command set, and its data set where it has one."""
        command, encoded, data = None, b"", b""
        while command is None or command.has_data_set:
            pdu = self.receive()
            assert pdu[:1] == b"\x04", pdu.hex()
            at = 6
            while at < len(pdu):
                length = int.from_bytes(pdu[at : at + 4], "big")
                control, fragment = pdu[at + 5], pdu[at + 6 : at + 4 + length]
                at += 4 + length
                assert bool(control & 1) == (command is None)
                if command is None:
                    encoded += fragment
                    if control & 2:
                        command = Command.decode(encoded)
                else:
                    data += fragment
                    if control & 2:
                        assert at == len(pdu)
                        return command, data
        return command, b""

    def response(self) -> Command:
        """The next message's command set; it has no data set."""
        command, data = self.message()
        assert not data
        return command

    def status(self) -> int:
        """Status of the next message."""
        return self.response().number(0x0900)

    def echo(self) -> None:
        """See that the association is usable."""
        self.send(p_data(pdv(1, 3, c_echo_rq())))
        answer = self.response()
        assert (answer.command_field, answer.number(0x0900), answer.number(0x0120)) == (0x8030, 0, 9)

    def release(self) -> None:
        """Release as the Standard has it, and see the server agree."""
        assert self.send(RELEASE_RQ).receive() == RELEASE_RP
        self.socket.shutdown(socket.SHUT_WR)
        assert self.receive() == b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.socket.recv(count - len(data))
            except ConnectionResetError:
                return b""
            if not more:
                assert not data, "the server closed inside a PDU"
                return b""
            data += more
        return data
