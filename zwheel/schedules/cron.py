"""Cron lines: checked, read back in words, and walked as pure wall-clock times.

A line is walked day by day, on naive datetimes, so that it knows nothing of zones: gaps and folds are the business of
`zones`, alike for lines of five and of six fields. A search costs the same for every line: it looks at months, of which
a line has at most 612 in the 51 years that are looked at, and never at the seconds between.
"""

from __future__ import annotations

import calendar
import hashlib
import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache

from cronsim.explain import Expression

from zwheel.errors import InvalidTime
from zwheel.schedules import foreign
from zwheel.schedules.fields import DAY, MONTH, NAMES, WEEKDAY, Field, days_of, ever_fires, read_field

_LONGEST = 256
ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_LOWEST, _HIGHEST = (0, 0, 0, 1, 1, 0), (59, 59, 23, 28, 12, 6)
_HASHED = re.compile(r"H(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,2}))?\Z")
#: Ordinals that cronsim calls 21th, 22th, 23th.
_ORDINAL = re.compile(r"\b([2-9][123])th\b")
_NEAREST = re.compile(r"(\d{1,2})W\Z")
_ALL_WEEKDAYS, _ALL_MONTHS = tuple(range(7)), tuple(range(1, 13))
#: No line is silent for longer: the 29th of February on a given weekday can take 40 years.
_YEARS = 50
_LAST_YEAR = 9999


class CronLine:
    """One line, ready to be walked. Read with `parse`."""

    __slots__ = ("_both", "_fields", "fixed", "notes", "seconds", "text")

    def __init__(self, text: str, fields: tuple[Field, ...], seconds: bool, both: bool, notes: tuple[str, ...]) -> None:
        self.text = text
        #: Whether it has six fields, with seconds first.
        self.seconds = seconds
        clock = fields[:3] if seconds else fields[1:3]
        #: Whether it names fixed times. Otherwise it is a rhythm: a field of its seconds, minutes and hours goes on to its
        #: end, as `*`, `*/5`, `0/5` or `0-59` do.
        self.fixed = not any(field.rhythm for field in clock)
        #: What a person should know of how it was read, in sentences.
        self.notes = notes
        self._fields = fields
        self._both = both

    @property
    def words(self) -> str:
        """The line in English."""
        texts = [field.text for field in self._fields[0 if self.seconds else 1 :]]
        nearest = texts[-3][:-1] if _NEAREST.match(texts[-3]) else ""
        if nearest:
            texts[-3] = "*"
        said = _Words(texts, self._both).explain().replace("day of month", "day of the month")
        said = _ORDINAL.sub(lambda found: found[1] + {"1": "st", "2": "nd", "3": "rd"}[found[1][-1]], said)
        return f"{said}, on the weekday nearest to day {nearest} of the month" if nearest else said

    @property
    def times_a_day(self) -> int:
        """How many times of day it names."""
        return len(self._fields[0].values) * len(self._fields[1].values) * len(self._fields[2].values)

    @staticmethod
    def parse(text: str, name: str = "") -> CronLine:
        """Read a line of five fields, of six with seconds first, or an alias. name: what `H` is hashed from.

        Raises: InvalidTime in one sentence, also for a line that never fires.
        """
        return _parsed(text, name if isinstance(text, str) and "h" in text.lower() else "")

    def walls(self, after: datetime) -> Iterator[datetime]:
        """Give the wall times it names, strictly after a naive one, rising; ends when none follows within 50 years."""
        if after.year > _LAST_YEAR - 1:
            return
        low = after.replace(microsecond=0) + timedelta(seconds=1)
        seconds, minutes, hours = (field.values for field in self._fields[:3])
        for year, month, day in self._days(low):
            begins = (low.year, low.month, low.day) == (year, month, day)
            for hour in hours[bisect_left(hours, low.hour) :] if begins else hours:
                now = begins and hour == low.hour
                for minute in minutes[bisect_left(minutes, low.minute) :] if now else minutes:
                    sharp = now and minute == low.minute
                    for second in seconds[bisect_left(seconds, low.second) :] if sharp else seconds:
                        yield datetime(year, month, day, hour, minute, second)  # noqa: DTZ001 - wall times have no zone

    def _days(self, low: datetime) -> Iterator[tuple[int, int, int]]:
        """Give its days from that of `low` on; ends when none follows within 50 years."""
        days, months, weekdays = (field.values for field in self._fields[3:])
        year, until = low.year, low.year + _YEARS
        while year <= min(until, _LAST_YEAR):
            for month in months:
                if year == low.year and month < low.month:
                    continue
                begins = low.day if (year, month) == (low.year, low.month) else 1
                for day in days_of(days, weekdays, self._both, *calendar.monthrange(year, month)):
                    if day >= begins:
                        yield year, month, day
                        until = year + _YEARS
            year += 1


class _Words(Expression):
    """The English of cronsim, where either of two kinds of days is enough."""

    def __init__(self, parts: list[str], both: bool) -> None:
        super().__init__(parts)
        self.day_and = both

    def translate_date(self, allow_every_day: bool) -> str:
        if self.day_and:
            return super().translate_date(allow_every_day)
        days = "every day" if self.day.star or self.dow.star else f"{self.day} or {self.dow}"
        return days if self.month.star else f"{days}, {self.month}"


