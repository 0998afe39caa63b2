"""What a service on an association is, and which one answers for an abstract syntax.

Services hold no state of an association: one object of each serves every thread.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

from archive.config import RemoteAe
from archive.dimse.command import Command, CommandField
from archive.dimse.message import Context, Messages


class Requestor(Protocol):
    """What a service may know of, and tell to, the association it works for.

    Attributes
    ----------
    messages : Messages
        To read the data set from and to send responses on; `messages.is_cancelled` is to be asked while a long operation runs.
    remote_ae : RemoteAe
        The peer's row in the table of remote AEs.
    contexts : mapping of int to Context
        Accepted presentation contexts by id.
    extended : mapping of str to bytes
        Service class application information as it was answered, by SOP class.
    host, peer : str
        Address of the peer; address and port.
    """

    messages: Messages
    calling_ae_title: str
    called_ae_title: str
    remote_ae: RemoteAe
    contexts: Mapping[int, Context]
    extended: Mapping[str, bytes]
    host: str
    peer: str

    def report(self, context: Context, elements: Mapping[int, int | bytes], data_set: bytes, seconds: float) -> Command | None:
        """Send a request to the peer while it waits for nothing, from another thread; its response, None where none comes."""

    def audit(
        self, action: CommandField, study_instance_uid: str, status: int | None, instances: int, destination: str = "", outcome: str = ""
    ) -> None:
        """Note for the audit log what the peer did, and with how many instances (for a query: answers).

        Without a status the association ended before one was told; an outcome is given where the status does not say it.
        """

    def count(self, name: str, n: int = 1) -> None:
        """Add to one of the `archive.dimse.counters.Counters`."""


class Service(Protocol):
    """A service class user's other side (an SCP, DICOM PS3.4)."""

    def supports(self, abstract_syntax: str) -> bool:
        """Whether this service answers for a SOP class."""

    def permits(self, abstract_syntax: str, remote_ae: RemoteAe, scp: bool) -> bool:
        """Whether a peer may use it, by its row in the table of remote AEs; `scp`: it proposes the SCP role for itself."""

    def choose_transfer_syntax(self, proposed: Sequence[str], remote_ae: RemoteAe, scp: bool) -> str | None:
        """The transfer syntax to accept of those proposed, all of them well-formed UIDs; None: none of them. `scp` as above."""

    def accept_roles(self, scu: bool, scp: bool) -> tuple[bool, bool]:
        """Roles of the peer that are accepted where it proposes some (PS3.7 D.3.3.4); none that it did not propose."""

    def answer_extended(self, abstract_syntax: str, information: bytes) -> bytes | None:
        """Service class application information that answers the peer's (PS3.7 D.3.3.5); None: it is not negotiated."""

    def handle(self, association: Requestor, context: Context, command: Command) -> bool:
        """Carry out a request: read its data set, send the responses.

        Returns
        -------
        bool
            False where the command is not one of this service's; then nothing was read or sent.

        Raises
        ------
        AssociationEnded
            The association cannot go on. Everything else is answered with a status.
        """
