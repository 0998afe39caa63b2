"""What is accepted of a proposal; the bytes are pynetdicom's on the other side."""

import random
import struct

import pytest
from pynetdicom.pdu import A_ASSOCIATE_AC

from archive.config import DimseSection, RemoteAe
from archive.dimse.get import Get
from archive.dimse.negotiation import accept, reject
from archive.dimse.pdu import Rejection, Violation
from archive.dimse.proposal import read_proposal
from archive.dimse.service import Service
from archive.dimse.storage import Storage
from archive.dimse.verification import Verification
from tests.dimse.peer import CT, EXPLICIT, IMPLICIT, JPEG, VERIFICATION, associate_rq
from tests.dimse.receptions import MemoryIngest

SERVICES: tuple[Service, ...] = (Verification(), Storage(MemoryIngest()))
MR = "1.2.840.10008.5.1.4.1.1.4"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
STUDY_ROOT_FIND, STUDY_GET = "1.2.840.10008.5.1.4.1.2.2.1", "1.2.840.10008.5.1.4.1.2.2.3"


def answer(encoded: bytes) -> A_ASSOCIATE_AC:
    pdu = A_ASSOCIATE_AC()
    pdu.decode(accept(read_proposal(encoded), SERVICES, RemoteAe(), 262144).encoded)
    return pdu


def test_a_proposal_is_read() -> None:
    proposal = read_proposal(associate_rq(called="THE ARCHIVE", calling=" CT1 ", maximum_length=65536, roles={CT: (1, 1)}))
    assert (proposal.called_ae_title, proposal.calling_ae_title, proposal.pdu_bytes_max) == ("THE ARCHIVE", "CT1", 65536)
    assert proposal.contexts == [(1, VERIFICATION, [IMPLICIT]), (3, CT, [EXPLICIT])]
    assert proposal.roles == {CT: (True, True)}
    assert proposal.implementation == "2.25.1"


def test_the_first_transfer_syntax_is_taken() -> None:
    contexts = [(1, CT, [JPEG, EXPLICIT]), (3, "1.3.12.2.1107.5.9.1", ["1.2.840.113619.5.2"]), (255, CT, [IMPLICIT, JPEG])]
    results = answer(associate_rq(contexts)).presentation_context
    assert [(r.context_id, r.result, r.transfer_syntax) for r in results] == [
        (1, 0, JPEG),
        (3, 0, "1.2.840.113619.5.2"),
        (255, 0, IMPLICIT),
    ]


def test_big_endian_is_taken_where_nothing_else_is_proposed() -> None:
    contexts = [(1, CT, [BIG_ENDIAN, IMPLICIT]), (3, CT, [BIG_ENDIAN]), (5, CT, [IMPLICIT, BIG_ENDIAN])]
    assert [r.transfer_syntax for r in answer(associate_rq(contexts)).presentation_context] == [IMPLICIT, BIG_ENDIAN, IMPLICIT]


def test_services_that_are_not_here_are_refused_context_by_context() -> None:
    contexts = [(1, STUDY_ROOT_FIND, [IMPLICIT]), (3, "1.2.9.9.3", [IMPLICIT]), (5, CT, ["1.2.8.8.3"]), (7, VERIFICATION, [IMPLICIT])]
    encoded = associate_rq(contexts).replace(b"1.2.9.9.3", b"1.2/../.3").replace(b"1.2.8.8.3", b"1.2.8/8.3")
    assert [r.result for r in answer(encoded).presentation_context] == [3, 3, 4, 0]


def test_the_answer_names_us_and_echoes_the_titles() -> None:
    encoded = associate_rq(called="ARCHIVE", calling="CT1")
    encoded = encoded[:42] + bytes(range(32)) + encoded[74:]  # reserved, to be sent back as they came
    outcome = accept(read_proposal(encoded), SERVICES, RemoteAe(), 262144)
    assert outcome.encoded[10:74] == encoded[10:74]
    user = answer(encoded).user_information
    assert user is not None
    assert user.maximum_length == 262144
    assert user.implementation_version_name == "DICOM-ARCHIVE-1"
    assert answer(encoded).encode() == outcome.encoded[:42] + bytes(32) + outcome.encoded[74:]


def test_the_requestor_may_be_scu_and_for_storage_scp_too() -> None:
    user = answer(associate_rq(roles={CT: (1, 1), VERIFICATION: (0, 1), STUDY_ROOT_FIND: (1, 1)})).user_information
    assert user is not None
    assert {str(uid): (item.scu_role, item.scp_role) for uid, item in user.role_selection.items()} == {CT: (1, 1), VERIFICATION: (0, 0)}


def test_contexts_keep_the_roles_of_the_requestor() -> None:
    contexts = [(1, CT, [IMPLICIT]), (3, MR, [IMPLICIT])]
    outcome = accept(read_proposal(associate_rq(contexts, roles={CT: (0, 1)})), SERVICES, RemoteAe(), 16384)
    assert [(c.peer_is_scu, c.peer_is_scp) for c in outcome.contexts.values()] == [(False, True), (True, False)]


