"""What is read of data sets that resemble each other is what is read of each of them alone."""

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from struct import pack
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.dicom.describe import THREADS, Description, describe, describe_begun
from archive.dicom.part10 import read_file_meta
from archive.dicom.repeating import FRUITLESS_MAX, Layouts
from archive.dicom.syntax import EXPLICIT_VR_BIG_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.errors import ArchiveError
from tests.dicom.build import UNDEFINED, delimited, element, identity, item
from tests.kit import sample_files

SYNTAXES = {
    EXPLICIT_VR_LITTLE_ENDIAN: {"explicit": True, "little": True},
    IMPLICIT_VR_LITTLE_ENDIAN: {"explicit": False, "little": True},
    EXPLICIT_VR_BIG_ENDIAN: {"explicit": True, "little": False},
}

Outcome = Description | str


@pytest.fixture(autouse=True)
def nothing_met() -> None:
    """This thread begins anew."""
    THREADS.__dict__.clear()


def outcome(data: bytes, syntax: str) -> Outcome:
    """What is found, in the order of attributes too, or why nothing is."""
    try:
        found = describe(data, syntax)
    except ArchiveError as error:
        return f"{type(error).__name__}: {error}"
    assert list(found.attributes) == sorted(found.attributes)
    return found


def alone(data: bytes, syntax: str) -> Outcome:
    """The same by a thread that met no other data set."""
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(outcome(data, syntax)))
    thread.start()
    thread.join()
    return found[0]


@contextmanager
def matches() -> Iterator[list[bool]]:
    """For each data set described while it is entered: whether it was found to be like one before."""
    out: list[bool] = []
    find = Layouts.find

    def look(self: Layouts, *arguments: object, **named: object) -> object:
        found = find(self, *arguments, **named)  # type: ignore[arg-type]
        out.append(found is not None)
        return found

    with mock.patch.object(Layouts, "find", look):
        yield out


def sequence(tag: int, uid: bytes, *, defined: bool, write: dict[str, bool]) -> bytes:
    content = item(element(0x00081155, "UI", uid, **write), defined=defined, little=write["little"])
    if defined:
        return element(tag, "SQ", content, **write)
    return element(tag, "SQ", delimited(content, little=write["little"]), **write, length=UNDEFINED)


def image(number: int, write: dict[str, bool], *, charset: bytes = b"ISO_IR 100", defined: bool = True, pixels: bytes = bytes(12)) -> bytes:
    """One of a series: its number decides how long some values are."""
    order = "<" if write["little"] else ">"
    uid = b"1.2.3.4.%d" % (5 * 10**number)
    uid += b"\0" * (len(uid) % 2)
    position = b"%d\\%d.5\\0" % (number, 10**number)
    return b"".join(
        (
            element(0x00080005, "CS", charset, **write),
            element(0x00080016, "UI", b"1.2.840.10008.5.1.4.1.1.7\0", **write),
            element(0x00080018, "UI", uid, **write),
            element(0x00080032, "TM", b"1012%02d" % number, **write),
            sequence(0x00081140, uid, defined=defined, write=write),
            element(0x00100010, "PN", b"M\xfcller^J\xf6rg ", **write),
            element(0x0020000D, "UI", b"1.2.3\0", **write),
            element(0x0020000E, "UI", b"1.2.3.4\0", **write),
            element(0x00200013, "IS", b"%02d" % number, **write),
            element(0x00200032, "DS", position + b" " * (len(position) % 2), **write),
            element(0x00280010, "US", pack(order + "H", 2), **write),
            element(0x00280011, "US", pack(order + "H", 3), **write),
            element(0x00280100, "US", pack(order + "H", 16), **write),
            element(0x00431001, "UN", bytes([number] * 4), **write),
            element(0x7FE00010, "OW", pixels, **write),
        )
    )


@pytest.mark.parametrize("defined", [True, False])
@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_series_is_walked_a_few_times_only(syntax: str, defined: bool) -> None:
    series = [image(number, SYNTAXES[syntax], defined=defined) for number in range(12)]
    with matches() as found:
        described = [outcome(data, syntax) for data in series]
    assert described == [alone(data, syntax) for data in series]
    assert found[3:] == [True] * 9
    last = described[-1]
    assert isinstance(last, Description) and last.pixel_data is not None
    assert last.attributes["00200013"] == {"vr": "IS", "Value": [11]}
    assert last.pixel_data.frame_ranges(1) == [(len(series[-1]) - 12, 12)]


def test_another_character_set_changes_all_text() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    for charset in (b"ISO_IR 100", b"ISO_IR 144", b"ISO_IR 100", b"ISO_IR 144"):
        data = image(1, write, charset=charset)
        assert outcome(data, syntax) == alone(data, syntax)


