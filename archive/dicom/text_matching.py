"""Matching of text: single values, wildcards, person names (DICOM PS3.4 C.2.2.2.1 and C.2.2.2.4).

What counts as equal:

- All text is compared in Unicode normal form C, without the padding that its value representation ignores.
- Person names (PN) are compared without regard to case, everything else with regard to it; accents count, but for fuzzy matching.
- A person name key without `=` matches any component group of the stored name (alphabetic, ideographic, phonetic); in a key
  with `=` each group that is not empty has to match the stored group at its place.
- Trailing `^` of a person name carry nothing, in the key or in the object. So `DOE^*` matches `DOE` as well as `DOE^JOHN`.
- Fuzzy matching of person names (PS3.18 8.3.4.2): each word of the key begins a word of the name, in any component and any group, each
  word of the name used once; neither case nor accents count.
"""

import fnmatch
import re
import unicodedata
from collections.abc import Callable, Iterator

TextTest = Callable[[object], bool]

FUZZY_WORDS_MAX = 32

NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")

_WORD_BREAKS = re.compile(r"[\s^=,]+")


def _compile_pattern(key: str) -> re.Pattern[str]:
    """`*` stands for any run of characters, none included; `?` for exactly one.

    The pattern takes time in proportion to key and text, whatever the key: it does not go back behind a `*`.
    """
    return re.compile(fnmatch.translate(key.replace("[", "[[]")))


def has_wildcard(key: str) -> bool:
    """Whether the key holds `*` or `?`."""
    return "*" in key or "?" in key


def compile_text(key: str, leading_spaces_count: bool, wildcards: bool) -> TextTest:
    """The test of a key over stored text.

    Parameters
    ----------
    key : str
        The value looked for.
    leading_spaces_count : bool
        Whether leading spaces are part of a value (LT, ST, UC, UR, UT), as they are not elsewhere.
    wildcards : bool
        Whether `*` and `?` are wildcards.
    """

    def normal(text: str) -> str:
        text = unicodedata.normalize("NFC", text)
        return text.rstrip(" \0") if leading_spaces_count else text.strip(" \0")

    wanted = normal(key)
    if not (wildcards and has_wildcard(wanted)):
        return lambda value: isinstance(value, str) and normal(value) == wanted
    pattern = _compile_pattern(wanted)
    return lambda value: isinstance(value, str) and pattern.fullmatch(normal(value)) is not None


def compile_name(key: str) -> TextTest:
    """The test of a person name key over stored names, single value or wildcard."""
    groups = [_normal_name(group) for group in key.split("=")]
    if len(groups) == 1:
        matches_any = _compile_name_group(groups[0])
        return lambda value: any(matches_any(group) for group in _name_groups(value) if group)
    tests = [(place, _compile_name_group(group)) for place, group in enumerate(groups) if group]

    def test(value: object) -> bool:
        stored = list(_name_groups(value))
        return all(place < len(stored) and matches(stored[place]) for place, matches in tests)

    return test


def _compile_name_group(wanted: str) -> Callable[[str], bool]:
    if not has_wildcard(wanted):
        return wanted.__eq__
    bare = wanted.removesuffix("^*").rstrip("^") if wanted.endswith("^*") else None
    patterns = [_compile_pattern(wanted)] + ([_compile_pattern(bare)] if bare is not None else [])
    return lambda group: any(pattern.fullmatch(group) for pattern in patterns)


def compile_fuzzy_name(key: str) -> TextTest:
    """The test of a person name key by fuzzy matching; wildcards keep their meaning inside a word.

    Raises
    ------
    ValueError
        The key has more than `FUZZY_WORDS_MAX` words.
    """
    words = [_compile_pattern(word + "*") for word in _WORD_BREAKS.split(_plain(key)) if word.strip("*")]
    if len(words) > FUZZY_WORDS_MAX:
        raise ValueError(f"a name of {len(words)} words, more than {FUZZY_WORDS_MAX}")

    def test(value: object) -> bool:
        stored = [word for group in _name_groups(value) for word in _WORD_BREAKS.split(_plain(group)) if word]
        return _begin_different_words(words, stored)

    return test


def _begin_different_words(patterns: list[re.Pattern[str]], words: list[str]) -> bool:
    """Whether every pattern can be given a word of its own that it begins (bipartite matching by augmenting paths)."""
    taken: dict[int, int] = {}

    def place(index: int, seen: set[int]) -> bool:
        for at, word in enumerate(words):
            if at not in seen and patterns[index].match(word):
                seen.add(at)
                if at not in taken or place(taken[at], seen):
                    taken[at] = index
                    return True
        return False

    return all(place(index, set()) for index in range(len(patterns)))


def _name_groups(value: object) -> Iterator[str]:
    """The component groups of a PN value of the DICOM JSON model, by place; a plain string is taken as `a=i=p`."""
    if isinstance(value, dict):
        for name in NAME_GROUPS:
            group = value.get(name)
            yield _normal_name(group) if isinstance(group, str) else ""
    elif isinstance(value, str):
        yield from map(_normal_name, value.split("="))


def _normal_name(group: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", group).casefold()).strip(" \0").rstrip("^ ")


def _plain(text: str) -> str:
    """Without case and accents."""
    decomposed = unicodedata.normalize("NFD", text.casefold())
    return unicodedata.normalize("NFC", "".join(c for c in decomposed if unicodedata.category(c) != "Mn"))
