"""The matching engine against a twin that is too plain to be wrong, on generated objects and keys (DICOM PS3.4 C.2.2.2)."""

import unicodedata
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import product
from typing import Any

from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from archive.dicom.matching import compile_keys

Path = tuple[str, ...]

VRS = {
    "00080018": "UI",
    "00080020": "DA",
    "00080030": "TM",  # the time of the same moment
    "00080060": "CS",
    "0008002A": "DT",
    "00100010": "PN",
    "00100020": "LO",
    "00104000": "LT",
    "00200011": "IS",
    "00280010": "US",
    "00400007": "LO",
    "00400008": "SQ",
    "00400009": "SH",
    "00400275": "SQ",
    "00080100": "SH",
}
SEQUENCES = {"00400275": ("00400007", "00400008", "00400009"), "00400008": ("00080100", "00400007")}


# The twin.


def twin(keys: dict[Path, str], fuzzy: bool, attributes: dict[str, Any]) -> bool:
    """Whether some choice of one item for every sequence that keys lead into satisfies all keys."""
    keys = {path: key for path, key in keys.items() if not universal(VRS[path[-1]], key)}
    places = sorted({path[:n] for path in keys for n in range(1, len(path))})
    return any(all(holds(path, key, fuzzy, attributes, choice) for path, key in keys.items()) for choice in choices(places, attributes, {}))


def choices(places: list[Path], attributes: dict[str, Any], chosen: dict[Path, int]) -> Iterator[dict[Path, int]]:
    most = 4
    for indexes in product(range(most), repeat=len(places)):
        yield dict(zip(places, indexes, strict=True))


def holds(path: Path, key: str, fuzzy: bool, attributes: dict[str, Any], choice: dict[Path, int]) -> bool:
    level = attributes
    for depth, tag in enumerate(path[:-1], 1):
        items = level.get(tag, {}).get("Value", [])
        index = choice[path[:depth]]
        if index >= len(items):
            return False
        level = items[index]
    vr = VRS[path[-1]]
    values = level.get(path[-1], {}).get("Value", [])
    parts = key.split("\\") if vr != "LT" else [key]
    if vr in ("UI", "CS"):
        parts = [piece for part in parts for piece in part.split(",")]
    return any(holds_value(vr, part, fuzzy, value) for part in parts if part.strip(" ") for value in values if value is not None)


def universal(vr: str, key: str) -> bool:
    ignored = " *^=" if vr == "PN" else " *"
    parts = key.split("\\") if vr != "LT" else [key]
    if vr in ("UI", "CS"):
        parts = [piece for part in parts for piece in part.split(",")]
    full = [part for part in parts if part.strip(" ")]
    return not full or any(all(c in ignored for c in part) for part in full) or all(c in ignored for c in key)


def holds_value(vr: str, key: str, fuzzy: bool, value: Any) -> bool:
    if vr in ("DA", "TM", "DT"):
        return holds_time(vr, key, value)
    if vr in ("IS", "US"):
        return int(key) == int(value)
    if vr == "PN":
        return holds_fuzzy_name(key, value) if fuzzy else holds_name(key, value)
    if vr == "LT":
        return wild(nfc(key).rstrip(" "), nfc(value).rstrip(" "))
    if vr == "UI":
        return bool(key.strip(" ") == value)
    return wild(nfc(key).strip(" "), nfc(value).strip(" "))


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def wild(key: str, text: str) -> bool:
    if not key:
        return not text
    if key[0] == "*":
        return any(wild(key[1:], text[n:]) for n in range(len(text) + 1))
    return bool(text) and key[0] in ("?", text[0]) and wild(key[1:], text[1:])


def plain_name(group: str) -> str:
    return nfc(nfc(group).casefold()).strip(" ").rstrip("^ ")


