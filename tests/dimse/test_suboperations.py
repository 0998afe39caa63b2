"""C-STORE sub-operations one behind the other: what is opened when, what is counted, what is left."""

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from archive.dimse.command import NO_DATA_SET, RESPONSE, Command, CommandField, Field
from archive.dimse.message import Context
from archive.dimse.pdu import AssociationEnded
from archive.dimse.suboperations import SubOperations, Tally
from archive.errors import Damaged
from archive.flow.deliverable import Deliverable
from archive.index.located import Located, PackPlace
from archive.pack.descriptor import Revision

CT, SYNTAX = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"
CONTEXT = Context(1, CT, SYNTAX, peer_is_scu=False, peer_is_scp=True)


def instance(number: int, sop_class: str = CT) -> Located:
    uid = f"1.2.3.{number}"
    return Located("1.2", "1.2.3", uid, sop_class, SYNTAX, 10, 0, 0, "", Revision("node", number), 0, False, None, PackPlace(1, 0))


class Peer:
    """Messages and source in one: notes what happens, in order."""

    def __init__(self, end_at: int = 0, bad: Sequence[str] = ()) -> None:
        self.events: list[str] = []
        self._sent, self._end_at, self._bad = 0, end_at, bad

    @contextlib.contextmanager
    def open(self, stored: Located, accepted: Sequence[str]) -> Iterator[Deliverable]:
        if stored.sop_instance_uid in self._bad:
            raise Damaged("its bytes are not what was stored")
        self.events.append(f"open {stored.revision.sequence}")
        yield Deliverable(SYNTAX, [b"xy"], 2)
        self.events.append(f"close {stored.revision.sequence}")

    def select(self, level: Any, keys: Any) -> Sequence[Located]:
        raise NotImplementedError

    def send_pieces(self, context_id: int, command: bytes, pieces: Any, length: int) -> None:
        self._sent += 1
        self.events.append("send")

    def read_response(self, request: CommandField, message_id: int) -> Command:
        if self._sent == self._end_at:
            raise AssociationEnded("gone")
        self.events.append("response")
        numbers = {Field.COMMAND_FIELD: CommandField.C_STORE_RQ | RESPONSE, Field.COMMAND_DATA_SET_TYPE: NO_DATA_SET, Field.STATUS: 0}
        return Command({field: number.to_bytes(2, "little") for field, number in numbers.items()})


def run(peer: Any, instances: list[Located], go_on: Callable[[], bool] = lambda: True) -> tuple[Tally, deque[Located]]:
    tally, queue = Tally(instances, "test"), deque(instances)
    with contextlib.suppress(AssociationEnded):
        SubOperations(peer, [CONTEXT], peer, tally, {}).run(queue, go_on)
    return tally, queue


def test_the_next_one_is_opened_while_one_is_on_its_way() -> None:
    peer = Peer()
    tally, _ = run(peer, [instance(1), instance(2)])
    assert peer.events == ["open 1", "send", "close 1", "open 2", "response", "send", "close 2", "response"]
    assert tally.completed == 2 and tally.over.is_set()


def test_what_was_opened_and_is_not_tried_is_closed_and_put_back() -> None:
    peer, answers = Peer(), iter([True, False])
    tally, queue = run(peer, [instance(1), instance(2), instance(3)], lambda: next(answers))
    assert peer.events[-1] == "close 2"
    assert [one.revision.sequence for one in queue] == [2, 3]
    assert (tally.completed, tally.remaining, tally.over.is_set()) == (1, 2, False)


def test_an_association_that_ends_costs_only_what_is_on_its_way() -> None:
    peer = Peer(end_at=2)
    tally, queue = run(peer, [instance(n) for n in (1, 2, 3, 4)])
    assert tally.failed == ["1.2.3.2"] and tally.completed == 1
    assert [one.revision.sequence for one in queue] == [3, 4]


def test_an_answer_without_a_status_is_a_failure() -> None:
    class Wordless(Peer):
        def read_response(self, request: CommandField, message_id: int) -> Command:
            response = super().read_response(request, message_id)
            numbers = {Field.COMMAND_FIELD: response.command_field, Field.COMMAND_DATA_SET_TYPE: NO_DATA_SET}
            wordless = Command({field: number.to_bytes(2, "little") for field, number in numbers.items()})
            return wordless if self._sent == 2 else response

    tally, queue = run(Wordless(), [instance(n) for n in (1, 2, 3)])
    assert (tally.completed, tally.failed, tally.remaining) == (1, ["1.2.3.2"], 1)
    assert [one.revision.sequence for one in queue] == [3]


@pytest.mark.parametrize("last", [False, True])
def test_what_cannot_be_opened_fails_alone(last: bool) -> None:
    instances = [instance(1), instance(2), instance(3, "1.2.840.10008.5.1.4.1.1.4"), *([] if last else [instance(4)])]
    tally, _ = run(Peer(bad=["1.2.3.2"]), instances)
    assert tally.failed == ["1.2.3.2", "1.2.3.3"] and tally.completed == len(instances) - 2
    assert tally.over.is_set()
