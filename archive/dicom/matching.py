"""Which objects a query asks for: attribute matching over the DICOM JSON model (DICOM PS3.4 C.2.2.2), for QIDO-RS and C-FIND alike.

By the value representation of a key:

====================================  ===============================================================================
VR                                    How a value matches
====================================  ===============================================================================
AE CS LO LT SH ST UC UR UT            equal, or by the wildcards `*` and `?` (`text_matching`)
PN                                    the same without regard to case, by component group; or fuzzy (`text_matching`)
DA DT TM                              equal, or in a range (`time_matching`)
UI                                    equal
AS                                    equal
AT DS FD FL IS SL SS SV UL US UV      equal as numbers
OB OD OF OL OV OW UN                  never: binary values are not keys
====================================  ===============================================================================

Common to all: a key that is empty or only `*` (in a name `*^*`, too) is universal, it matches every object, also one without the
attribute; any other key needs the attribute. An attribute with several values matches if one of them does. A key with several
values, joined by `\\` (not in LT, ST, UR, UT) or by `,` in a list of UIDs or codes (UI, CS), matches if one of them does. Keys
inside a sequence match if one item satisfies all of them together (C.2.2.2.6).
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import Any

from archive.dicom.attributes import DATE_AND_TIME, keyword_of, vr_of
from archive.dicom.text_matching import compile_fuzzy_name, compile_name, compile_text
from archive.dicom.time_matching import CombinedRange, compile_combined, compile_range
from archive.errors import BadInput

Path = tuple[str, ...]
Attributes = Mapping[str, Any]
ValueTest = Callable[[object], bool]

_TEXT = frozenset(("AE", "CS", "LO", "LT", "SH", "ST", "UC", "UR", "UT"))
_LEADING_SPACES_COUNT = frozenset(("LT", "ST", "UC", "UR", "UT"))
_ONE_VALUE = frozenset(("LT", "ST", "UR", "UT"))
_COMMA_LISTS = frozenset(("CS", "UI"))
_TIME = frozenset(("DA", "DT", "TM"))
_NUMBER = frozenset(("DS", "FD", "FL", "IS", "SL", "SS", "SV", "UL", "US", "UV"))
_UNKNOWN = frozenset(("", "UN"))


def compile_value(vr: str, key: str, fuzzy: bool = False) -> ValueTest | None:
    """The test that a query key means for one stored value.

    Parameters
    ----------
    vr : str
        Value representation of the attribute; of several (`US or SS`) the first counts.
    key : str
        The value looked for, as it stands in the query.
    fuzzy : bool
        Fuzzy matching of person names.

    Returns
    -------
    callable or None
        Takes a value of the DICOM JSON model; None for a universal key.

    Raises
    ------
    ValueError
        The key cannot be a value of this VR.
    """
    vr = vr[:2]
    if _is_universal(vr, key):
        return None
    if vr == "SQ":
        raise ValueError("a sequence has no value of its own, only attributes in its items")
    parts = [key] if vr in _ONE_VALUE else key.replace(",", "\\").split("\\") if vr in _COMMA_LISTS else key.split("\\")
    parts = [part for part in parts if part.strip(" \0")]
    if not parts or any(_is_universal(vr, part) for part in parts):
        return None
    tests = [_compile_single(vr, part, fuzzy) for part in parts]
    if len(tests) == 1:
        return tests[0]
    return lambda value: any(test(value) for test in tests)


def _is_universal(vr: str, key: str) -> bool:
    return not key.strip("*^= \0" if vr == "PN" else "* \0")


def _compile_single(vr: str, key: str, fuzzy: bool) -> ValueTest:
    if vr == "PN":
        return compile_fuzzy_name(key) if fuzzy else compile_name(key)
    if vr in _TIME:
        return compile_range(vr, key)
    if vr in _NUMBER:
        wanted = float(key) if "." in key or "e" in key.lower() else int(key)
        return lambda value: _number(value) == wanted
    if vr == "AT":
        tag = int(key.strip(" ()").replace(",", ""), 16)
        return lambda value: isinstance(value, str) and value.upper() == f"{tag:08X}"
    if vr in _TEXT or vr in ("UI", "AS"):
        return compile_text(key, vr in _LEADING_SPACES_COUNT, wildcards=vr in _TEXT)
    return lambda value: False


def _number(value: object) -> float | int | None:
    """DS and IS may stand as text in the DICOM JSON model (PS3.18 F.2.3)."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return None
    return value if isinstance(value, int | float) else None


