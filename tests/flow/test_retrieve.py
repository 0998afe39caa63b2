"""The way out: from the journal and from packs, also while an instance moves; metadata at three levels."""

import gzip
import json
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from archive.dicom.metadata import MetadataWriter
from archive.errors import Damaged, NotFound
from archive.flow import series_metadata
from archive.flow.recovery import rebuild_index
from tests.dicom.build import element
from tests.flow.objects import CT, Life, Object, files_below, living, make_object, pack_files, settings_of

JPEG = "1.2.840.10008.1.2.4.50"


def documents(gzipped: bytes) -> Any:
    """Of one gzip member; one document a line."""
    text = gzip.decompress(gzipped)
    lines = text.decode().splitlines()
    found = json.loads(text)
    assert (lines[0], lines[-1], len(lines)) == ("[", "]", len(found) + 2)
    return found


def assert_one_gzip_member(data: bytes) -> None:
    """Browsers ignore what follows the first."""
    assert data.count(b"\x1f\x8b\x08\x00") == 1


@pytest.mark.parametrize("packed", [False, True])
def test_instances_come_in_order_of_series_and_instance_number(life: Life, packed: bool) -> None:
    sent = [make_object(1, 1, 2, SeriesNumber="9"), make_object(1, 1, 1, SeriesNumber="9"), make_object(1, 2, 5, SeriesNumber="3")]
    life.send(*sent)
    if packed:
        life.packer.pack_now()
    assert [s.sop_instance_uid for s in life.retrieval.instances("1.2.1")] == ["1.2.1.2.5", "1.2.1.1.1", "1.2.1.1.2"]
    assert [s.sop_instance_uid for s in life.retrieval.instances("1.2.1", "1.2.1.1")] == ["1.2.1.1.1", "1.2.1.1.2"]
    (one,) = life.retrieval.instances("1.2.1", None, "1.2.1.1.2")
    assert (one.series_instance_uid, one.sop_class_uid, one.transfer_syntax_uid) == ("1.2.1.1", CT, sent[0].transfer_syntax_uid)
    assert one.length - one.data_set_offset == len(sent[0].data_set)


@pytest.mark.parametrize("packed", [False, True])
def test_what_is_not_here_is_not_found(life: Life, packed: bool) -> None:
    life.send(make_object(1, 1, 1), make_object(2, 1, 1))
    if packed:
        life.packer.pack_now()
    for names in (
        ("1.2.9",),
        ("1.2.1", "1.2.1.9"),
        ("1.2.1", "1.2.2.1"),
        ("1.2.1", "1.2.1.1", "1.2.1.1.9"),
        ("1.2.1", "1.2.1.1", "1.2.2.1.1"),
    ):
        with pytest.raises(NotFound):
            life.retrieval.instances(*names)
    with pytest.raises(NotFound):
        life.retrieval.study_metadata("1.2.9")
    with pytest.raises(NotFound):
        life.retrieval.series_metadata("1.2.1", "1.2.9")
    with pytest.raises(NotFound):
        life.retrieval.instance_metadata("1.2.1", "1.2.1.1", "1.2.9")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("pixel_bytes", [500, 700_000])
def test_any_range_of_an_object(life: Life, packed: bool, pixel_bytes: int) -> None:
    sent = make_object(1, 1, 1, pixel_bytes=pixel_bytes)
    life.send(sent)
    if packed:
        life.packer.pack_now()
    (stored,) = life.retrieval.instances("1.2.1")
    with life.retrieval.open(stored) as opened:
        whole = b"".join(opened.chunks(0, stored.length))
        assert whole[128:132] == b"DICM" and whole[stored.data_set_offset :] == sent.data_set
        for offset in (0, 1, stored.data_set_offset, 262_143, 262_144, stored.length - 1, stored.length):
            for length in (0, 1, 65_536, 262_145):
                if offset + length <= stored.length:
                    assert bytes(opened.view(offset, length)) == whole[offset : offset + length]
        assert bytes(opened.data_set()) == bytes(opened.stored_data_set()) == sent.data_set
        for outside in ((0, stored.length + 1), (stored.length, 1), (-1, 1), (1, -1)):
            with pytest.raises(Damaged):
                opened.view(*outside)


@pytest.mark.parametrize("packed", [False, True])
def test_frames_native_and_encapsulated(life: Life, packed: bool) -> None:
    pixels = bytes(range(128)) * 3
    native = make_object(1, 1, 1, pixels=pixels, NumberOfFrames="3", Columns=16, SamplesPerPixel=1, BitsStored=8, PixelRepresentation=0)
    frames = [b"\xff\xd8one\xff\xd9", b"\xff\xd8four\xff\xd9"]
    items = [element(0xFFFEE000, "", part, explicit=False) for part in (b"", *frames)]
    header = make_object(1, 1, 2, NumberOfFrames="2").data_set
    header = header[: header.index(b"\xe0\x7f\x10\x00OB")]
    data_set = header + element(0x7FE00010, "OB", b"".join(items), length=0xFFFFFFFF) + element(0xFFFEE0DD, "", b"", explicit=False)
    encapsulated = Object("1.2.1", "1.2.1.1", "1.2.1.1.2", data_set, CT, JPEG)
    life.send(native, encapsulated)
    if packed:
        life.packer.pack_now()
    one, two = life.retrieval.instances("1.2.1", "1.2.1.1")
    with life.retrieval.open(one) as opened:
        assert [b"".join(opened.frame(n)) for n in (1, 2, 3)] == [pixels[:128], pixels[128:256], pixels[256:]]
        with pytest.raises(NotFound):
            opened.frame(4)
    with life.retrieval.open(two) as opened:
        assert [b"".join(opened.frame(n)) for n in (1, 2)] == frames