def test_a_peer_is_accepted_what_its_row_allows() -> None:
    contexts = [(1, CT, [JPEG, EXPLICIT]), (3, MR, [EXPLICIT]), (5, CT, [JPEG]), (7, VERIFICATION, [IMPLICIT])]

    def results(row: RemoteAe, roles: dict[str, tuple[int, int]] | None = None) -> list[tuple[int | None, str]]:
        outcome = accept(read_proposal(associate_rq(contexts, roles=roles)), SERVICES, row, 16384)
        pdu = A_ASSOCIATE_AC()
        pdu.decode(outcome.encoded)
        return [(r.result, str(r.transfer_syntax) if r.result == 0 else "") for r in pdu.presentation_context]

    assert results(RemoteAe(may_store=False)) == [(1, ""), (1, ""), (1, ""), (0, IMPLICIT)]
    assert results(RemoteAe(sop_classes=[CT])) == [(0, JPEG), (1, ""), (0, JPEG), (0, IMPLICIT)]
    assert results(RemoteAe(transfer_syntaxes=[EXPLICIT])) == [(0, EXPLICIT), (0, EXPLICIT), (4, ""), (0, IMPLICIT)]
    # Who retrieves by C-GET takes the role of a storage SCP, in what can be written for it.
    assert results(RemoteAe(may_store=False), {CT: (0, 1)}) == [(0, EXPLICIT), (1, ""), (0, JPEG), (0, IMPLICIT)]
    assert results(RemoteAe(may_store=False, may_retrieve=False), {CT: (0, 1)})[:3] == [(1, ""), (1, ""), (1, "")]


@pytest.mark.parametrize(("proposed", "accepted"), [((5, 3), (5, 1)), ((0, 0), (32, 1)), ((1000, 1), (32, 1)), (None, None)])
def test_an_operations_window_is_answered_where_it_is_proposed(proposed: tuple[int, int] | None, accepted: tuple[int, int] | None) -> None:
    user = answer(associate_rq(operations=proposed)).user_information
    assert user is not None
    window = user.async_ops_window
    assert (window and (window.maximum_number_operations_invoked, window.maximum_number_operations_performed)) == accepted


def test_nothing_is_sent_ahead_where_the_peer_may_ask_for_c_get() -> None:
    contexts = [(1, CT, [EXPLICIT]), (3, STUDY_GET, [EXPLICIT])]
    outcome = accept(read_proposal(associate_rq(contexts, operations=(4, 4))), [*SERVICES, Get(None)], RemoteAe(), 16384)  # type: ignore[arg-type]
    pdu = A_ASSOCIATE_AC()
    pdu.decode(outcome.encoded)
    window = pdu.user_information.async_ops_window  # type: ignore[union-attr]
    assert window is not None and window.maximum_number_operations_invoked == 1


def test_unknown_items_are_ignored() -> None:
    encoded = associate_rq()
    unknown = struct.pack(">BxH", 0x77, 3) + b"abc"
    user_at = encoded.rindex(b"\x50\x00", 0, encoded.rindex(b"\x51\x00\x00\x04"))
    user_length = int.from_bytes(encoded[user_at + 2 : user_at + 4], "big")
    user = struct.pack(">BxH", 0x50, user_length + len(unknown)) + unknown + encoded[user_at + 4 :]
    body = encoded[6:74] + unknown + encoded[74:user_at] + user
    proposal = read_proposal(encoded[:2] + struct.pack(">I", len(body)) + body)
    assert proposal.contexts == read_proposal(encoded).contexts
    assert proposal.pdu_bytes_max == 16384


@pytest.mark.parametrize(
    "contexts",
    [[], [(2, CT, [IMPLICIT])], [(1, CT, [IMPLICIT]), (1, CT, [EXPLICIT])], [(0, CT, [IMPLICIT])]],
)
def test_context_ids_are_odd_and_told_apart(contexts: list[tuple[int, str, list[str]]]) -> None:
    with pytest.raises(Violation):
        read_proposal(associate_rq(contexts))


def test_a_maximum_length_that_holds_nothing_is_a_violation() -> None:
    with pytest.raises(Violation, match="maximum length"):
        read_proposal(associate_rq(maximum_length=6))
    assert read_proposal(associate_rq(maximum_length=0)).pdu_bytes_max == 0


def test_whole_associations_are_rejected_by_policy() -> None:
    proposal = read_proposal(associate_rq(called="OTHER", calling="CT1"))
    assert reject(proposal, DimseSection(), {}) is None
    assert reject(proposal, DimseSection(called_ae_title_required=True), {}) is Rejection.CALLED_AE_TITLE_NOT_RECOGNIZED
    assert reject(proposal, DimseSection(called_ae_title_required=True, ae_title="OTHER"), {}) is None
    assert reject(proposal, DimseSection(calling_ae_titles=["MR1"]), {}) is Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED
    assert reject(proposal, DimseSection(calling_ae_titles=["MR1", "CT1"]), {}) is None
    assert reject(proposal, DimseSection(unknown_callers_rejected=True), {}) is Rejection.CALLING_AE_TITLE_NOT_RECOGNIZED
    assert reject(proposal, DimseSection(unknown_callers_rejected=True), {"CT1": RemoteAe()}) is None
    assert reject(proposal, DimseSection(calling_ae_titles=["MR1"]), {"CT1": RemoteAe()}) is None
    encoded = associate_rq()
    assert reject(read_proposal(encoded[:6] + b"\x00\x02" + encoded[8:]), DimseSection(), {}) is Rejection.PROTOCOL_VERSION_NOT_SUPPORTED
    other = encoded.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2")
    assert reject(read_proposal(other), DimseSection(), {}) is Rejection.APPLICATION_CONTEXT_NOT_SUPPORTED


def test_damaged_proposals_are_violations_and_nothing_else() -> None:
    encoded, rng = associate_rq(), random.Random(3)
    for end in range(6, len(encoded)):
        try:
            cut = read_proposal(encoded[:end])
        except Violation:
            continue
        assert cut.contexts == read_proposal(encoded).contexts[: len(cut.contexts)]  # at the end of an item
    for _ in range(3000):
        mutated = bytearray(encoded)
        for _ in range(rng.randrange(1, 5)):
            mutated[rng.randrange(6, len(mutated))] = rng.randrange(256)
        try:
            accept(read_proposal(bytes(mutated)), SERVICES, RemoteAe(), 16384)
        except Violation:
            continue
