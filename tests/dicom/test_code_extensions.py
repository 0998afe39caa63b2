"""Text in one and several character sets; the names are those of DICOM PS3.5 annexes H to K."""

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from archive.dicom.charset import decode_text, encodings_of
from archive.dicom.code_extensions import TextEncoder

NAME = "\\^="


@pytest.mark.parametrize(
    ("terms", "name", "encoded"),
    [
        (
            "\\ISO 2022 IR 87",
            "Yamada^Tarou=山田^太郎=やまだ^たろう",
            b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
        ),
        (
            "ISO 2022 IR 13\\ISO 2022 IR 87",
            "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
            b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
        ),
        (
            "\\ISO 2022 IR 149",
            "Hong^Gildong=洪^吉洞=홍^길동",
            b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
        ),
        ("\\ISO 2022 IR 58", "Zhang^XiaoDong=张^小东", b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab"),
        ("ISO 2022 IR 100\\ISO 2022 IR 144", "Müller^Люкceмбypг", b"M\xfcller^\x1b-L\xbb\xee\xdace\xdc\xd1yp\xd3"),
        ("\\ISO 2022 IR 126\\ISO 2022 IR 138", "Διος שרון x", b"\x1b-F\xc4\xe9\xef\xf2 \x1b-H\xf9\xf8\xe5\xef x"),
        ("\\ISO 2022 IR 87\\ISO 2022 IR 159", "山丂", b"\x1b$B;3\x1b$(D0!\x1b(B"),
        ("ISO_IR 192", "Wang^XiaoDong=王^小東", "Wang^XiaoDong=王^小東".encode()),
        ("GB18030", "王^小东\\é", "王^小东\\é".encode("gb18030")),
        ("ISO_IR 166", "สวัสดี", "สวัสดี".encode("iso8859_11")),
    ],
)
def test_the_names_of_the_standard(terms: str, name: str, encoded: bytes) -> None:
    assert TextEncoder(terms.encode()).encode(name, NAME) == encoded
    assert decode_text(encoded, encodings_of(terms.encode())) == name


@pytest.mark.parametrize(
    ("terms", "text"),
    [
        ("ISO_IR 100", "Łódź"),
        ("\\ISO 2022 IR 87", "é"),
        ("\\ISO 2022 IR 100", "山"),
        ("ISO_IR 13", "~山"),
        ("ISO_IR 13", "\\ﾔ~"),  # the overline of JIS X 0201
    ],
)
def test_what_cannot_be_said_is_refused(terms: str, text: str) -> None:
    encoder = TextEncoder(terms.encode())
    try:
        assert decode_text(encoder.encode(text), encodings_of(terms.encode())) == text
    except ValueError:
        return
    assert terms == "ISO_IR 13"


@pytest.mark.parametrize("terms", ["", "ISO_IR 6", "ISO 2022 IR 6", "FOO", "\\FOO", "\\ISO 2022 IR 87\\FOO", "ISO_IR 203"])
def test_terms_that_name_no_character_set_to_write_in(terms: str) -> None:
    with pytest.raises(ValueError, match="character sets"):
        TextEncoder(terms.encode())


SETS = [
    "ISO_IR 100",
    "ISO_IR 192",
    "ISO 2022 IR 100\\ISO 2022 IR 126\\ISO 2022 IR 144",
    "\\ISO 2022 IR 87",
    "\\ISO 2022 IR 87\\ISO 2022 IR 159",
    "ISO 2022 IR 13\\ISO 2022 IR 87",
    "\\ISO 2022 IR 149",
    "\\ISO 2022 IR 58\\ISO 2022 IR 166",
    "GBK",
]


@given(st.sampled_from(SETS), st.text(alphabet="aB é^=\\Яα山太丂张홍吉ﾔﾏสวא\t", max_size=12))
def test_text_comes_back_or_is_refused(terms: str, text: str) -> None:
    try:
        encoded = TextEncoder(terms.encode()).encode(text, NAME)
    except ValueError:
        event("refused")
        return
    event("text beyond ASCII" if not text.isascii() else "ASCII")
    assert decode_text(encoded, encodings_of(terms.encode())) == text
