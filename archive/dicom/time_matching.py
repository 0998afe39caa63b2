"""Matching of dates and times: single values and ranges (DICOM PS3.4 C.2.2.2.1 and C.2.2.2.5).

A value stands for the whole span of its precision: the key `10` for TM means every instant from 10:00:00.000000 to
10:59:59.999999. A stored value is taken at its first instant. So a single key matches what lies inside its span, and a range
matches from the first instant of its low end to the last instant of its high end. A date and its time (StudyDate and StudyTime) are
matched each by itself, or, where a peer negotiated it, combined: `20200101-20200103` and `1000-1200` then mean from ten o'clock on the
first day to noon on the third.
"""

import re
from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

_TIME = r"(\d\d)(?::?(\d\d)(?::?(\d\d)(?:\.(\d{1,6}))?)?)?"
_DATE_PATTERN = re.compile(r"(\d{4})(\.?)(\d\d)\2(\d\d)", re.ASCII)
_TIME_PATTERN = re.compile(_TIME, re.ASCII)
_DATE_TIME_PATTERN = re.compile(r"(\d{4})(?:(\d\d)(?:(\d\d)(?:" + _TIME.replace(":?", "") + r")?)?)?([+-]\d{4})?", re.ASCII)

_OFFSET_MINUTES = range(-12 * 60, 14 * 60 + 1)


class Span(NamedTuple):
    """What one date, time or date-time value covers: `first` to `last` in microseconds, both included.

    `offset` is the offset from UTC in microseconds where the value states one; else None, and the value is wall-clock time.
    """

    first: int
    last: int
    offset: int | None = None


def parse_date(text: str) -> Span | None:
    """The day of a DA value (`YYYYMMDD`, or `YYYY.MM.DD` as before DICOM 3.0); None where it is no date."""
    found = _DATE_PATTERN.fullmatch(text)
    return _day_span(found[1], found[3], found[4]) if found else None


def parse_time(text: str) -> Span | None:
    """The span of a TM value (`HH[MM[SS[.FFFFFF]]]`, colons tolerated) since midnight; None where it is no time."""
    found = _TIME_PATTERN.fullmatch(text)
    return _time_span(found[1], found[2], found[3], found[4]) if found else None


def parse_date_time(text: str) -> Span | None:
    """The span of a DT value (`YYYY[MM[DD[HH[MM[SS[.FFFFFF]]]]]][&ZZXX]`); None where it is no date-time."""
    found = _DATE_TIME_PATTERN.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    offset = None
    if zone:
        minutes = int(zone[0] + "1") * (int(zone[1:3]) * 60 + int(zone[3:]))
        if int(zone[3:]) > 59 or minutes not in _OFFSET_MINUTES:
            return None
        offset = minutes * MINUTE
    span = _day_span(year, month, day)
    if span is None:
        return None
    if hour is None:
        return Span(span.first, span.last, offset)
    time = _time_span(hour, minute, second, fraction)
    return Span(span.first + time.first, span.first + time.last, offset) if time else None


def _day_span(year: str, month: str | None, day: str | None) -> Span | None:
    try:
        first = date(int(year), int(month or 1), int(day or 1))
        if day:
            last = first.toordinal()
        elif month:
            last = first.toordinal() + monthrange(first.year, first.month)[1] - 1
        else:
            last = date(first.year, 12, 31).toordinal()
    except ValueError:
        return None
    return Span(first.toordinal() * DAY, (last + 1) * DAY - 1)


def _time_span(hour: str, minute: str | None, second: str | None, fraction: str | None) -> Span | None:
    if int(hour) > 23 or int(minute or 0) > 59 or int(second or 0) > 60:  # 60 is a leap second
        return None
    unit = 10 ** (6 - len(fraction)) if fraction else SECOND if second else MINUTE if minute else HOUR
    first = int(hour) * HOUR + int(minute or 0) * MINUTE + int(second or 0) * SECOND + int((fraction or "").ljust(6, "0"))
    return Span(first, first + unit - 1)


_PARSERS: dict[str, Callable[[str], Span | None]] = {"DA": parse_date, "TM": parse_time, "DT": parse_date_time}


@dataclass(frozen=True, slots=True)
class Range:
    """A key of VR DA, TM or DT; an open end is None."""

    parse: Callable[[str], Span | None]
    low: Span | None
    high: Span | None

    def __call__(self, value: object) -> bool:
        """Whether the stored text lies in the range; text that is no date or time never does."""
        span = self.parse(value.strip(" \0")) if isinstance(value, str) else None
        if span is None:
            return False
        if self.low is not None and _shift(span, self.low) < self.low.first:
            return False
        return self.high is None or _shift(span, self.high) <= self.high.last


def _shift(stored: Span, bound: Span) -> int:
    """The first instant of `stored` on the clock of `bound`; where one states no offset both are wall-clock time."""
    if stored.offset is None or bound.offset is None:
        return stored.first
    return stored.first - stored.offset + bound.offset


def compile_range(vr: str, text: str) -> Range:
    """The test of a single value or range key.

    Parameters
    ----------
    vr : str
        DA, TM or DT.
    text : str
        `a`, `a-b`, `a-` or `-b`. In a DT key, `-` and four digits behind a value are its offset from UTC where they
        can be one, else the start of the high end.

    Raises
    ------
    ValueError
        The key is none of these.
    """
    parse = _PARSERS[vr]
    text = text.strip(" \0")
    single = parse(text)
    if single is not None:
        return Range(parse, single, single)
    for hyphen in (i for i, character in enumerate(text) if character == "-"):
        low, high = text[:hyphen].strip(), text[hyphen + 1 :].strip()
        spans = parse(low), parse(high)
        if (low or high) and all(span or not part for span, part in zip(spans, (low, high), strict=True)):
            return Range(parse, *spans)
    raise ValueError(f"{text!r} is no {vr} value or range")


@dataclass(frozen=True, slots=True)
class CombinedRange:
    """Keys of a date and its time together; an open end is None, others are microseconds, both included."""

    low: int | None
    high: int | None

    def __call__(self, date_value: object, time_value: object) -> bool:
        """Whether the instant that stored texts name lies in the range; a date without a time is taken at midnight."""
        day = parse_date(date_value.strip(" \0")) if isinstance(date_value, str) else None
        if day is None:
            return False
        time = parse_time(time_value.strip(" \0")) if isinstance(time_value, str) else None
        at = day.first + (time.first if time else 0)
        return (self.low is None or at >= self.low) and (self.high is None or at <= self.high)


def compile_combined(date_key: str, time_key: str) -> CombinedRange | None:
    """The test of a date key and a time key together (PS3.4 C.2.2.2.5.3); None where they are not two ranges.

    An end of the range has the time key's end on its own day; without one it is the whole day.

    Raises
    ------
    ValueError
        A key is no range.
    """
    if parse_date(date_key.strip(" \0")) or parse_time(time_key.strip(" \0")):
        return None
    dates, times = compile_range("DA", date_key), compile_range("TM", time_key)
    low = dates.low.first + (times.low.first if times.low else 0) if dates.low else None
    high = dates.high.first + (times.high.last if times.high else DAY - 1) if dates.high else None
    return CombinedRange(low, high)
