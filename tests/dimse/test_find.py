"""C-FIND over a real socket, on rows that the test made: statuses, negotiation, cancel, limits, character sets (DICOM PS3.4 C.4.1)."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import pytest
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset

from archive.config import DimseSection
from archive.dimse.command import encode_command
from archive.dimse.find import Find
from archive.errors import BadInput, Damaged, Exhausted
from archive.flow.query import Query
from tests.dimse.conftest import Served
from tests.dimse.peer import CONTEXTS, EXPLICIT, IMPLICIT, Peer, p_data, pdv

PATIENT_ROOT, STUDY_ROOT, PATIENT_STUDY_ONLY = (f"1.2.840.10008.5.1.4.1.2.{n}.1" for n in (1, 2, 3))
MODELS = {5: PATIENT_ROOT, 7: STUDY_ROOT, 9: PATIENT_STUDY_ONLY}
Row = dict[str, Any]


def row(number: int = 1, further: Row | None = None) -> Row:
    """An instance's row."""
    values: Row = {
        "0020000D": ("UI", ["1.2"]),
        "0020000E": ("UI", ["1.2.3"]),
        "00080018": ("UI", [f"1.2.3.{number}"]),
        "00080054": ("AE", ["ARCHIVE"]),
        "00100010": ("PN", [{"Alphabetic": "Doe^John"}]),
        "00100020": ("LO", ["P1"]),
        "00200013": ("IS", [number]),
        **(further or {}),
    }
    return {tag: {"vr": vr, "Value": value} for tag, (vr, value) in values.items()}


class Rows:
    """A search that finds what the test gave it, and keeps what it was asked."""

    def __init__(self) -> None:
        self.found: list[Row] = [row(n) for n in range(3)]
        self.endless = False
        self.error: BaseException | None = None
        self.asked: list[Query] = []

    def rows(self, query: Query, tick: Callable[[], None]) -> Iterator[Row]:
        self.asked.append(query)
        yield from self.found
        if self.error is not None:
            raise self.error
        while self.endless:
            time.sleep(0.001)
            tick()


@pytest.fixture
def rows() -> Rows:
    return Rows()


@pytest.fixture
def finding(serve: Callable[..., Served], rows: Rows) -> Served:
    settings = DimseSection(find_results_max=1000)
    return serve(services=[Find(rows, settings)])


def identifier(level: str = "STUDY", syntax: str = IMPLICIT, **keys: Any) -> bytes:
    asked = Dataset()
    for keyword, value in {"QueryRetrieveLevel": level, **keys}.items():
        setattr(asked, keyword, value)
    file = DicomBytesIO()
    file.is_little_endian, file.is_implicit_VR = True, syntax == IMPLICIT
    write_dataset(file, asked)
    return file.getvalue()


def c_find_rq(context_id: int = 7, message_id: int = 3, has_identifier: bool = True, sop_class: str = "") -> bytes:
    elements: dict[int, int | bytes] = {0x0002: (sop_class or MODELS[context_id]).encode(), 0x0100: 0x0020, 0x0110: message_id, 0x0700: 0}
    return p_data(pdv(context_id, 3, encode_command({**elements, 0x0800: 1 if has_identifier else 0x0101})))


def associated(peer: Peer, syntax: str = IMPLICIT, **options: Any) -> Peer:
    peer.associate(contexts=[*CONTEXTS, *((n, uid, [syntax]) for n, uid in MODELS.items())], **options)
    return peer


def answers(peer: Peer, asked: bytes, context_id: int = 7, syntax: str = IMPLICIT) -> tuple[list[tuple[int, Dataset]], int, str]:
    """Pending statuses with their identifiers, then the final status and its comment."""
    peer.send(c_find_rq(context_id), p_data(pdv(context_id, 2, asked)))
    pending: list[tuple[int, Dataset]] = []
    while True:
        command, data = peer.message()
        assert (command.command_field, command.number(0x0120), command.text(0x0002)) == (0x8020, 3, MODELS[context_id])
        if not command.has_data_set:
            assert not data
            return pending, command.number(0x0900), command.text(0x0902)
        pending.append((command.number(0x0900), read_dataset(BytesIO(data), syntax == IMPLICIT, True)))


