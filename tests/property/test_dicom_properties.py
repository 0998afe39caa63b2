"""Data sets and pixel data made at random are found again as they were made."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from archive.dicom.frames import PixelData, encapsulated_pixel_data, native_pixel_data, scan_fragments
from archive.dicom.json import dumps, loads
from archive.dicom.scan import scan_elements, scan_items
from archive.dicom.syntax import Encoding
from tests.dicom.build import UNDEFINED, delimited, element, item

TAG = "7FE00010"
Tree = list[tuple[int, str, Any]]

# Groups 0008 to 5000: what is odd is private, which matters to nobody here; the values of AE never look like lengths of capital letters.
tags = st.integers(0x0008_0001, 0x5000_FFFF).filter(lambda tag: tag & 0xFFFF)
leaves = st.tuples(tags, st.sampled_from(["LO", "UI", "OB", "UN", "US", "UT"]), st.binary(max_size=40))


def trees(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    sequence = st.tuples(tags, st.just("SQ"), st.lists(children, max_size=3))
    return st.lists(st.one_of(leaves, sequence), max_size=4)


data_sets = st.recursive(st.lists(leaves, max_size=4), trees, max_leaves=12)
encodings = st.sampled_from([Encoding(True, True), Encoding(False, True), Encoding(True, False)])


def written(tree: Tree, encoding: Encoding, *, defined: bool) -> bytes:
    data = b""
    for tag, vr, value in tree:
        if vr != "SQ":
            data += element(tag, vr, value, explicit=encoding.explicit, little=encoding.little)
            continue
        items = b"".join(item(written(content, encoding, defined=defined), defined=defined, little=encoding.little) for content in value)
        if defined:
            data += element(tag, vr, items, explicit=encoding.explicit, little=encoding.little)
        else:
            whole = delimited(items, little=encoding.little)
            data += element(tag, vr, whole, explicit=encoding.explicit, little=encoding.little, length=UNDEFINED)
    return data


def read(data: bytes, encoding: Encoding, made: Tree, start: int, end: int) -> Tree:
    """What is there, by the shape of what was made (implicit elements do not tell sequences from values)."""
    found: Tree = []
    for place, (_, vr, _) in zip(scan_elements(data, encoding, start, end), made, strict=True):
        if vr == "SQ":
            contents = [
                read(data, inside.encoding, content, inside.offset, inside.offset + inside.length)
                for inside, content in zip(
                    scan_items(data, place, encoding), next(v for t, w, v in made if w == "SQ" and t == place.tag), strict=True
                )
            ]
            found.append((place.tag, "SQ", contents))
        else:
            found.append((place.tag, vr if not place.vr else place.vr, data[place.offset : place.offset + place.length]))
    return found


def has_one_of_each(tree: Tree) -> bool:
    return len({tag for tag, _, _ in tree}) == len(tree) and all(
        has_one_of_each(content) for _, vr, value in tree if vr == "SQ" for content in value
    )


@settings(max_examples=100, deadline=None)
@given(tree=data_sets.filter(has_one_of_each), encoding=encodings, defined=st.booleans())
def test_what_was_written_is_found(tree: Tree, encoding: Encoding, defined: bool) -> None:
    data = written(tree, encoding, defined=defined)
    assert read(data, encoding, tree, 0, len(data)) == tree


@given(frames=st.lists(st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=3), min_size=1, max_size=6), little=st.booleans())
def test_encapsulated_frames_by_their_table(frames: list[list[bytes]], little: bool) -> None:
    fragments = [fragment for frame in frames for fragment in frame]
    data = b"".join(item(fragment, little=little) for fragment in [b"", *fragments])
    places = scan_fragments(data, 0, len(data), little)
    table, place = [], 0
    for frame in frames:
        table.append(place)
        place += sum(len(fragment) + 8 for fragment in frame)
    pixels = encapsulated_pixel_data(TAG, data, 16, [length for _, length in places[1:]], len(frames), table)
    assert PixelData.from_json(loads(dumps(pixels.to_json()))) == pixels
    for number, frame in enumerate(frames, 1):
        assert [data[offset : offset + length] for offset, length in pixels.frame_ranges(number)] == frame


@given(bits=st.lists(st.lists(st.integers(0, 1), min_size=11, max_size=11), min_size=1, max_size=9))
def test_single_bit_frames(bits: list[list[int]]) -> None:
    row = [bit for frame in bits for bit in frame]
    data = sum(bit << place for place, bit in enumerate(row)).to_bytes(-(-len(row) // 8), "little")
    pixels = native_pixel_data(TAG, 0, len(data), len(bits), 11)
    for number, frame in enumerate(bits, 1):
        parts = [data[offset : offset + length] for offset, length in pixels.frame_ranges(number)]
        (cut,) = pixels.cut_frame(number, parts)
        assert bytes(cut) == sum(bit << place for place, bit in enumerate(frame)).to_bytes(2, "little")