def test_frames_are_looked_for_in_each_object() -> None:
    write = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN]
    for number in range(6):
        fragments = item(b"") + b"".join(item(bytes(10 + 2 * number)) for _ in range(number + 1))
        start = image(number, write)[:-24]
        data = start + element(0x7FE00010, "OB", delimited(fragments), length=UNDEFINED)
        assert outcome(data, "1.2.840.10008.1.2.4.50") == alone(data, "1.2.840.10008.1.2.4.50")


def test_an_element_more_less_or_cut_off() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    images = [image(number, write) for number in range(4)]
    for data in images:
        outcome(data, syntax)
    more = images[0].replace(element(0x00200013, "IS", b"00"), element(0x00200012, "IS", b"7 ") + element(0x00200013, "IS", b"00"))
    less = images[0].replace(element(0x00200013, "IS", b"00"), b"")
    with matches() as found:
        for data in (more, less, images[0] + bytes(8), *(images[0][:end] for end in range(len(images[0])))):
            assert outcome(data, syntax) == alone(data, syntax)
    assert any(found)


def test_nothing_is_learned_for_a_while_where_nothing_repeats() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    with mock.patch.object(Layouts, "learn", autospec=True) as learn:
        for number in range(FRUITLESS_MAX + 20):
            outcome(element(0x00080000 + number, "UL", bytes(4)) + image(1, write), syntax)
    assert FRUITLESS_MAX <= learn.call_count <= FRUITLESS_MAX + 1


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(SYNTAXES)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=3), st.integers(0, 9))
def test_bytes_that_differ_anywhere(syntax: str, changes: list[tuple[int, int]], number: int) -> None:
    for other in range(3):
        outcome(image(other, SYNTAXES[syntax]), syntax)
    data = bytearray(image(number, SYNTAXES[syntax]))
    for at, value in changes:
        data[at % len(data)] = value
    begun = describe_begun(data[: len(data) - number], syntax)
    assert outcome(bytes(data), syntax) == alone(bytes(data), syntax)
    if begun is not None and begun[1] <= len(data):
        assert begun[0] == alone(bytes(data), syntax)


def test_what_has_begun_is_described_once_its_pixel_data_has() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    for number in range(4):
        outcome(image(number, write), syntax)
    data = image(5, write)
    for end in range(8, len(data) + 1):
        found = describe_begun(data[:end], syntax)
        assert found == (None if end < len(data) - 12 else (alone(data, syntax), len(data)))
    assert describe_begun(image(5, write, pixels=bytes(14)), syntax) is None
    assert describe_begun(data.replace(b"1.2.3.4.500000", b"1.2.3.4/500000"), syntax) is None


def test_files_of_pydicom_with_bytes_that_differ() -> None:
    chance = random.Random(3)
    hits = 0
    for path in sample_files():
        file = path.read_bytes()
        try:
            meta = read_file_meta(file)
        except ArchiveError:
            continue
        data_set = bytearray(file[meta.length :][: 1 << 17])
        places = [chance.randrange(1, min(len(data_set), 4096)) for _ in range(3)]
        with matches() as found:
            for _ in range(8):
                data, syntax = bytes(data_set), meta.transfer_syntax_uid
                assert outcome(data, syntax) == alone(data, syntax), path
                data_set[chance.choice(places)] = chance.randrange(0x30, 0x3A)
        hits += sum(found)
    assert hits > 100


def test_identity_is_read_anew() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    for number in range(3):
        outcome(image(number, write), syntax)
    data = image(3, write).replace(b"1.2.3.4.5000", b"1.2.3.4/5000")
    assert outcome(data, syntax) == alone(data, syntax)
    assert "SOPInstanceUID" in str(outcome(data, syntax))
    assert outcome(identity(), syntax) == alone(identity(), syntax)


def test_images_of_other_sizes() -> None:
    write, syntax = SYNTAXES[EXPLICIT_VR_LITTLE_ENDIAN], EXPLICIT_VR_LITTLE_ENDIAN
    rows, frames = element(0x00280010, "US", b"\2\0"), element(0x00280008, "IS", b"1 ")
    for number in range(4):
        outcome(image(number, write), syntax)
    for number in range(4):
        outcome(image(number, write).replace(rows, frames + rows), syntax)
    with matches() as found:
        for pixels in (bytes(12), bytes(24), bytes(10), bytes(12)):
            for start in (rows, element(0x00280010, "US", b"\4\0"), frames + rows, frames.replace(b"1 ", b"2 ") + rows):
                data = image(5, write, pixels=pixels).replace(rows, start)
                assert outcome(data, syntax) == alone(data, syntax)
    assert sum(found) > 8