class _Attribute:
    """The test of one attribute by one key."""

    def __init__(self, tag: str, key: str, fuzzy: bool) -> None:
        self.tag = tag
        self._key = key
        self._fuzzy = fuzzy
        self._tests: dict[str, ValueTest | None] = {}
        vr = vr_of(tag)
        if vr not in _UNKNOWN:
            self._tests[""] = compile_value(vr, key, fuzzy)

    @property
    def universal(self) -> bool:
        return _is_universal("", self._key) or self._tests.get("", self) is None

    def __call__(self, attributes: Attributes) -> bool:
        attribute = attributes.get(self.tag)
        if attribute is None:
            return False
        test = self._tests[""] if "" in self._tests else self._test_for(attribute.get("vr", "UN"))
        return test is None or any(value is not None and test(value) for value in attribute.get("Value", ()))

    def _test_for(self, vr: str) -> ValueTest | None:
        """For attributes that the dictionary does not know: their VR stands in the object; what cannot be its value does not match."""
        if vr not in self._tests:
            try:
                self._tests[vr] = compile_value(vr, self._key, self._fuzzy)
            except ValueError:
                self._tests[vr] = lambda value: False
        return self._tests[vr]


class _DateAndTime:
    """The keys of a date and of its time, combined."""

    universal = False

    def __init__(self, date_tag: str, time_tag: str, test: CombinedRange) -> None:
        self._date_tag, self._time_tag, self._test = date_tag, time_tag, test

    def __call__(self, attributes: Attributes) -> bool:
        dates, times = (attributes.get(tag, {}).get("Value", ()) for tag in (self._date_tag, self._time_tag))
        return any(self._test(*pair) for pair in zip_longest(dates, times[: len(dates)]))


class Matcher:
    """A compiled query; call it with the attributes of an object in the DICOM JSON model."""

    def __init__(self, tests: Iterable[_Attribute | _DateAndTime], sequences: dict[str, "Matcher"]) -> None:
        self._tests = [test for test in tests if not test.universal]
        self._sequences = {tag: matcher for tag, matcher in sequences.items() if not matcher.universal}

    @property
    def universal(self) -> bool:
        """Whether everything matches."""
        return not self._tests and not self._sequences

    def __call__(self, attributes: Attributes) -> bool:
        """Whether the object satisfies every key."""
        if not all(test(attributes) for test in self._tests):
            return False
        for tag, matcher in self._sequences.items():
            items = attributes.get(tag, {}).get("Value", ())
            if not any(isinstance(item, Mapping) and matcher(item) for item in items):
                return False
        return True


def compile_keys(keys: Mapping[Path, str], fuzzy: bool = False, combined: bool = False) -> Matcher:
    """Compile the keys of a query.

    Parameters
    ----------
    keys : mapping
        From attribute path (tags of 8 upper-case hexadecimal digits; more than one leads into sequences) to the text of the key.
    fuzzy : bool
        Fuzzy matching of person names (QIDO-RS `fuzzymatching=true`).
    combined : bool
        Ranges of a date and of its time are one range (combined date-time matching of PS3.4 C.5.1.1).

    Returns
    -------
    Matcher
        Answers True for the objects asked for.

    Raises
    ------
    BadInput
        A key cannot be a value of its attribute: no date, no number, a value for a sequence. The text names the attribute.
    """
    return _compile_level({path: key for path, key in keys.items() if path}, fuzzy, combined, ())


def _compile_level(keys: Mapping[Path, str], fuzzy: bool, combined: bool, above: Path) -> Matcher:
    tests: dict[str, _Attribute | _DateAndTime] = {}
    inside: dict[str, dict[Path, str]] = {}
    for path, key in keys.items():
        if len(path) > 1:
            inside.setdefault(path[0], {})[path[1:]] = key
            continue
        try:
            tests[path[0]] = _Attribute(path[0], key, fuzzy)
        except ValueError as error:
            name = ".".join(keyword_of(tag) or tag for tag in (*above, *path))
            raise BadInput(f"query key {name}: {error}") from error
    for date_tag, time_tag in DATE_AND_TIME if combined else ():
        if date_tag in tests and time_tag in tests and not (tests[date_tag].universal or tests[time_tag].universal):
            keys_of_both = keys[(date_tag,)], keys[(time_tag,)]
            test = None if "\\" in "".join(keys_of_both) else compile_combined(*keys_of_both)
            if test is not None:
                del tests[time_tag]
                tests[date_tag] = _DateAndTime(date_tag, time_tag, test)
    return Matcher(tests.values(), {tag: _compile_level(below, fuzzy, combined, (*above, tag)) for tag, below in inside.items()})
