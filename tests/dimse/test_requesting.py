"""What this node proposes is what pynetdicom reads; what pynetdicom accepts is what this node reads."""

import pytest
from pynetdicom.pdu import A_ASSOCIATE_RQ
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation

from archive.dimse import negotiation
from archive.dimse.pdu import Violation
from archive.dimse.proposal import read_proposal
from archive.dimse.requesting import Wanted, associate_rq, read_granted
from tests.dimse.peer import CT, EXPLICIT, IMPLICIT, JPEG, VERIFICATION, associate_ac

COMMITMENT = "1.2.840.10008.1.20.1"
WANTED = [Wanted(VERIFICATION, (IMPLICIT,)), Wanted(CT, (JPEG,)), Wanted(CT, (EXPLICIT, IMPLICIT)), Wanted(COMMITMENT, (IMPLICIT,))]


def test_a_request_as_pynetdicom_reads_it() -> None:
    encoded = associate_rq("SINK", "ARCHIVE", WANTED, 65536, {COMMITMENT: (False, True)})
    theirs = A_ASSOCIATE_RQ()
    theirs.decode(encoded)
    assert theirs.encode() == encoded
    primitive = theirs.to_primitive()
    assert (primitive.called_ae_title, primitive.calling_ae_title) == ("SINK", "ARCHIVE")
    assert primitive.maximum_length_received == 65536
    proposed = [(c.context_id, c.abstract_syntax, tuple(c.transfer_syntax)) for c in primitive.presentation_context_definition_list]
    assert proposed == [(2 * n + 1, one.abstract_syntax, one.transfer_syntaxes) for n, one in enumerate(WANTED)]
    [role] = [item for item in primitive.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    assert (role.sop_class_uid, role.scu_role, role.scp_role) == (COMMITMENT, False, True)


def test_a_request_as_this_node_reads_it() -> None:
    ours = read_proposal(associate_rq("SINK", "ARCHIVE", WANTED, 65536, {COMMITMENT: (False, True)}))
    assert (ours.called_ae_title, ours.calling_ae_title, ours.protocol_version) == ("SINK", "ARCHIVE", negotiation.PROTOCOL_VERSION)
    assert ours.contexts == [(2 * n + 1, one.abstract_syntax, list(one.transfer_syntaxes)) for n, one in enumerate(WANTED)]
    assert ours.roles == {COMMITMENT: (False, True)}


def test_what_is_granted() -> None:
    encoded = associate_ac(
        {1: (0, IMPLICIT), 3: (4, JPEG), 5: (0, IMPLICIT), 7: (0, IMPLICIT)}, roles={COMMITMENT: (0, 1)}, maximum_length=4096
    )
    granted = read_granted(encoded, WANTED, {COMMITMENT: (False, True)})
    assert granted.pdu_bytes_max == 4096
    assert {i: (c.abstract_syntax, c.transfer_syntax) for i, c in granted.contexts.items()} == {
        1: (VERIFICATION, IMPLICIT),
        5: (CT, IMPLICIT),
        7: (COMMITMENT, IMPLICIT),
    }
    assert (granted.contexts[5].peer_is_scp, granted.contexts[5].peer_is_scu) == (True, False)
    assert (granted.contexts[7].peer_is_scp, granted.contexts[7].peer_is_scu) == (False, True)


def test_a_role_without_an_answer_is_not_granted() -> None:
    granted = read_granted(associate_ac({7: (0, IMPLICIT)}), WANTED, {COMMITMENT: (False, True)})
    assert (granted.contexts[7].peer_is_scp, granted.contexts[7].peer_is_scu) == (False, False)


def test_a_syntax_that_was_not_proposed_is_no_context() -> None:
    assert read_granted(associate_ac({3: (0, EXPLICIT), 9: (0, IMPLICIT)}), WANTED).contexts == {}


def test_nonsense() -> None:
    with pytest.raises(Violation):
        read_granted(associate_ac({1: (0, IMPLICIT)})[:-3], WANTED)
    with pytest.raises(Violation):
        read_granted(associate_ac({1: (0, IMPLICIT)}, maximum_length=3), WANTED)