def holds_name(key: str, value: dict[str, str]) -> bool:
    stored = [plain_name(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
    wanted = [plain_name(group) for group in key.split("=")]
    if len(wanted) == 1:
        return any(group and holds_group(wanted[0], group) for group in stored)
    return len(wanted) <= 3 and all(not group or holds_group(group, stored[n]) for n, group in enumerate(wanted))


def holds_group(key: str, group: str) -> bool:
    return wild(key, group) or (key.endswith("^*") and wild(key[:-2].rstrip("^"), group))


def words(text: str) -> list[str]:
    bare = "".join(c for c in unicodedata.normalize("NFD", text.casefold()) if unicodedata.category(c) != "Mn")
    for separator in "^=,":
        bare = bare.replace(separator, " ")
    return nfc(bare).split()


def holds_fuzzy_name(key: str, value: dict[str, str]) -> bool:
    stored = words(" ".join(value.get(group, "").strip(" ") for group in ("Alphabetic", "Ideographic", "Phonetic")))
    return begin_different([word for word in words(key) if word.strip("*")], stored)


def begin_different(wanted: list[str], stored: list[str]) -> bool:
    if not wanted:
        return True
    return any(wild(wanted[0] + "*", word) and begin_different(wanted[1:], stored[:n] + stored[n + 1 :]) for n, word in enumerate(stored))


def holds_time(vr: str, key: str, value: str) -> bool:
    # The generator marks ranges by `~`: the twin need not tell the hyphen of a range from that of an offset, the engine has to.
    low, high = key.split("~") if "~" in key else (key, key)
    if vr != "DT":
        least, most = ("000000.000000", "235959.999999") if vr == "TM" else ("", "")
        at = value + least[len(value) :]
        return (not low or low + least[len(low) :] <= at) and (not high or at <= high + most[len(high) :])
    return (not low or shifted(value, low) >= instant(low, least=True)) and (not high or shifted(value, high) <= instant(high, least=False))


def shifted(value: str, bound: str) -> datetime:
    at = instant(value, least=True)
    if zone(value) is None or zone(bound) is None:
        return at
    return at - timedelta(hours=zone(value) or 0) + timedelta(hours=zone(bound) or 0)


def zone(text: str) -> int | None:
    return int(text[-5:-2]) if text[-5] in "+-" else None


def instant(text: str, least: bool) -> datetime:
    text = text[:-5] if text[-5] in "+-" else text
    filler = "20000101000000.000000" if least else "20001228235959.999999"  # the generator has no months or days without a zero day
    return datetime.strptime(text + filler[len(text) :], "%Y%m%d%H%M%S.%f")


# What it is compared on.

letters = st.text(alphabet="aAbé\u0301^ [*?.-", min_size=1, max_size=6)
plain_letters = st.text(alphabet="aAbé\u0301^ [.-", min_size=1, max_size=6)
name_letters = st.text(alphabet="aAé\u0301山^ ,", max_size=7)
numbers = st.integers(0, 12)
dates = st.builds("{:04}{:02}{:02}".format, st.integers(1999, 2001), st.sampled_from([1, 2, 12]), st.sampled_from([1, 15, 28]))
times = st.builds(
    lambda hour, minute, second, fraction, length: f"{hour:02}{minute:02}{second:02}.{fraction}"[:length],
    st.sampled_from([0, 9, 10, 23]),
    st.sampled_from([0, 30, 59]),
    st.sampled_from([0, 30, 59]),
    st.sampled_from(["000000", "5", "999999"]),
    st.sampled_from([2, 4, 6, 13]),
)
zones = st.sampled_from(["", "", "+0000", "+0200", "-0500"])
date_times = st.builds(lambda date, time, offset: date + time + offset, dates, times, zones)
names = st.fixed_dictionaries({}, optional={"Alphabetic": name_letters, "Ideographic": name_letters, "Phonetic": name_letters})
uids = st.sampled_from(["1.2", "1.2.3", "1.20"])

VALUES: dict[str, st.SearchStrategy[Any]] = {
    "UI": uids,
    "DA": dates,
    "TM": times,
    "DT": date_times,
    "CS": st.sampled_from(["CT", "MR", "C"]),
    "PN": names,
    "LO": letters,
    "LT": letters | st.just(" a\\b"),
    "SH": letters,
    "IS": numbers | numbers.map(str),
    "US": numbers,
}


def ranges(times: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return times | st.builds("{}~{}".format, times, times) | times.map("{}~".format) | times.map("~{}".format)


keys_of_names = st.text(alphabet="aAé\u0301山^= *?,", max_size=7)
KEYS: dict[str, st.SearchStrategy[str]] = {
    "UI": st.lists(uids | st.just("*"), max_size=3).map("\\".join) | st.lists(uids, min_size=1, max_size=3).map(",".join),
    "DA": ranges(dates) | st.just(""),
    "TM": ranges(times) | st.just("*"),
    "DT": ranges(date_times),
    "CS": st.sampled_from(["CT", "C*", "M?", "CT,MR", "MR\\CT", "", "?"]),
    "PN": keys_of_names,
    "LO": letters | st.lists(letters, max_size=3).map("\\".join),
    "LT": letters | st.just(" a\\b"),
    "SH": letters | st.just(""),
    "IS": numbers.map(str) | st.just("1\\2"),
    "US": numbers.map(str),
}


@st.composite
def objects(
    draw: st.DrawFn, tags: tuple[str, ...] = tuple(t for t in VRS if t not in ("00400007", "00400008", "00400009", "00080100"))
) -> Any:
    made = {}
    for tag in tags:
        vr = VRS[tag]
        if vr == "SQ":
            made[tag] = {"vr": vr, "Value": draw(st.lists(objects(SEQUENCES[tag]), max_size=3))}
        elif draw(st.integers(0, 4)):
            values = draw(st.lists(VALUES[vr] | st.none() if vr in ("PN", "LO", "CS") else VALUES[vr], max_size=2))
            made[tag] = {"vr": vr, "Value": values} if values else {"vr": vr}
    return made


PATHS: list[Path] = [(tag,) for tag in VRS if VRS[tag] != "SQ" and tag not in ("00400007", "00400009", "00080100")]
PATHS += [("00400275", "00400007"), ("00400275", "00400009"), ("00400275", "00400008", "00080100"), ("00400275", "00400008", "00400007")]


@st.composite
def queries(draw: st.DrawFn) -> dict[Path, str]:
    paths = draw(st.lists(st.sampled_from(PATHS), max_size=3, unique=True))
    return {path: draw(KEYS[VRS[path[-1]]]) for path in paths}


@settings(max_examples=400, deadline=None)
@given(queries(), objects(), st.booleans())
def test_the_engine_and_its_twin_agree(keys: dict[Path, str], attributes: dict[str, Any], fuzzy: bool) -> None:
    asked = {path: key.replace("~", "-") for path, key in keys.items()}
    expected = twin(keys, fuzzy, attributes)
    event(f"matches: {expected}")
    assert compile_keys(asked, fuzzy)(attributes) is expected


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_each_kind_of_value_agrees(data: st.DataObject) -> None:
    tag = data.draw(st.sampled_from([path[0] for path in PATHS if len(path) == 1]))
    vr = VRS[tag]
    key, values = data.draw(KEYS[vr]), data.draw(st.lists(VALUES[vr], min_size=1, max_size=2))
    assume(not universal(vr, key))
    fuzzy = vr == "PN" and data.draw(st.booleans())
    expected = twin({(tag,): key}, fuzzy, {tag: {"vr": vr, "Value": values}})
    event(f"{vr} matches: {expected}")
    assert compile_keys({(tag,): key.replace("~", "-")}, fuzzy)({tag: {"vr": vr, "Value": values}}) is expected


def holds_combined(date_key: str, time_key: str, date: str, time: str | None) -> bool:
    """Whether a moment lies between two moments, each written out in full."""
    (first_day, last_day), (first_time, last_time) = date_key.split("~"), time_key.split("~")
    low = first_day + (first_time + "000000.000000"[len(first_time) :])
    high = last_day + (last_time + "235959.999999"[len(last_time) :])
    at = date + ((time or "") + "000000.000000"[len(time or "") :])
    return (not first_day or low <= at) and (not last_day or at <= high)


@settings(max_examples=800, deadline=None)
@given(ranges(dates), ranges(times), dates, times | st.none())
def test_a_date_and_its_time_are_one_moment_where_that_is_asked_for(date_key: str, time_key: str, date: str, time: str | None) -> None:
    keys: dict[Path, str] = {("00080020",): date_key.replace("~", "-"), ("00080030",): time_key.replace("~", "-")}
    attributes: dict[str, Any] = {"00080020": {"vr": "DA", "Value": [date]}}
    if time is not None:
        attributes["00080030"] = {"vr": "TM", "Value": [time]}
    if "~" in date_key and "~" in time_key:
        expected = holds_combined(date_key, time_key, date, time)
    else:
        expected = holds_time("DA", date_key, date) and time is not None and holds_time("TM", time_key, time)
    event(f"matches: {expected}")
    assert compile_keys(keys, combined=True)(attributes) is expected