def test_a_moving_instance_is_followed(life: Life) -> None:
    """Looked up while it lies in the journal, opened when it lies in a pack and its segment lives another life."""
    sent = [make_object(1, 1, number, pixel_bytes=60_000) for number in range(20)]
    life.send(*sent)
    before = life.retrieval.instances("1.2.1")
    life.packer.pack_now()
    life.send(*(make_object(2, 1, number, pixel_bytes=60_000) for number in range(20)))
    for stored, one in zip(before, sent, strict=True):
        with life.retrieval.open(stored) as opened:
            assert bytes(opened.stored_data_set()) == one.data_set


def test_a_reader_keeps_what_it_has_open(life: Life, data: Path) -> None:
    sent = make_object(1, 1, 1, pixel_bytes=400_000)
    life.send(sent)
    (stored,) = life.retrieval.instances("1.2.1")
    with life.retrieval.open(stored) as opened:
        chunks = opened.chunks(stored.data_set_offset, len(sent.data_set))
        life.packer.pack_now()
        assert files_below(data / "journal/sealed") == []
        life.send(make_object(2, 1, 1, pixel_bytes=400_000))
        assert b"".join(chunks) == sent.data_set


def test_reading_and_searching_while_packing_runs(data: Path) -> None:
    """Every instance is there at every moment, whole, at every level."""
    sent = [make_object(1, 1 + number % 2, number, pixel_bytes=70_000 if number % 5 == 0 else 2000) for number in range(30)]
    numbers = [
        one.sop_instance_uid for one in sorted(sent, key=lambda one: (one.series_instance_uid, int(one.sop_instance_uid.split(".")[-1])))
    ]
    with living(settings_of(data, packer={"pack_bytes_target": 1 << 20})) as life:
        life.send(*sent)
        stop, errors = threading.Event(), list[BaseException]()

        def read() -> None:
            try:
                while not stop.is_set():
                    assert [s.sop_instance_uid for s in life.retrieval.instances("1.2.1")] == numbers
                    for one in sent[::3]:
                        assert life.received(one) == one.data_set
                    found = documents(life.retrieval.study_metadata("1.2.1"))
                    assert [document["00080018"]["Value"][0] for document in found] == numbers
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=read) for _ in range(2)]
        for thread in threads:
            thread.start()
        late = []
        for number in range(5):
            life.packer.pack_now()
            late.append(make_object(9, 1, number))
            life.send(late[-1])
        stop.set()
        for thread in threads:
            thread.join(20)
        if errors:
            raise errors[0]
        life.assert_served([*sent, *late])


