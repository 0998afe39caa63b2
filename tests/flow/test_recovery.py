"""A rebuilt index says what the first one said; what an unclean stop left is settled once."""

from pathlib import Path
from typing import Any

import pytest

from archive.config import Settings
from archive.dicom.json import dumps
from archive.errors import Locked, UnknownFormat
from archive.flow.check import verify
from archive.flow.home import Home
from archive.flow.recovery import describe_report, rebuild_index, recover
from archive.index.environment import Environment
from archive.index.packed import TABLES as PACKED
from archive.index.pending import TABLES as PENDING
from archive.pack.checksum import crc32
from archive.pack.descriptor import Deletion, Revision
from archive.pack.frame import FLAG_MUST_UNDERSTAND, Kind
from archive.pack.segment import now_us
from tests.flow.objects import Life, files_below, living, make_object, pack_files, settings_of

FIRST = [make_object(study, series, number) for study in (1, 2) for series in (1, 2) for number in (2, 1)]
LATE = [make_object(1, 1, 3), make_object(1, 1, 1, pixels=b"revision"), make_object(3, 1, 1, pixel_bytes=150_000, StudyDate="")]
WAITING = [make_object(2, 1, 5), make_object(4, 1, 1, pixel_bytes=100_000), make_object(2, 1, 1, pixels=b"revision")]


def content(settings: Settings) -> dict[str, list[tuple[Any, Any]]]:
    """Every table of the index, key and value."""
    with Home(settings) as home:
        return {**tables(home.index.packed.environment, PACKED), **tables(home.index.pending.environment, PENDING)}


def tables(environment: Environment, names: dict[str, bool]) -> dict[str, list[tuple[Any, Any]]]:
    with environment.reading() as t:
        return {f"{environment.folder.name}/{name}": list(t.scan(name)) for name in names}


def fill(life: Life) -> None:
    life.send(*FIRST)
    life.packer.pack_now()
    life.send(*LATE)
    life.packer.pack_now()


def test_a_rebuilt_index_has_the_same_content(data: Path) -> None:
    settings = settings_of(data, packer={"pack_bytes_target": 1 << 20})
    with living(settings) as life:
        fill(life)
        life.send(*WAITING)
    recover(settings)
    before = content(settings)
    assert len([name for name, rows in before.items() if rows]) > 15
    report = rebuild_index(settings)
    assert (report.packs_adopted, report.instances_pending, report.damaged) == (2, 3, [])
    after = content(settings)
    for name in before:
        assert after[name] == before[name], name
    assert verify(settings) == []
    with living(settings) as life:
        life.assert_served([*FIRST, LATE[0], LATE[2], *WAITING[:2]])


def test_the_index_is_the_same_whether_packs_were_written_or_adopted_late(data: Path) -> None:
    """Attributes that the first object left out, revisions across packs, terms: all in the order of the packs."""
    with living(settings_of(data)) as life:
        life.send(make_object(1, 1, 2, PatientID="", StudyDate=""))
        life.packer.pack_now()
        life.send(make_object(1, 1, 1, PatientName="Other^Name", AccessionNumber="A7"), make_object(1, 2, 1, Modality="SR"))
        life.packer.pack_now()
    recover(settings_of(data))
    before = content(settings_of(data))
    rebuild_index(settings_of(data))
    assert content(settings_of(data)) == before


def test_no_payload_is_read_to_rebuild(data: Path) -> None:
    """With every pixel of the packs zeroed, the index comes out the same."""
    with living(settings_of(data)) as life:
        fill(life)
    recover(settings_of(data))
    before = content(settings_of(data))
    for pack in pack_files(data):
        whole = bytearray(pack.read_bytes())
        at = whole.find(b"\xe0\x7f\x10\x00OB")
        while at >= 0:
            whole[at + 12 : at + 24] = bytes(12)
            at = whole.find(b"\xe0\x7f\x10\x00OB", at + 1)
        pack.chmod(0o640)
        pack.write_bytes(whole)
    rebuild_index(settings_of(data))
    assert content(settings_of(data)) == before
    assert verify(settings_of(data)) != []


@pytest.mark.parametrize("packed", [False, True])
def test_deletions_outlive_the_index(data: Path, packed: bool) -> None:
    """A deletion rests in the journal, then in a pack of its own."""
    settings = settings_of(data)
    with living(settings) as life:
        fill(life)
        gone = life.home.index.revisions(FIRST[0].sop_instance_uid)[0]
        sequence = life.home.journal.next_sequence()
        deletion = Deletion(Revision(life.home.identity.node, sequence), now_us(), "test", [(gone.revision, gone.sop_instance_uid)])
        appended = life.home.journal.append_small(Kind.DELETION, sequence, dumps(deletion.to_json()))
        life.home.journal.sync(appended)
        with life.home.index.pending.environment.writing() as t:
            life.home.index.pending.add_deletion(t, appended.location, deletion)
        life.home.journal.done(appended)
        if packed:
            life.packer.pack_now()
    for _ in range(2):
        rebuild_index(settings)
        with living(settings) as life:
            assert not packed or life.home.index.revisions(FIRST[0].sop_instance_uid) == []
            life.packer.pack_now()
            assert life.home.index.revisions(FIRST[0].sop_instance_uid) == []
            life.assert_served(FIRST[1:5])
        recover(settings)
        assert [name for name in files_below(data / "journal") if name.startswith("sealed")] == []
    assert len(pack_files(data)) == 3


def test_recovery_twice_finds_nothing_the_second_time(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        fill(life)
        life.send(*WAITING)
    first, second = recover(settings), recover(settings)
    assert (first.instances_pending, second.instances_pending) == (3, 3)
    assert (second.packs_adopted, second.segments_released, second.left_over, second.torn, second.damaged) == (0, 0, [], [], [])
    assert "3 instances wait" in describe_report(second)[0]


def test_recovery_and_rebuild_want_the_node_stopped(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        life.send(*FIRST)
        for verb in (recover, rebuild_index):
            with pytest.raises(Locked, match="still write"):
                verb(settings)
        life.assert_served(FIRST)


def test_a_record_of_a_newer_kind_is_kept_or_refused(data: Path) -> None:
    settings = settings_of(data)
    with living(settings) as life:
        life.send(FIRST[0])
        append_of_tomorrow(life, 0)
    recover(settings)
    with living(settings) as life:
        life.packer.pack_now()
    recover(settings)
    assert len(files_below(data / "journal/sealed")) == 1
    with living(settings) as life:
        append_of_tomorrow(life, FLAG_MUST_UNDERSTAND)
    with pytest.raises(UnknownFormat, match="kind 77"):
        recover(settings)


def append_of_tomorrow(life: Life, flags: int) -> None:
    journal, payload = life.home.journal, b"of tomorrow"
    appended = journal.append(77, journal.next_sequence(), [payload], crc32(payload), b"", flags)
    journal.sync(appended)
    journal.done(appended)
