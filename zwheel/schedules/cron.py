"""Cron lines: checked, read back in words, and walked as pure wall-clock times.

cronsim parses and walks them. It gets naive datetimes, so that it knows nothing of zones: gaps and folds are the
business of `zones`, alike for lines of five and of six fields.
"""

from __future__ import annotations

import calendar
import copy
import hashlib
import re
from collections.abc import Iterator
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

from cronsim import CronSim, CronSimError

from zwheel.errors import InvalidTime

_LONGEST = 256
ALIASES = {
    "@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}  # fmt: skip
_FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
_LOWEST, _HIGHEST = (0, 0, 0, 1, 1, 0), (59, 59, 23, 28, 12, 6)
_NEAREST = re.compile(r"(\d{1,2})W\Z")
_HASHED = re.compile(r"H(?:\((\d{1,2})-(\d{1,2})\))?(?:/(\d{1,2}))?\Z")
#: Probed from here when a line is read: a leap year, so that the 29th of February is near.
_PROBE = datetime(2024, 1, 1)  # noqa: DTZ001 - wall times have no zone
_NO_PARTS: list[str] = []
#: The sets of values that the fields of lines name: equal ones are one. What no line has any more goes away.
_fields: WeakValueDictionary[frozenset[Any], frozenset[Any]] = WeakValueDictionary()


class CronLine:
    """One line, ready to be walked. Read with `parse`."""

    __slots__ = ("_expression", "_nearest", "_sim", "fixed", "seconds", "text")

    def __init__(self, text: str, expression: str, nearest: int | None, sim: CronSim) -> None:
        self.text = text
        fields = expression.split()
        #: Whether it has six fields, with seconds first.
        self.seconds = len(fields) == 6
        clock = fields[:3] if self.seconds else fields[:2]
        #: Whether it names fixed times: no field of its seconds, minutes and hours starts with `*`. As in Debian's cron.
        self.fixed = not any(field.startswith("*") for field in clock)
        self._expression = expression
        self._nearest = nearest
        self._sim = _lean(sim)

    @property
    def words(self) -> str:
        """The line in English."""
        if self._nearest is None:
            return str(CronSim(self._expression, _PROBE).explain())
        *clock, _, month, weekday = self._expression.split()
        plain = CronSim(" ".join([*clock, "*", month, weekday]), _PROBE)
        return f"{plain.explain()}, on the weekday nearest to day {self._nearest} of the month"

    @staticmethod
    def parse(text: str, name: str = "") -> CronLine:
        """Read a line of five fields, of six with seconds first, or an alias. name: what `H` is hashed from.

        Raises: InvalidTime in one sentence, also for a line that never fires.
        """
        return _parsed(text, name if isinstance(text, str) and "h" in text.lower() else "")

    def walls(self, after: datetime) -> Iterator[datetime]:
        """Give the wall times it names, strictly after a naive one, rising; ends when none follows within 50 years."""
        sim = copy.copy(self._sim)
        sim.dt = after.replace(microsecond=0)
        try:
            for wall in sim:
                if self._nearest is None or wall.day == _nearest_weekday(wall, self._nearest):
                    yield wall
        except (OverflowError, ValueError):
            return


@lru_cache(maxsize=4096)
def _parsed(text: str, name: str) -> CronLine:
    if not isinstance(text, str) or len(text) > _LONGEST:
        raise InvalidTime(f"a cron line has at most {_LONGEST} characters")
    shown = ascii(text)
    given = text.strip()
    if given.startswith("@"):
        if given.lower() == "@reboot":
            raise InvalidTime(
                "'@reboot' has no time: workers start and stop at will, so run it from the program that should start it"
            )
        if given.lower() not in ALIASES:
            raise InvalidTime(f"{shown} is none of {', '.join(ALIASES)} and @every <duration>")
        given = ALIASES[given.lower()]
    fields = given.upper().split()
    if len(fields) == 7:
        raise InvalidTime(f"{shown} has 7 fields: a year is not supported, give --end or end= instead")
    if len(fields) not in (5, 6) or not given.isascii():
        raise InvalidTime(
            f"{shown} is not a cron line: it takes 5 fields (minute hour day-of-month month day-of-week), "
            "or 6 with seconds first"
        )
    full = fields if len(fields) == 6 else ["0", *fields]
    full = [_hashed(field, i, name, shown) for i, field in enumerate(full)]
    for i in (3, 5):
        full[i] = "*" if full[i] == "?" else full[i]
    nearest = None
    if found := _NEAREST.match(full[3]):
        nearest = int(found[1])
        if not 1 <= nearest <= 31:
            raise InvalidTime(f"{shown}: {full[3]} is not the weekday nearest to a day of 1 to 31")
        if full[5] != "*":
            raise InvalidTime(f"{shown}: {full[3]} goes with every day of the week only: put * or ? there")
        full[3] = f"{max(1, nearest - 2)}-{min(31, nearest + 2)}"
    elif "W" in full[3].replace("LW", ""):
        raise InvalidTime(f"{shown}: W stands behind a single day (15W), or as LW for the last weekday of the month")
    expression = " ".join(full if len(fields) == 6 else full[1:])
    try:
        sim = CronSim(expression, _PROBE)
    except CronSimError as error:
        raise InvalidTime(_reason(shown, expression, str(error))) from None
    line = CronLine(given, expression, nearest, sim)
    if next(line.walls(_PROBE), None) is None:
        raise InvalidTime(f"{shown} never fires")
    return line


def _reason(shown: str, expression: str, error: str) -> str:
    fields = expression.split()
    fields[-2] = "*"
    if error == "Bad day-of-month":
        try:
            CronSim(" ".join(fields), _PROBE)
        except CronSimError:
            pass
        else:
            return f"{shown} never fires: no month of it has that day"
    return f"{shown} is not a cron line: {error.lower().replace('bad ', 'it has a bad ')}"


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
        raise InvalidTime(f"{shown}: {field} steps by more than the {_FIELDS[position]} has")
    values = range(low + drawn % step, high + 1, step)
    text = ",".join(map(str, values))
    # Like */15 it keeps its rhythm over a change of clocks: the star says so.
    return f"*/{step}" if text == ",".join(map(str, range(low, high + 1, step))) else text


@lru_cache(maxsize=1024)
def _nearest(year: int, month: int, day: int) -> int:
    last = calendar.monthrange(year, month)[1]
    if day > last:
        return 0
    weekday = date(year, month, day).weekday()
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < last else day - 2
    return day


def _nearest_weekday(wall: datetime, day: int) -> int:
    """The day of this month that is Monday to Friday and nearest to `day`; 0 where the month has no such day."""
    return _nearest(wall.year, wall.month, day)


def _lean(sim: CronSim) -> CronSim:
    """Let equal fields be one set: thousands of lines are kept, and a collection of garbage looks at each of them."""
    sim.parts = _NO_PARTS
    for field in ("seconds", "minutes", "hours", "days", "months", "weekdays"):
        values = frozenset(getattr(sim, field))
        setattr(sim, field, _fields.setdefault(values, values))
    return sim