@pytest.mark.parametrize("syntax", [IMPLICIT, EXPLICIT])
def test_answers_hold_what_was_asked_and_the_unique_keys(finding: Served, rows: Rows, syntax: str) -> None:
    asked = identifier("IMAGE", syntax, PatientID="P1", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.3", InstanceNumber=None, Rows=None)
    with Peer(finding.port) as peer:
        found, status, comment = answers(associated(peer, syntax), asked, 5, syntax)
        peer.echo()
    assert (status, comment, [pending for pending, _ in found]) == (0x0000, "", [0xFF00] * 3)
    for number, (_, answer) in enumerate(found):
        assert answer.to_json_dict() == {
            "00080052": {"vr": "CS", "Value": ["IMAGE"]},
            "00080054": {"vr": "AE", "Value": ["ARCHIVE"]},
            "00080018": {"vr": "UI", "Value": [f"1.2.3.{number}"]},
            "00100020": {"vr": "LO", "Value": ["P1"]},
            "0020000D": {"vr": "UI", "Value": ["1.2"]},
            "0020000E": {"vr": "UI", "Value": ["1.2.3"]},
            "00200013": {"vr": "IS", "Value": [number]},
            "00280010": {"vr": "US"},
        }
    [query] = rows.asked
    assert query.level == "instance"
    assert query.keys[("00100020",)] == "P1" and query.keys[("00200013",)] == ""
    assert not (query.fuzzy or query.combined)
    counters = finding.server.counters
    assert (counters.finds, counters.finds_failed, counters.find_results) == (1, 0, 3)


def test_items_hold_what_was_asked_of_them(finding: Served, rows: Rows) -> None:
    value = {"vr": "SH", "Value": ["a"]}
    items = [
        {"00080100": value, "00080104": {"vr": "LO", "Value": ["A"]}},
        {"00080104": {"vr": "LO", "Value": ["B"]}},
    ]
    rows.found = [row(further={"00081032": ("SQ", items)})]
    code = Dataset()
    code.CodeValue = "a"
    with Peer(finding.port) as peer:
        [(_, some)], _, _ = answers(associated(peer), identifier(ProcedureCodeSequence=[code]))
        [(_, whole)], _, _ = answers(peer, identifier(ProcedureCodeSequence=[]))
    assert [item.to_json_dict() for item in some.ProcedureCodeSequence] == [{"00080100": value}, {"00080100": {"vr": "SH"}}]
    assert [item.to_json_dict() for item in whole.ProcedureCodeSequence] == items
    assert [query.keys for query in rows.asked] == [{("00081032", "00080100"): "a"}, {}]


@pytest.mark.parametrize(
    ("keys", "status", "unheard"),
    [
        ({"PatientName": "D*", "ModalitiesInStudy": ""}, 0xFF00, []),
        ({"NumberOfPatientRelatedStudies": None, "InstanceAvailability": ""}, 0xFF00, []),
        ({"TimezoneOffsetFromUTC": "+0100", "SpecificCharacterSet": "ISO_IR 192"}, 0xFF00, []),
        ({"KVP": None}, 0xFF01, ["KVP"]),  # no attribute that searches know
        ({"KVP": "120"}, 0xFF01, ["KVP"]),
        ({"Modality": ""}, 0xFF01, []),  # of a level below
        ({"ReferencedStudySequence": []}, 0xFF01, []),
    ],
)
def test_keys_that_are_not_supported_are_told(finding: Served, rows: Rows, keys: dict[str, Any], status: int, unheard: list[str]) -> None:
    rows.found = [row()]
    with Peer(finding.port) as peer:
        [(pending, answer)], final, _ = answers(associated(peer), identifier(**keys))
    assert (pending, final) == (status, 0x0000)
    if status == 0xFF00:
        assert all(keyword in answer for keyword in keys if keyword != "SpecificCharacterSet")
    else:
        assert not any(keyword in answer for keyword in keys)
    assert not any(path[0] == "00180060" for path in rows.asked[0].keys)


@pytest.mark.parametrize(
    ("context_id", "level", "keys"),
    [
        (7, "", {}),
        (7, "PATIENT", {}),
        (9, "SERIES", {}),
        (5, "INSTANCE", {}),
        (5, "STUDY", {}),
        (5, "STUDY", {"PatientID": "P*"}),
        (7, "SERIES", {"StudyInstanceUID": ""}),
        (7, "IMAGE", {"StudyInstanceUID": "1.2"}),
        (7, "IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": ["1.2", "1.3"]}),
    ],
)
def test_identifiers_that_are_none_of_the_model(finding: Served, rows: Rows, context_id: int, level: str, keys: dict[str, Any]) -> None:
    with Peer(finding.port) as peer:
        found, status, comment = answers(associated(peer), identifier(level, **keys), context_id)
        peer.echo()
    assert (found, status, rows.asked) == ([], 0xA900, [])
    assert "QueryRetrieveLevel" in comment or " level wants one " in comment
    assert finding.server.counters.finds_failed == 1


