"""The fields of a cron line: what each may hold, and on which days of a month a line fires."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import NamedTuple

from zwheel.errors import InvalidTime

NAMES = ("second", "minute", "hour", "day-of-month", "month", "day-of-week")
DAY, MONTH, WEEKDAY = 3, 4, 5
#: The lowest and the highest value of each field; both 0 and 7 are Sunday.
RANGES = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_WORDS: dict[int, tuple[str, ...]] = {
    MONTH: ("", "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"),
    WEEKDAY: ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT", "SUN"),
}
_HINTS = ("", "", "", ", L, LW or 15W", " or JAN to DEC", ", SUN to SAT, MON#2 or 5L; 0 and 7 are Sunday")
#: Days of the month that are no numbers: the last one, the last weekday, and from 50 on the weekday nearest to a day.
_LAST, _LAST_WEEKDAY, _NEAREST = 40, 41, 50
#: Days of the week that are no weekdays: 21 is the second Monday of a month, 91 the last one.
_NTH, _LAST_OF_ITS_KIND = 10, 90
#: The longest months.
LONGEST = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


class Field(NamedTuple):
    """One field, read."""

    values: tuple[int, ...]
    """Rising; days that are no numbers by the codes above."""
    text: str
    """The same in numbers, without ranges that go over the end, for the reading in words."""
    rhythm: bool
    """Whether it goes on to its end without a break: `*`, `*/5`, `0/5`, or all of its values."""
    step: int = 1
    """The largest step of it."""

    @property
    def full(self) -> bool:
        """Whether it names all of its values."""
        return self.text == "*"


@lru_cache(maxsize=4096)
def read_field(text: str, position: int) -> Field:
    """Read a field in capital letters. Raises: InvalidTime that names what is wrong in it."""
    parts = [_term(term, position) for term in text.split(",")]
    values = tuple(sorted({value for part in parts for value in part.values}))
    low, high = RANGES[position]
    full = set(range(low, high if position == WEEKDAY else high + 1)) <= set(values)
    if full and position < DAY:
        return Field(values, "*", True)
    step = max(part.step for part in parts)
    return Field(values, ",".join(part.text for part in parts), any(part.rhythm for part in parts), step)


def _term(term: str, position: int) -> Field:
    special = _special(term, position)
    if special is not None:
        return Field((special,), term, False)
    base, slash, step_text = term.partition("/")
    step = _number(step_text, term, position) if slash else 1
    if step == 0:
        raise InvalidTime(f"{term} has a step of 0: write a step of 1 or more")
    low, high = RANGES[position]
    first_text, dash, last_text = base.partition("-")
    if base == "*":
        first, last = low, high - (position == WEEKDAY)
    else:
        first = _value(first_text, term, position)
        last = _value(last_text, term, position) if dash else high if slash else first
    values, pieces = _range(first, last, term, position)
    values = values[::step]
    rhythm = base == "*" or (bool(slash) and not dash)
    if slash and len(values) <= 2:
        text = ",".join(map(str, values))
    elif base == "*":
        text = "*" if step == 1 else f"*/{step}"
    elif step == 1 or len(pieces) == 1:
        text = ",".join(pieces) + (f"/{step}" if step > 1 else "")
    else:
        text = ",".join(map(str, values))
    if position == WEEKDAY:
        values = [value % 7 for value in values]
    return Field(tuple(values), text, rhythm, step)


def _range(first: int, last: int, term: str, position: int) -> tuple[list[int], list[str]]:
    """The values of a range in its order, and it in pieces that do not go over the end of a week or a year."""
    low, high = RANGES[position]
    if position == WEEKDAY and last < first == 7:
        first = 0
    if position == WEEKDAY and last == 0 < first:
        last = 7
    if first <= last:
        return list(range(first, last + 1)), [str(first) if first == last else f"{first}-{last}"]
    before = f"{first}" if first == high else f"{first}-{high}"
    if position not in (MONTH, WEEKDAY):
        after = f"{last}" if last == low else f"{low}-{last}"
        raise InvalidTime(f"{term} ends before it begins: if it goes over the end of the field, write {before},{after}")
    low = 1  # Sunday, 7, is in the first piece
    values = [*range(first, high + 1), *range(low, last + 1)]
    return values, [before, f"{last}" if last == low else f"{low}-{last}"]


def _special(term: str, position: int) -> int | None:
    """The code of a day that is no number; None for a plain term."""
    if position == DAY:
        if term in ("L", "LW"):
            return _LAST if term == "L" else _LAST_WEEKDAY
        found = re.fullmatch(r"(\d{1,2})W", term)
        return _NEAREST + int(found[1]) if found and 1 <= int(found[1]) <= 31 else None
    if position == WEEKDAY:
        found = re.fullmatch(r"([A-Z0-9]+?)(?:#([1-5])|L)", term)
        if found is not None:
            weekday = _value(found[1], term, position) % 7
            return weekday + (int(found[2]) * _NTH if found[2] else _LAST_OF_ITS_KIND)
    return None


def _value(text: str, term: str, position: int) -> int:
    names = _WORDS.get(position, ())
    if text and text in names:
        return names.index(text)
    value = _number(text, term, position)
    low, high = RANGES[position]
    if not low <= value <= high:
        raise _wrong(term, position)
    return value


def _number(text: str, term: str, position: int) -> int:
    if not text.isdigit() or not text.isascii() or len(text) > 4:
        raise _wrong(term, position)
    return int(text)


def _wrong(term: str, position: int) -> InvalidTime:
    low, high = RANGES[position]
    shown = ascii(term)[:40]
    return InvalidTime(f"it has a bad {NAMES[position]}: {shown} is none of {low} to {high}{_HINTS[position]}")


@lru_cache(maxsize=4096)
def days_of(days: tuple[int, ...], weekdays: tuple[int, ...], both: bool, first: int, last: int) -> tuple[int, ...]:
    """The days of a month on which a line fires.

    both: a day must be among the days and among the weekdays; otherwise one of them is enough. first: the weekday of
    the first of the month, 0 for Monday. last: its number of days.
    """
    wanted = {day for day in days if day <= last}
    if _LAST in days:
        wanted.add(last)
    if _LAST_WEEKDAY in days:
        wanted.add(_nearest(last, first, last))
    wanted |= {_nearest(day - _NEAREST, first, last) for day in days if _NEAREST < day <= _NEAREST + last}
    found = []
    for day in range(1, last + 1):
        weekday = (first + day) % 7
        codes = {weekday, weekday + (day + 6) // 7 * _NTH}
        if day + 7 > last:
            codes.add(weekday + _LAST_OF_ITS_KIND)
        named = not codes.isdisjoint(weekdays)
        if (day in wanted and named) if both else (day in wanted or named):
            found.append(day)
    return tuple(found)


def _nearest(day: int, first: int, last: int) -> int:
    """The day of the same month that is Monday to Friday and nearest to a day."""
    weekday = (first + day) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < last else day - 2
    return day


@lru_cache(maxsize=4096)
def ever_fires(days: tuple[int, ...], weekdays: tuple[int, ...], both: bool, months: tuple[int, ...]) -> bool:
    """Whether any month of any year has such a day. In 400 years each month begins on each day of the week."""
    lengths = {length for month in months for length in {LONGEST[month], 28 if month == 2 else LONGEST[month]}}
    return any(days_of(days, weekdays, both, first, last) for last in lengths for first in range(7))
