"""Reading segments: damage costs the record that it hits, a torn end nothing before it, an earlier life never comes back."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from archive.errors import Damaged, NotFound, UnknownFormat
from archive.pack.checksum import BLOCK_BYTES, crc32
from archive.pack.frame import HEADER_BYTES, SEGMENT_HEADER_BYTES, Kind
from archive.pack.journal import Journal, Location
from archive.pack.journal_reader import Found, Gap, open_record, scan_segment
from archive.pack.segment import Segment
from tests.pack.build import NODE, RecordingDisk, append_instance, flipped, make_instance, whole_sequences

CAPACITY = 32 * 1024
PAYLOADS = {1: b"a" * 100, 2: b"b" * 230, 3: b"c" * 60}


@dataclass(frozen=True)
class Life:
    """A segment and where its records lie: offset and bytes that mean something, by sequence."""

    path: Path
    places: dict[int, tuple[int, int]]

    @property
    def end(self) -> int:
        offset, length = self.places[max(self.places)]
        return offset + length


def write_life(path: Path, payloads: dict[int, bytes], fd: int | None = None) -> Life:
    """A segment that holds these, closed; over the file's last life where its descriptor is given."""
    disk = RecordingDisk()
    raw = path if fd is not None else path.with_suffix(".part")
    segment = Segment.start(disk, raw, path, 1, NODE, CAPACITY, fd)
    places = {}
    for sequence, payload in payloads.items():
        descriptor = b'{"number": %d}' % sequence
        offset = segment.append(Kind.INSTANCE, 0, sequence, [payload], crc32(payload), descriptor)
        assert offset is not None
        places[sequence] = offset, HEADER_BYTES + len(payload) + len(descriptor)
    disk.close(segment.fd)
    return Life(path, places)


@pytest.fixture
def life(tmp_path: Path) -> Life:
    return write_life(tmp_path / "1.seg", PAYLOADS)


def poke(path: Path, data: bytes, at: int) -> None:
    """Write over some bytes of a file."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)


def scan(path: Path) -> list[Found | Gap]:
    return list(scan_segment(1, path, lambda _: True))


def test_all_records_in_order(life: Life) -> None:
    found = [item for item in scan(life.path) if isinstance(item, Found)]
    assert [(f.header.sequence, f.payload, f.damage) for f in found] == [(s, p, "") for s, p in PAYLOADS.items()]


def test_payloads_are_given_only_where_they_are_wanted(life: Life) -> None:
    items = list(scan_segment(1, life.path, lambda kind: kind != Kind.INSTANCE))
    assert [item.payload for item in items if isinstance(item, Found)] == [b"", b"", b""]


# --- damage


@pytest.mark.parametrize("sequence", PAYLOADS)
def test_a_flipped_byte_anywhere_in_a_record_costs_that_record_alone_and_is_said(life: Life, sequence: int) -> None:
    data = life.path.read_bytes()
    offset, length = life.places[sequence]
    others = [s for s in PAYLOADS if s != sequence]
    for at in range(offset, offset + length):
        poke(life.path, flipped(data[at : at + 1], 0, at % 8), at)
        items = scan(life.path)
        poke(life.path, data[at : at + 1], at)
        whole = [i.header.sequence for i in items if isinstance(i, Found) and not i.damage]
        assert whole == others, at
        said = [i.location.offset for i in items if isinstance(i, Gap) or i.damage]
        assert said == [offset], at


def test_the_bytes_of_a_lost_record_are_said_to_the_next_one(life: Life) -> None:
    offset, _ = life.places[2]
    life.path.write_bytes(flipped(life.path.read_bytes(), offset))
    (gap,) = [item for item in scan(life.path) if isinstance(item, Gap)]
    assert gap == Gap(Location(1, offset), life.places[3][0] - offset)


def test_what_is_damaged_is_named(life: Life) -> None:
    offset, length = life.places[2]
    data = life.path.read_bytes()
    for at, said in ((offset + HEADER_BYTES, "payload does not match its CRC"), (offset + length - 1, "descriptor does not match its CRC")):
        life.path.write_bytes(flipped(data, at))
        assert [i.damage for i in scan(life.path) if isinstance(i, Found)] == ["", said, ""]


def test_a_page_of_zeros_in_the_middle_costs_what_lay_there(tmp_path: Path) -> None:
    life = write_life(tmp_path / "1.seg", {n: bytes([n]) * 3000 for n in range(1, 7)})
    data = bytearray(life.path.read_bytes())
    data[8192:12288] = bytes(4096)
    life.path.write_bytes(data)
    lost = {s for s, (offset, length) in life.places.items() if offset < 12288 and offset + length > 8192}
    assert lost == {2, 3}
    assert set(whole_sequences(life.path)) == set(life.places) - lost


def test_a_length_that_its_crc_does_not_cover_is_not_trusted(life: Life) -> None:
    """One that would lead past the end, and one that would lead into the middle of the next record."""
    offset, _ = life.places[1]
    data = life.path.read_bytes()
    for length in (2**60, 200):
        life.path.write_bytes(data[: offset + 32] + length.to_bytes(8, "little") + data[offset + 40 :])
        assert whole_sequences(life.path) == [2, 3]


# --- ends


def test_a_segment_cut_off_anywhere_gives_whole_records_only(life: Life) -> None:
    for length in range(life.end, SEGMENT_HEADER_BYTES - 1, -1):
        os.truncate(life.path, length)
        items = scan(life.path)
        whole = [i for i in items if isinstance(i, Found) and not i.damage]
        assert [i.header.sequence for i in whole] == [s for s, (at, size) in life.places.items() if at + size <= length], length
        assert [i.payload for i in whole] == [PAYLOADS[i.header.sequence] for i in whole]
        cut = next((at for at, size in life.places.values() if at + HEADER_BYTES <= length < at + size), None)
        assert [i for i in items if i not in whole] == ([] if cut is None else [Gap(Location(1, cut), length - cut)]), length


def test_a_segment_whose_end_was_never_written_gives_whole_records_only(life: Life) -> None:
    """As it lies in a file of full length: zeros behind, or another life's bytes."""
    data = life.path.read_bytes()
    for rest in (b"\0", b"\xaa"):
        life.path.write_bytes(data)
        for length in range(life.end - 1, SEGMENT_HEADER_BYTES, -7):
            poke(life.path, rest * (life.end - length), length)
            whole = [s for s, (at, size) in life.places.items() if at + size <= length]
            assert whole_sequences(life.path) == whole, length