@lru_cache(maxsize=4096)
def _parsed(text: str, name: str) -> CronLine:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidTime(f"a cron line has at most {_LONGEST} characters")
    shown = ascii(text)
    given = _plain(text, shown)
    fields = given.upper().split()
    if len(fields) not in (5, 6) or not given.isascii():
        raise InvalidTime(
            f"{shown} is not a cron line: it takes 5 fields (minute hour day-of-month month day-of-week), "
            "or 6 with seconds first"
        )
    seconds = len(fields) == 6
    full = fields if seconds else ["0", *fields]
    full = ["*" if field == "?" and i in (DAY, WEEKDAY) else field for i, field in enumerate(full)]
    drawn = [_hashed(field, i, name, shown) for i, field in enumerate(full)]
    hashed, full = drawn != full, drawn
    _check_nearest(full, shown)
    try:
        read = tuple(read_field(field, i) for i, field in enumerate(full))
    except InvalidTime as error:
        raise InvalidTime(f"{shown} is not a cron line: {error}") from None
    # As in Debian's cron: with a star before either of them both must hold, otherwise one of them is enough.
    both = full[DAY].startswith("*") or full[WEEKDAY].startswith("*")
    if not ever_fires(read[DAY].values, read[WEEKDAY].values, both, read[MONTH].values):
        raise InvalidTime(f"{shown} never fires: {_contradiction(full, read)}")
    notes = [*_step_notes(full, read), *foreign.notes(fields)]
    if hashed:
        line = " ".join(full if seconds else full[1:])
        notes.append(f"H stands for a number drawn from the schedule's name: for {name!a} it is read as {line!r}")
    return CronLine(given, read, seconds, both, tuple(notes))


def _plain(text: str, shown: str) -> str:
    """The fields of a line: an alias and a year of `*` are gone. Raises: InvalidTime for what is no line here."""
    given = text.strip()
    if given.startswith("@"):
        if given.lower() == "@reboot":
            raise InvalidTime(
                "'@reboot' has no time: workers start and stop at will, so run it from the program that should start it"
            )
        if given.lower() not in ALIASES:
            raise InvalidTime(f"{shown} is none of {', '.join(ALIASES)} and @every <duration>")
        return ALIASES[given.lower()]
    if f"@{given.lower()}" in ALIASES:
        raise InvalidTime(f"{shown} is not a cron line: write '@{given.lower()}'")
    cure = foreign.cure(given)
    if cure:
        raise InvalidTime(f"{shown} {cure}")
    fields = given.split()
    return " ".join(fields[:6]) if len(fields) == 7 and fields[6] == "*" else given


def _check_nearest(full: list[str], shown: str) -> None:
    if "W" not in full[DAY].replace("LW", ""):
        return
    found = _NEAREST.match(full[DAY])
    if found is None:
        raise InvalidTime(f"{shown}: W stands behind a single day (15W), or as LW for the last weekday of the month")
    if not 1 <= int(found[1]) <= 31:
        raise InvalidTime(f"{shown}: {full[DAY]} is not the weekday nearest to a day of 1 to 31")
    if full[WEEKDAY] != "*":
        raise InvalidTime(f"{shown}: {full[DAY]} goes with every day of the week only: put * or ? there")


def _contradiction(full: list[str], read: tuple[Field, ...]) -> str:
    """Say which fields of a line that never fires contradict each other."""
    day, month, weekday = (f"{NAMES[i]} {full[i]}" for i in (DAY, MONTH, WEEKDAY))
    if not ever_fires(read[DAY].values, _ALL_WEEKDAYS, True, read[MONTH].values):
        return f"{day} contradicts {month}, no such month has that day"
    if not ever_fires(read[DAY].values, read[WEEKDAY].values, True, _ALL_MONTHS):
        return f"{day} contradicts {weekday}, no day is both"
    return f"{day}, {month} and {weekday} contradict each other, no day is all of them"


def _step_notes(full: list[str], read: tuple[Field, ...]) -> list[str]:
    """Warn of steps that do not go on over the end of an hour, a day or a minute."""
    found = []
    for i, (size, unit, whole) in enumerate(((60, "s", "minute"), (60, "m", "hour"), (24, "h", "day"))):
        step, values = read[i].step, read[i].values
        if step == 1 or size % step == 0 or not read[i].rhythm:
            continue
        every = all(field.full for field in read[i + 1 :])
        cure = f"; for every {step} {NAMES[i]}s write '@every {step}{unit}'" if every else ""
        only = f", so it is {NAMES[i]} {values[0]} only" if len(values) == 1 else ""
        found.append(f"{full[i]} begins anew with each {whole}{only}{cure}")
    return found


def _hashed(field: str, position: int, name: str, shown: str) -> str:
    """Put a number for `H`: always the same for a schedule, another for another, so that they do not start together."""
    if "H" not in field or position == 4:
        return field
    found = _HASHED.match(field)
    if found is None:
        if "THU" in field and position == 5:
            return field
        raise InvalidTime(f"{shown}: H stands alone, as H/15 or as H(0-29)")
    low, high = _LOWEST[position], _HIGHEST[position]
    if found[1] is not None:
        low, high = int(found[1]), int(found[2])
        if high < low:
            raise InvalidTime(f"{shown}: {field} ends before it begins")
    drawn = int.from_bytes(hashlib.blake2s(f"{name}/{position}".encode(), digest_size=8).digest(), "big")
    if found[3] is None:
        return str(low + drawn % (high - low + 1))
    step = int(found[3])
    if not 1 <= step <= high - low + 1:
        raise InvalidTime(f"{shown}: {field} steps by more than the {NAMES[position]} has")
    first = low + drawn % step
    if found[1] is None and position < DAY:
        return f"{first}/{step}"  # like */15 it keeps its rhythm over a change of clocks
    return ",".join(map(str, range(first, high + 1, step)))