@pytest.mark.parametrize(
    ("context_id", "level", "keys"),
    [
        (5, "PATIENT", {}),
        (5, "STUDY", {"PatientID": "P1"}),
        (9, "STUDY", {"PatientID": "P1"}),
        (7, "STUDY", {}),
        (7, "SERIES", {"StudyInstanceUID": "1.2"}),
        (7, "IMAGE", {"StudyInstanceUID": "1.2", "SeriesInstanceUID": "1.2.3", "SOPInstanceUID": ["1", "2"]}),
    ],
)
def test_levels_of_the_models(finding: Served, rows: Rows, context_id: int, level: str, keys: dict[str, Any]) -> None:
    with Peer(finding.port) as peer:
        found, status, _ = answers(associated(peer), identifier(level, **keys), context_id)
    assert (len(found), status) == (3, 0)
    assert rows.asked[0].level == {"PATIENT": "patient", "STUDY": "study", "SERIES": "series", "IMAGE": "instance"}[level]


def test_what_is_no_identifier_cannot_be_processed(finding: Served, rows: Rows) -> None:
    with Peer(finding.port) as peer:
        associated(peer)
        assert answers(peer, identifier()[:-3])[1:] == (0xC000, "QueryRetrieveLevel: it is cut off")
        peer.send(c_find_rq(has_identifier=False))
        assert peer.status() == 0xC000
        peer.send(c_find_rq(sop_class=PATIENT_ROOT), p_data(pdv(7, 2, identifier())))
        assert peer.status() == 0x0122
        peer.send(c_find_rq(), p_data(*(pdv(7, 0, bytes(100_000)) for _ in range(2))) * 21, p_data(pdv(7, 2, b"")))
        refused = peer.response()
        assert (refused.number(0x0900), refused.text(0x0902)) == (0xC000, "a data set of more than 4194304 bytes")
        peer.echo()
    assert rows.asked == []


@pytest.mark.parametrize(
    ("error", "status", "comment"),
    [
        (BadInput("query key StudyDate: 'x' is no DA value or range"), 0xC000, "query key StudyDate: 'x' is no DA value or range"),
        (Exhausted("too much at once"), 0xA700, "too much at once"),
        (MemoryError(), 0xA700, "internal error"),
        (Damaged("the index is damaged"), 0xC000, "the index is damaged"),
        (RuntimeError("secret"), 0xC000, "internal error"),
    ],
)
def test_a_search_that_fails_in_its_middle(finding: Served, rows: Rows, error: Exception, status: int, comment: str) -> None:
    rows.error = error
    with Peer(finding.port) as peer:
        found, final, said = answers(associated(peer), identifier())
        peer.echo()
    assert (len(found), final, said) == (3, status, comment)


@pytest.mark.parametrize(
    ("asked", "answered", "relational", "combined", "fuzzy"),
    [
        (None, None, False, False, False),
        (b"", b"", False, False, False),
        (b"\1", b"\1", True, False, False),
        (b"\1\1\1", b"\1\1\1", True, True, True),
        (b"\0\1\0", b"\0\1\0", False, True, False),
        (b"\0\0\1\1\1\1\1", b"\0\0\1\0\0\0\0", False, False, True),
        (b"\2\0\0", b"\0\0\0", False, False, False),
    ],
)
def test_extended_negotiation(
    finding: Served, rows: Rows, asked: bytes | None, answered: bytes | None, relational: bool, combined: bool, fuzzy: bool
) -> None:
    with Peer(finding.port) as peer:
        contexts = [(7, STUDY_ROOT, [IMPLICIT])]
        user = peer.associate(contexts=contexts, extended={} if asked is None else {STUDY_ROOT: asked}).user_information
        assert user is not None
        assert [item.service_class_application_information for item in user.ext_neg] == ([] if answered is None else [answered])
        _, status, _ = answers(peer, identifier("IMAGE"))
        assert status == (0x0000 if relational else 0xA900)
        answers(peer, identifier("STUDY"))
    assert (rows.asked[-1].combined, rows.asked[-1].fuzzy) == (combined, fuzzy)