def test_a_segment_without_its_header_is_damaged(life: Life) -> None:
    data = life.path.read_bytes()
    for wrong in (b"", data[:100], data[: SEGMENT_HEADER_BYTES - 1], flipped(data, 20), bytes(len(data))):
        life.path.write_bytes(wrong)
        with pytest.raises(Damaged, match="segment 1: its header is damaged"):
            scan(life.path)


def test_a_segment_of_a_newer_version_is_refused(life: Life) -> None:
    header = bytearray(life.path.read_bytes())
    header[8] = 2
    header[124:128] = crc32(header[:124]).to_bytes(4, "little")
    life.path.write_bytes(header)
    with pytest.raises(UnknownFormat, match="version 2"):
        scan(life.path)


def test_a_walk_that_is_given_up_gives_the_file_back(life: Life) -> None:
    walk = scan_segment(1, life.path, lambda _: True)
    next(walk)
    del walk
    with life.path.open("rb") as file:
        assert RecordingDisk().lock(file.fileno(), shared=False, wait=False)


# --- lives


@pytest.mark.parametrize("records", range(4))
def test_nothing_of_an_earlier_life_comes_back(tmp_path: Path, records: int) -> None:
    """Whatever the new life has written, and wherever it was cut off while it wrote."""
    path = tmp_path / "1.seg"
    old = write_life(path, {n: bytes([n]) * 500 for n in range(10, 40)})
    assert whole_sequences(path) == list(range(10, 40))
    before = path.read_bytes()
    new = write_life(path, {n: bytes([n]) * 700 for n in range(1, records + 1)}, RecordingDisk().open_write(path))
    assert whole_sequences(path) == list(new.places)
    after = path.read_bytes()
    for cut in range(SEGMENT_HEADER_BYTES, new.end if new.places else SEGMENT_HEADER_BYTES + 1, 61):
        path.write_bytes(after[:cut] + before[cut:])
        assert set(whole_sequences(path)) <= set(new.places)
    assert old.path == new.path


def test_the_records_of_an_earlier_life_are_no_damage_of_this_one(tmp_path: Path) -> None:
    path = tmp_path / "1.seg"
    write_life(path, {n: bytes([n]) * 500 for n in range(10, 40)})
    write_life(path, {1: b"x" * 700}, RecordingDisk().open_write(path))
    assert [type(item) for item in scan(path)] == [Found]


def test_a_payload_that_looks_like_records_is_a_payload(tmp_path: Path) -> None:
    inner = write_life(tmp_path / "inner.seg", PAYLOADS).path.read_bytes()[:8192]
    life = write_life(tmp_path / "1.seg", {7: b"x" * 100, 8: inner, 9: b"y" * 100})
    assert whole_sequences(life.path) == [7, 8, 9]
    life.path.write_bytes(flipped(life.path.read_bytes(), life.places[8][0]))
    assert whole_sequences(life.path) == [7, 9]


