"""Text as the bytes of one or several character sets, with the escape sequences between them (DICOM PS3.5 6.1.2.4, 6.1.2.5, annexes H-K).

pydicom reads such text. What it writes lacks escape sequences in places (a value all in ISO 2022 IR 58 or IR 149), so that others
read something else.
"""

import re

from archive.dicom.charset import decode_text, encodings_of

_DEFAULT_TERMS = frozenset(("", "ISO_IR 6", "ISO 2022 IR 6"))
_TO_ASCII, _TO_ROMAJI = b"\x1b(B", b"\x1b(J"

_ESCAPES = {
    "ISO 2022 IR 13": b"\x1b)I",
    "ISO 2022 IR 58": b"\x1b$)A",
    "ISO 2022 IR 87": b"\x1b$B",
    "ISO 2022 IR 100": b"\x1b-A",
    "ISO 2022 IR 101": b"\x1b-B",
    "ISO 2022 IR 109": b"\x1b-C",
    "ISO 2022 IR 110": b"\x1b-D",
    "ISO 2022 IR 126": b"\x1b-F",
    "ISO 2022 IR 127": b"\x1b-G",
    "ISO 2022 IR 138": b"\x1b-H",
    "ISO 2022 IR 144": b"\x1b-L",
    "ISO 2022 IR 148": b"\x1b-M",
    "ISO 2022 IR 149": b"\x1b$)C",
    "ISO 2022 IR 159": b"\x1b$(D",
    "ISO 2022 IR 166": b"\x1b-T",
}
_SEVEN_BIT = frozenset(("ISO 2022 IR 87", "ISO 2022 IR 159"))  # They take the place of ASCII, the others that of the upper half.
_CODECS = {"ISO 2022 IR 13": "shift_jis", "ISO 2022 IR 58": "gb2312", "ISO 2022 IR 149": "euc_kr"}


class TextEncoder:
    """Writes text in the character sets that a Specific Character Set (0008,0005) names.

    Parameters
    ----------
    specific_character_set : bytes
        Terms joined by a backslash.

    Raises
    ------
    ValueError
        A term is not known, or the default repertoire alone is named, which needs no name.
    """

    def __init__(self, specific_character_set: bytes) -> None:
        self.terms = [term.strip(" \0") for term in specific_character_set.decode("ascii").split("\\")]
        self._encodings = encodings_of(specific_character_set)
        extended = [term for term in self.terms if term not in _DEFAULT_TERMS]
        if not extended or (len(self.terms) > 1 and not all(term in _ESCAPES for term in extended)):
            raise ValueError(f"no character sets to write in: {self.terms}")
        if any(encodings_of(term.encode()) == encodings_of(b"") for term in extended):
            raise ValueError(f"unknown character sets: {self.terms}")
        self._romaji = "13" in self.terms[0]
        self._sets = [term.replace("ISO_IR", "ISO 2022 IR") for term in extended]

    def encode(self, text: str, delimiters: str = "\\") -> bytes:
        """Text as bytes, without padding; `decode_text` gives it back.

        Parameters
        ----------
        text : str
            Several values joined by a backslash, where the VR knows several.
        delimiters : str
            Characters after which the first character set is in force: a backslash, in names `^` and `=` too.

        Raises
        ------
        ValueError
            It cannot be said in these character sets.
        """
        if len(self.terms) == 1 and not self._romaji:
            return text.encode(self._encodings[0])
        parts = re.split(f"([{re.escape(delimiters)}\r\n\t\f])", text)
        encoded = b"".join(map(self._encode_part, parts))
        # JIS X 0201 has a yen sign and an overline where ASCII has backslash and tilde: what is read would not be what was meant.
        if decode_text(encoded, self._encodings) != text:
            raise ValueError(f"the text is not all of the character sets {self.terms}")
        return encoded

    def _encode_part(self, part: str) -> bytes:
        """Text between two delimiters; the first set is in force before and after it."""
        out = bytearray()
        initial = _TO_ROMAJI if self._romaji else _TO_ASCII
        lower, upper = initial, b"" if self.terms[0] in _DEFAULT_TERMS else _ESCAPES[self._sets[0]]
        for character in part:
            if character.isascii():
                escape, encoded, seven_bit = initial, character.encode("ascii"), True
            else:
                escape, encoded, seven_bit = self._encode_character(character)
            if seven_bit and escape != lower:
                out += escape
                lower = escape
            elif not seven_bit and escape != upper:
                out += escape
                upper = escape
            out += encoded
        if lower != initial:
            out += initial
        return bytes(out)

    def _encode_character(self, character: str) -> tuple[bytes, bytes, bool]:
        """The escape sequence of the first set that has the character, its bytes there, and whether they are of seven bits."""
        for term in self._sets:
            escape = _ESCAPES[term]
            try:
                if term not in _SEVEN_BIT:
                    encoded = character.encode(_CODECS.get(term) or encodings_of(term.encode())[0])
                    if min(encoded) >= 0x80 and (term != "ISO 2022 IR 13" or len(encoded) == 1):
                        return escape, encoded, False
                else:
                    encoded = character.encode("iso2022_jp" if term == "ISO 2022 IR 87" else "iso2022_jp_2")
                    if encoded.startswith(escape):
                        return escape, encoded[len(escape) : len(escape) + 2], True
            except UnicodeEncodeError:
                continue
        raise ValueError(f"{character!r} is in none of the character sets {self.terms}")