def test_relational_queries_without_negotiation_where_the_node_is_told_to(serve: Callable[..., Served], rows: Rows) -> None:
    served = serve(services=[Find(rows, DimseSection(find_relational=True))])
    with Peer(served.port) as peer:
        assert answers(associated(peer), identifier("IMAGE"))[1] == 0


def test_a_cancel_ends_the_search(finding: Served, rows: Rows) -> None:
    rows.endless = True
    with Peer(finding.port) as peer:
        associated(peer)
        peer.send(c_find_rq(), p_data(pdv(7, 2, identifier())))
        assert [peer.message()[0].number(0x0900) for _ in range(3)] == [0xFF00] * 3  # although the search goes on
        peer.send(p_data(pdv(7, 3, encode_command({0x0100: 0x0FFF, 0x0120: 3, 0x0800: 0x0101}))))
        assert peer.status() == 0xFE00
        rows.endless = False
        assert answers(peer, identifier())[1] == 0
    assert finding.server.counters.finds == 2


def test_the_first_answer_goes_out_before_the_next_is_found(serve: Callable[..., Served]) -> None:
    came = threading.Event()

    class Slow(Rows):
        def rows(self, query: Query, tick: Callable[[], None]) -> Iterator[Row]:
            tick()
            yield row(1)
            assert came.wait(20)
            yield row(2)

    finding = serve(services=[Find(Slow(), DimseSection())])
    with Peer(finding.port) as peer:
        associated(peer)
        peer.send(c_find_rq(), p_data(pdv(7, 2, identifier())))
        assert peer.message()[0].number(0x0900) == 0xFF00
        came.set()
        assert [peer.message()[0].number(0x0900) for _ in range(2)] == [0xFF00, 0]


def test_a_peer_that_leaves_ends_the_search(finding: Served, rows: Rows) -> None:
    rows.endless = True
    with Peer(finding.port) as peer:
        associated(peer)
        peer.send(c_find_rq(), p_data(pdv(7, 2, identifier())))
        peer.message()
    deadline = time.monotonic() + 5
    while finding.server.counters.associations_open:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("there", "status"), [(999, 0x0000), (1000, 0x0000), (1001, 0xB000)])
def test_results_beyond_the_limit_are_left_out_with_a_warning(finding: Served, rows: Rows, there: int, status: int) -> None:
    rows.found = [row(n) for n in range(there)]
    with Peer(finding.port) as peer:
        found, final, comment = answers(associated(peer), identifier())
    assert (len(found), final) == (min(there, 1000), status)
    assert comment == ("more than 1000 matches, the rest is left out" if status else "")


@pytest.mark.parametrize(
    ("character_set", "name", "answered_in"),
    [
        (None, {"Alphabetic": "Doe"}, None),
        (None, {"Alphabetic": "Müller"}, "ISO_IR 100"),
        ("ISO_IR 192", {"Alphabetic": "Müller"}, "ISO_IR 192"),
        (["", "ISO 2022 IR 87"], {"Alphabetic": "Yamada", "Ideographic": "山田"}, ["", "ISO 2022 IR 87"]),
        ("ISO_IR 100", {"Alphabetic": "Yamada", "Ideographic": "山田"}, "ISO_IR 192"),
    ],
)
def test_character_sets_in_and_out(finding: Served, rows: Rows, character_set: Any, name: dict[str, str], answered_in: Any) -> None:
    rows.found = [row(further={"00100010": ("PN", [name])})]
    whole = "=".join(name.values())
    key = whole if character_set and character_set != "ISO_IR 100" else ""
    asked = identifier(SpecificCharacterSet=character_set, PatientName=key)
    with Peer(finding.port) as peer:
        [(_, answer)], _, _ = answers(associated(peer), asked)
    assert answer.get("SpecificCharacterSet") == answered_in
    assert str(answer.PatientName) == whole
    assert rows.asked[0].keys[("00100010",)] == key


def test_a_query_is_logged(finding: Served, caplog: pytest.LogCaptureFixture) -> None:
    with Peer(finding.port) as peer, caplog.at_level(logging.INFO):
        answers(associated(peer, calling="WORKSTATION"), identifier())
    [line] = [record.message for record in caplog.records if "query answered" in record.message]
    assert "status=0x0000" in line and "calling='WORKSTATION' level=STUDY results=3" in line
