"""A pack's tail: whole or refused. Every cut and every flipped byte of a small pack."""

import gzip
from typing import Any

import pytest

from archive.dicom.json import dumps, loads
from archive.errors import Damaged, UnknownFormat
from archive.pack import pack_writer
from archive.pack.descriptor import Deletion, Revision
from archive.pack.locator import LOCATOR_BYTES, Locator
from archive.pack.pack_reader import PackTail, read_tail
from tests.pack.build import NODE_HEX, MadePack, flipped, make_instance, make_pack, read_from

DELETION = Deletion(Revision(NODE_HEX, 90), 1_700_000_000_000_000, "cli", [(Revision(NODE_HEX, 1), "1.2.3.4.1")])
INSTANCES = [make_instance(1), make_instance(2), make_instance(3, study="1.5", series="1.5.1")]


@pytest.fixture(scope="module")
def pack() -> MadePack:
    return make_pack(INSTANCES, [DELETION], sequence=12)


def tail_of(data: bytes) -> PackTail:
    return read_tail(len(data), read_from(data))


def test_the_tail_says_all(pack: MadePack) -> None:
    tail = tail_of(pack.data)
    assert (tail.length, tail.header["pack_sequence"], tail.header["node"]) == (len(pack.data), 12, NODE_HEX)
    assert [(s.study_instance_uid, s.series_instance_uid, s.first, len(s.instances)) for s in tail.series] == [
        ("1.2.3", "1.2.3.4", 0, 2),
        ("1.5", "1.5.1", 2, 1),
    ]
    found = [(offset, descriptor) for series in tail.series for offset, descriptor in series.instances]
    assert [descriptor for _, descriptor in found] == [made.descriptor for made in INSTANCES]
    assert [pack.data[offset : offset + d.length] for offset, d in found] == [made.data for made in INSTANCES]
    assert tail.deletions == [DELETION]


def test_it_reads_the_end_and_the_index_and_no_pixel(pack: MadePack) -> None:
    read: list[tuple[int, int]] = []

    def noting(offset: int, length: int) -> bytes:
        read.append((offset, length))
        return pack.data[offset : offset + length]

    tail = read_tail(len(pack.data), noting)
    last = max(offset + d.length for series in tail.series for offset, d in series.instances)
    assert len(read) == 3
    assert min(offset for offset, _ in read) >= last


def test_a_pack_cut_off_anywhere_is_damaged(pack: MadePack) -> None:
    for length in range(len(pack.data)):
        with pytest.raises(Damaged, match="cut short"):
            tail_of(pack.data[:length])


def test_a_pack_with_something_behind_or_before_it_is_damaged(pack: MadePack) -> None:
    with pytest.raises(Damaged, match="cut short"):
        tail_of(pack.data + b"\n")
    with pytest.raises(Damaged, match=f"is {len(pack.data) + 64} bytes long, its locator says {len(pack.data)}"):
        tail_of(bytes(64) + pack.data)


def test_a_pack_that_holds_a_pack_and_is_cut_off_behind_it_is_damaged(pack: MadePack) -> None:
    """The end is a locator then, of another pack."""
    outer = make_pack([make_instance(9, pack.data)]).data
    with pytest.raises(Damaged, match="its locator says"):
        tail_of(outer[: outer.index(pack.data) + len(pack.data)])


def test_a_flipped_byte_anywhere_in_the_tail_is_damage(pack: MadePack) -> None:
    locator = Locator.unpack(pack.data[-LOCATOR_BYTES:])
    ranges = [range(locator.index_offset, locator.index_offset + locator.index_length), range(locator.covered, len(pack.data))]
    for at in (at for places in ranges for at in places):
        with pytest.raises(Damaged):
            tail_of(flipped(pack.data, at, at % 8))


@pytest.mark.parametrize(
    ("place", "said"),
    [("index", "content index does not match"), ("tail", "tail .* does not match"), ("locator", "locator does not match")],
)
def test_what_is_damaged_is_named(pack: MadePack, place: str, said: str) -> None:
    locator = Locator.unpack(pack.data[-LOCATOR_BYTES:])
    at = {"index": locator.index_offset, "tail": locator.covered, "locator": len(pack.data) - 100}[place]
    with pytest.raises(Damaged, match=said):
        tail_of(flipped(pack.data, at))


# --- what later versions may write


def changed(monkeypatch: pytest.MonkeyPatch, change: "dict[str, Any] | None" = None, line: "dict[str, Any] | None" = None) -> bytes:
    """A pack whose content index has other keys in its first line, or a further line."""

    def compress(data: bytes) -> bytes:
        if data.startswith(b"["):
            return gzip.compress(data)
        first, *rest = data.splitlines()
        rows = [dumps(loads(first) | (change or {})), *rest, *([dumps(line)] if line else [])]
        return gzip.compress(b"".join(row + b"\n" for row in rows))

    monkeypatch.setattr(pack_writer, "compress", compress)
    return make_pack(INSTANCES).data


def test_a_feature_that_must_be_understood_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = changed(monkeypatch, change={"must_understand": ["erasure", "colour"]})
    with pytest.raises(UnknownFormat, match="features that this program does not know: colour, erasure"):
        tail_of(data)


def test_a_line_that_must_be_understood_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    data = changed(monkeypatch, line={"kind": "overlay", "must_understand": True})
    with pytest.raises(UnknownFormat, match="kind 'overlay', which this program must understand"):
        tail_of(data)


def test_other_lines_and_keys_are_left_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    data = changed(monkeypatch, change={"colour": "blue"}, line={"kind": "remark", "text": "hello"})
    assert [len(series.instances) for series in tail_of(data).series] == [2, 1]


def test_an_index_that_is_none_is_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its CRC holds; a writer with a defect made it."""
    series = b'{"kind": "pack", "must_understand": []}\n{"kind": "series"}'
    for text in (b"", b"{", b'{"kind": "pack"}', b"[]", series, series.replace(b"series", b"instance")):
        monkeypatch.setattr(pack_writer, "compress", lambda data, text=text: gzip.compress(text))
        data = make_pack([]).data
        with pytest.raises(Damaged, match="content index"):
            tail_of(data)
    monkeypatch.setattr(pack_writer, "compress", lambda data: b"not gzip")
    data = make_pack([]).data
    with pytest.raises(Damaged, match="content index"):
        tail_of(data)