# --- one record by its place


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal(tmp_path / "journal", NODE, "a", 64 * 1024)
    yield opened
    opened.close()


def test_a_record_by_its_place(journal: Journal) -> None:
    made = make_instance(1, bytes(range(256)) * 4)
    with open_record(journal, append_instance(journal, made), 1) as opened:
        assert bytes(opened.view(0, len(made.data))) == made.data
        assert bytes(opened.view(501, 17)) == made.data[501:518]
        assert bytes(opened.view(len(made.data), 0)) == b""
        assert bytes(opened.whole()) == bytes(opened.mapped()) == made.data
        for offset, length in ((0, len(made.data) + 1), (-1, 5), (5, -1)):
            with pytest.raises(Damaged, match="outside of a payload"):
                opened.view(offset, length)


def test_the_wrong_record_is_refused(journal: Journal) -> None:
    place = append_instance(journal, make_instance(1))
    for location, sequence in ((place, 2), (place._replace(offset=place.offset + 64), 1)):
        with pytest.raises(Damaged, match=f"no record {sequence} at {location.offset}"), open_record(journal, location, sequence):
            pass


def test_a_record_with_a_bit_turned_over_is_refused(journal: Journal) -> None:
    made = make_instance(1)
    place = append_instance(journal, made)
    path = journal.path_of(place.segment)
    path.write_bytes(flipped(path.read_bytes(), place.offset + HEADER_BYTES + len(made.data) - 1))
    with open_record(journal, place, 1) as opened:
        reads: list[Callable[[], object]] = [lambda: opened.view(0, 1), opened.whole, opened.mapped]
        for read in reads:
            with pytest.raises(Damaged, match="record 1: payload does not match its CRC"):
                read()


def test_a_released_record_is_to_be_looked_up_again(journal: Journal) -> None:
    place = append_instance(journal, make_instance(1))
    with pytest.raises(NotFound, match="segment 77 is released"), open_record(journal, Location(77, 4096), 1):
        pass
    journal.close()
    path = journal.path_of(place.segment)
    path.rename(path.with_name("000000000005.seg"))
    with pytest.raises(NotFound, match="segment 5 is released"), open_record(journal, Location(5, place.offset), 1):
        pass  # it lives another life under this name


@pytest.mark.parametrize("length", [3 * BLOCK_BYTES, 3 * BLOCK_BYTES - 100])
def test_a_large_record_is_checked_block_by_block(journal: Journal, length: int) -> None:
    payload = bytes(range(256)) * (length // 256) + bytes(length % 256)
    record = journal.stream()
    record.write(payload)
    crc, blocks = record.finish()
    place = Location(record.number, record.commit(Kind.INSTANCE, 1, crc, b"{}"))
    record.seal()
    record.close()
    with open_record(journal, place, 1, blocks) as opened:
        assert bytes(opened.whole()) == payload
        for start, size in ((0, 1), (BLOCK_BYTES - 1, 2), (BLOCK_BYTES, BLOCK_BYTES), (0, length), (length - 1, 1), (length, 0)):
            assert bytes(opened.view(start, size)) == payload[start : start + size]
    path = journal.path_of(place.segment)
    path.write_bytes(flipped(path.read_bytes(), place.offset + HEADER_BYTES + BLOCK_BYTES + 5))
    with open_record(journal, place, 1, blocks) as opened:
        assert bytes(opened.view(0, BLOCK_BYTES)) == payload[:BLOCK_BYTES]
        assert bytes(opened.view(2 * BLOCK_BYTES, 10)) == payload[2 * BLOCK_BYTES : 2 * BLOCK_BYTES + 10]
        assert len(opened.mapped()) == length  # for parsers, not checked
        for start, size in ((BLOCK_BYTES, 1), (0, BLOCK_BYTES + 1), (2 * BLOCK_BYTES - 1, 2)):
            with pytest.raises(Damaged, match="block 1 does not match its CRC"):
                opened.view(start, size)
        with pytest.raises(Damaged, match="block 1"):
            opened.whole()


def test_a_large_record_that_was_cut_off_is_refused(journal: Journal) -> None:
    record = journal.stream()
    record.write(bytes(2 * BLOCK_BYTES))
    crc, blocks = record.finish()
    place = Location(record.number, record.commit(Kind.INSTANCE, 1, crc, b"{}"))
    record.seal()
    record.close()
    path = journal.path_of(place.segment)
    path.write_bytes(path.read_bytes()[: SEGMENT_HEADER_BYTES + HEADER_BYTES + BLOCK_BYTES + 5])
    with open_record(journal, place, 1, blocks) as opened, pytest.raises(Damaged, match="file ends"):
        opened.view(BLOCK_BYTES, 100)
