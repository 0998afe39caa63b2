import pytest

from archive.dicom.charset import DEFAULT_ENCODINGS, decode_text, encodings_of


@pytest.mark.parametrize(
    "term", [b"", b" ", b"hex", b"undefined", b"idna", b"unicode_escape", b"utf_16", b"ISO_IR\0192", b"\xff", b"x" * 1000]
)
def test_what_is_no_character_set_is_the_default(term: bytes) -> None:
    assert encodings_of(term) == DEFAULT_ENCODINGS


@pytest.mark.parametrize(
    ("term", "raw"),
    [
        (b"ISO_IR 100", "Müller".encode("latin_1")),
        (b"ISO_IR 192 ", "Müller".encode()),
        (b"ISO_IR 192\0", "Müller".encode()),
        (b"ISO-IR 100", "Müller".encode("latin_1")),
        (b"ISO 2022 IR 100", "Müller".encode("latin_1")),
        (b"GB18030 ", "Müller".encode("gb18030")),
        (b"", "Müller".encode("latin_1")),
    ],
)
def test_text_by_its_character_set(term: bytes, raw: bytes) -> None:
    assert decode_text(raw, encodings_of(term)) == "Müller"


def test_code_extensions() -> None:
    assert decode_text(b"\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B", encodings_of(b"\\ISO 2022 IR 87")) == "山田^太郎"
    assert decode_text(b"\x1b$)C\xb1\xe8\xc8\xf1\xc1\xdf", encodings_of(b"\\ISO 2022 IR 149")) == "김희중"


def test_what_is_no_text_in_its_character_set_is_still_read() -> None:
    assert decode_text(b"M\xfcller", encodings_of(b"ISO_IR 192")) == "M\ufffdller"