def test_a_segment_that_is_sealed_while_it_is_opened_is_followed(life: Life, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = make_object(1, 1, 1)
    life.send(sent)
    path_of = life.home.journal.path_of

    def seal_after_a_look(number: int) -> Path:
        path = path_of(number)
        life.home.journal._seal()
        return path

    monkeypatch.setattr(life.home.journal, "path_of", seal_after_a_look)
    assert life.packer.pack_now().set_aside == {}
    assert life.received(sent) == sent.data_set


def test_a_pack_that_is_gone_is_damage_and_not_absence(life: Life, data: Path) -> None:
    sent = make_object(1, 1, 1)
    life.send(sent)
    life.packer.pack_now()
    pack_files(data)[0].unlink()
    with pytest.raises(Damaged):
        life.received(sent)
    with pytest.raises(Damaged):
        life.retrieval.series_metadata("1.2.1", "1.2.1.1")


# --- metadata


MANY = [make_object(1, series, number, PatientName="Müller^Jürgen") for series in (2, 1) for number in (3, 1, 2)]
ODD = Object("1.2.1", "1.2.1.2", "1.2.1.2.9", make_object(1, 2, 9, pixel_bytes=90_000).data_set)


def all_levels(life: Life) -> tuple[Any, Any, list[Any]]:
    study = life.retrieval.study_metadata("1.2.1")
    series = [life.retrieval.series_metadata("1.2.1", f"1.2.1.{number}") for number in (1, 2)]
    for data in (study, *series):
        assert_one_gzip_member(data)
    instances = [
        json.loads(life.retrieval.instance_metadata("1.2.1", stored.series_instance_uid, stored.sop_instance_uid))
        for stored in life.retrieval.instances("1.2.1")
    ]
    return documents(study), [documents(one) for one in series], instances


def test_metadata_is_the_same_at_all_levels_before_and_after_packing(life: Life) -> None:
    life.send(*MANY[:4])
    life.send(ODD)
    seen = []
    for late in (None, MANY[4], MANY[5]):
        if late is not None:
            life.packer.pack_now()
            life.send(late)
        seen.append(all_levels(life))
    life.packer.pack_now()
    seen.append(all_levels(life))
    for study, series, instances in seen:
        assert study == series[0] + series[1] == [one for (one,) in instances]
    assert seen[-1] == seen[-2]
    by_uid = {one["00080018"]["Value"][0]: one for one in seen[-1][0]}
    for study, _, _ in seen:
        assert [by_uid[one["00080018"]["Value"][0]] for one in study] == study
    assert [one["00080018"]["Value"][0] for one in seen[-1][0]] == [
        *(f"1.2.1.1.{n}" for n in (1, 2, 3)),
        *(f"1.2.1.2.{n}" for n in (1, 2, 3, 9)),
    ]
    assert by_uid["1.2.1.2.9"]["7FE00010"] == {"vr": "OB", "BulkDataURI": "instances/1.2.1.2.9/bulkdata/7FE00010"}


def test_metadata_of_a_series_in_one_pack_goes_out_as_it_lies(life: Life, data: Path) -> None:
    life.send(*MANY)
    life.packer.pack_now()
    packed = pack_files(data)[0].read_bytes()
    assert life.retrieval.series_metadata("1.2.1", "1.2.1.1") in packed
    assert files_below(data / "derived") == []


def test_joined_metadata_is_kept_and_made_again_when_it_is_deleted_or_damaged(
    life: Life, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    life.send(*MANY[:4])
    life.packer.pack_now()
    life.send(*MANY[4:])
    life.packer.pack_now()
    joined = life.retrieval.series_metadata("1.2.1", "1.2.1.1")
    (kept,) = (data / "derived/metadata").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(series_metadata, "compress", None)
        assert life.retrieval.series_metadata("1.2.1", "1.2.1.1") == joined  # Nothing was made.
    content = kept.read_bytes()
    for damaged in (content[:-1] + bytes([content[-1] ^ 1]), content[: len(content) // 2], bytes(4), b""):
        kept.write_bytes(damaged)
        assert life.retrieval.series_metadata("1.2.1", "1.2.1.1") == joined
    shutil.rmtree(data / "derived")
    assert life.retrieval.series_metadata("1.2.1", "1.2.1.1") == joined


@pytest.mark.parametrize("packs", [1, 2])
def test_metadata_of_a_superseded_generator_is_made_anew(data: Path, monkeypatch: pytest.MonkeyPatch, packs: int) -> None:
    write = MetadataWriter.write

    def wrong(self: MetadataWriter, *arguments: Any) -> bytes:
        document = json.loads(write(self, *arguments))
        document["00100020"] = {"vr": "LO", "Value": ["WRONG"]}
        return json.dumps(document).encode()

    settings = settings_of(data)
    with living(settings) as life:
        with monkeypatch.context() as patch:
            patch.setattr(MetadataWriter, "write", wrong)
            for objects in (MANY, []) if packs == 1 else (MANY[:4], MANY[4:]):
                life.send(*objects)
                life.packer.pack_now()
        assert len(pack_files(data)) == packs
        assert_patient_ids(life, {"WRONG"})  # Joined metadata of that generator is in derived/ now.
        monkeypatch.setattr(series_metadata, "METADATA_VERSION_LEAST", 2)
        assert_patient_ids(life, {"P1"})
        kept = files_below(data / "derived")
        assert kept
        assert_patient_ids(life, {"P1"})
        assert files_below(data / "derived") == kept


def assert_patient_ids(life: Life, wanted: set[str]) -> None:
    study, series, instances = all_levels(life)
    for found in (study, *series, [one for (one,) in instances]):
        assert {one["00100020"]["Value"][0] for one in found} == wanted


def test_metadata_made_anew_is_not_taken_for_another_packs_after_a_rebuild(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rebuilt index gives packs other numbers; `derived/` outlives it."""
    monkeypatch.setattr(series_metadata, "METADATA_VERSION_LEAST", 2)
    tier = f"file://{tmp_path}/tier"
    names = ("a-node", "b-node")
    settings = [settings_of(tmp_path / name, node={"data": tmp_path / name, "name": name, "tier": tier}) for name in names]
    for number, one in enumerate(settings, 1):
        with living(one) as life:
            life.send(make_object(number, 1, 1))
            life.packer.pack_now()
            before = life.retrieval.series_metadata(f"1.2.{number}", f"1.2.{number}.1")
    rebuild_index(settings[1])  # It knew its own pack alone; now it knows both.
    with living(settings[1]) as life:
        assert life.retrieval.series_metadata("1.2.2", "1.2.2.1") == before
        first = documents(life.retrieval.series_metadata("1.2.1", "1.2.1.1"))
        assert [one["0020000D"]["Value"] for one in first] == [["1.2.1"]]
