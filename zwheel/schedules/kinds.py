"""The kinds of rhythm, as people write them, as they are stored, and in words."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any

from zwheel.errors import InvalidTime
from zwheel.schedules.cron import CronLine
from zwheel.schedules.zones import Fold, Gap, place
from zwheel.times import to_datetime, to_ms

LEAST_EVERY_MS = 1000
_DAY_MS = 86_400_000
MOST_EVERY_MS = 3660 * _DAY_MS
MOST_TIMES = 1000
_LONGEST = 40_000
WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WEEKDAY_WORDS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
UNITS = ("days", "weeks", "months", "years")
_DURATION = re.compile(
    r"(?:(\d{1,6})w)?(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,7})m)?(?:(\d{1,9})s)?(?:(\d{1,12})ms)?\Z"
)
_INTERVAL = re.compile(
    r"every\s+(?:(?P<every>\d{1,4})\s+)?(?P<unit>days?|weeks?|months?|years?)"
    r"(?:\s+on\s+(?P<on>[a-z0-9, ]+?))?(?:\s+at\s+(?P<at>[0-9:, ]+?))?(?:\s+from\s+(?P<start>\d{4}-\d{2}-\d{2}))?\Z"
)
_WEEKDAYS = re.compile(
    r"every\s+(?:week|working|work|business)\s*days?(?:\s+at\s+(?P<hour>\d{1,2}):(?P<minute>\d{2}))?\Z"
)
#: A rhythm that does not follow the wall clock, in words: `every 90 minutes`, `every hour`, `every 1h30m`.
_SPAN = re.compile(
    r"every\s+(?:(?P<count>\d{1,9})\s*)?(?P<unit>h|m|s)(?:ours?|rs?|inutes?|ins?|econds?|ecs?)\Z|every\s+(?P<span>[\dhms]+)\Z"
)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\Z")
_EXAMPLES = (
    "'0 9 * * MON-FRI', '*/10 * * * * *', '@daily', '@every 90s', 'every 90 minutes', "
    "'every 2 weeks on tue at 09:00 from 2026-11-24' or 'at 2026-12-01T09:00Z'"
)


@dataclass(frozen=True, slots=True)
class Cron:
    """A cron line of five fields, of six with seconds first, or an alias."""

    text: str


@dataclass(frozen=True, slots=True)
class Every:
    """Every so many ms since the schedule was made."""

    ms: int


@dataclass(frozen=True, slots=True)
class Interval:
    """Every so many days, weeks, months or years, at times of day."""

    every: int
    unit: str
    on: tuple[int, ...] = ()
    """Weeks: 0 Monday to 6 Sunday. Months: 1 to 31, -1 for the last day. Empty: the day of `start`."""
    at: tuple[str, ...] = ("00:00",)
    """Times of day, HH:MM or HH:MM:SS, rising."""
    start: str = "1970-01-05"
    """The day that it counts from, YYYY-MM-DD."""

    def walls(self, after: datetime) -> Iterator[datetime]:
        """Give its wall times strictly after a naive one, rising."""
        times = [_time(text) for text in self.at]
        for day in self._days(after.date()):
            for at in times:
                wall = datetime.combine(day, at)
                if wall > after:
                    yield wall

    def _days(self, first: date) -> Iterator[date]:
        start = date.fromisoformat(self.start)
        try:
            if self.unit == "days":
                day = start + timedelta(days=-(-max(0, (first - start).days) // self.every) * self.every)
                while True:
                    yield day
                    day += timedelta(days=self.every)
            elif self.unit == "weeks":
                yield from self._weeks(first, start)
            else:
                yield from self._months(first, start)
        except OverflowError:
            return

    def _weeks(self, first: date, start: date) -> Iterator[date]:
        monday = start - timedelta(days=start.weekday())
        passed = max(0, (first - monday).days // 7) // self.every
        week = monday + timedelta(weeks=passed * self.every)
        while True:
            for weekday in self.on or (start.weekday(),):
                day = week + timedelta(days=weekday)
                if day >= max(first, start):
                    yield day
            week += timedelta(weeks=self.every)

    def _months(self, first: date, start: date) -> Iterator[date]:
        step = self.every * (12 if self.unit == "years" else 1)
        begin = start.year * 12 + start.month - 1
        number = begin + max(0, (first.year * 12 + first.month - 1 - begin) // step) * step
        while number < 9999 * 12:
            year, month = divmod(number, 12)
            last = calendar.monthrange(year, month + 1)[1]
            days = {last if wanted == -1 else wanted for wanted in self.on or (start.day,)}
            for day in sorted(days):
                if day <= last and date(year, month + 1, day) >= max(first, start):
                    yield date(year, month + 1, day)
            number += step


@dataclass(frozen=True, slots=True)
class Times:
    """Given instants, ms since the epoch, rising."""

    times_ms: tuple[int, ...]


Kind = Cron | Every | Interval | Times


def kind_from_text(text: str, tz: str | None = None) -> Kind:
    """Read a rhythm as a person writes it. tz: the zone of given times that name none; None: they are refused.

    Raises: InvalidTime in one sentence, also for a rhythm that never fires.
    """
    if not isinstance(text, str) or not text.strip() or len(text) > _LONGEST:
        raise InvalidTime(f"when does it fire? Write {_EXAMPLES}")
    given = " ".join(text.split()) if text.isprintable() else text
    lower = given.lower()
    if found := _SPAN.match(lower.removeprefix("@")):
        span = found["span"] or f"{found['count'] or 1}{found['unit']}"
        return Every(_every_ms(span, given))
    if lower.startswith("@every"):
        return Every(_every_ms(lower.removeprefix("@every").strip(), given))
    if lower.startswith("every"):
        return _interval(lower, given)
    if lower.startswith("at "):
        return Times(_times(given[3:], tz))
    CronLine.parse(given)
    return Cron(given)


def _every_ms(text: str, given: str) -> int:
    found = _DURATION.match(text.replace(" ", ""))
    parts = found.groups() if found and text else (None,) * 6
    units = (7 * _DAY_MS, _DAY_MS, 3_600_000, 60_000, 1000, 1)
    ms = sum(int(part) * unit for part, unit in zip(parts, units, strict=True) if part)
    if not any(parts):
        raise InvalidTime(f"{ascii(given)[:80]}: write a duration behind @every, such as 90s, 5m or 1h30m")
    return check_every(ms)


def check_every(ms: int) -> int:
    """Return an interval in ms, or raise InvalidTime when it is under a second or over ten years."""
    if not LEAST_EVERY_MS <= ms <= MOST_EVERY_MS:
        raise InvalidTime(f"@every {ms} ms: it may be a second to ten years")
    return ms


def _weekdays(found: re.Match[str]) -> str:
    return f"{int(found['minute'] or 0)} {int(found['hour'] or 0)} * * MON-FRI"


def _interval(text: str, given: str) -> Interval:
    shown = ascii(given)[:80]
    found = _INTERVAL.match(text)
    if found is None:
        if days := _WEEKDAYS.match(text):
            raise InvalidTime(f"{shown} is not understood: write {_weekdays(days)!r}")
        raise InvalidTime(f"{shown} is not understood: write 'every 2 weeks on tue at 09:00 from 2026-11-24'")
    every = int(found["every"] or 1)
    unit = found["unit"].rstrip("s") + "s"
    if not 1 <= every <= 1000:
        raise InvalidTime(f"{shown}: it may be every 1 to 1000 {unit}")
    if every > 1 and not found["start"]:
        raise InvalidTime(f"{shown}: say from which day it counts, such as 'from 2026-11-24'")
    if found["on"] and unit in ("days", "years"):
        raise InvalidTime(f"{shown}: 'on' goes with weeks and months")
    words = [word for word in re.split(r"[, ]+", found["on"] or "") if word and word != "and"]
    on = tuple(sorted({_day_word(word, unit, shown) for word in words}))
    at = tuple(sorted({_clock(word, shown) for word in re.split(r"[, ]+", found["at"] or "00:00") if word}))
    start = found["start"] or ("1970-01-05" if unit == "weeks" else "1970-01-01")
    if not found["start"] and not on and unit != "days":
        raise InvalidTime(
            f"{shown}: say on which day, such as 'on {'tue' if unit == 'weeks' else '1'}', or 'from' when"
        )
    try:
        date.fromisoformat(start)
    except ValueError:
        raise InvalidTime(f"{shown}: there is no day {start}") from None
    made = Interval(every, unit, on, at, start)
    before = date.fromisoformat(start) - timedelta(days=1)
    if next(made.walls(datetime.combine(before, time())), None) is None:
        raise InvalidTime(f"{shown} never fires: none of its months has that day")
    return made


def _day_word(word: str, unit: str, shown: str) -> int:
    if unit == "weeks":
        for i, name in enumerate(_WEEKDAY_WORDS):
            if len(word) >= 2 and name.lower().startswith(word):
                return i
        raise InvalidTime(f"{shown}: {word!r} is no weekday")
    if word == "last":
        return -1
    if not word.isdigit() or not 1 <= int(word) <= 31:
        raise InvalidTime(f"{shown}: {word!r} is no day of the month, 1 to 31 or last")
    return int(word)


def _clock(word: str, shown: str) -> str:
    found = _CLOCK.match(word)
    if found is None or int(found[1]) > 23 or int(found[2]) > 59 or int(found[3] or 0) > 59:
        raise InvalidTime(f"{shown}: {word!r} is no time of day, such as 09:00")
    return f"{int(found[1]):02d}:{found[2]}" + (f":{found[3]}" if found[3] else "")


def _time(text: str) -> time:
    return time.fromisoformat(text)


def _times(text: str, tz: str | None) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    found = set()
    for word in words:
        try:
            at = datetime.fromisoformat(word.upper().replace(" ", "T", 1) if " " in word else word)
        except ValueError:
            raise InvalidTime(f"{ascii(word)[:60]} is no time: write it as 2026-12-01T09:00Z or with +01:00") from None
        found.add(_instant_ms(at, word, tz))
    return check_times(tuple(sorted(found)))


def _instant_ms(at: datetime, word: str, tz: str | None) -> int:
    """A given time in ms; one without a zone is read on the wall clock of `tz`."""
    if at.utcoffset() is not None:
        return to_ms(at)
    shown = ascii(word)[:60]
    if tz is None:
        raise InvalidTime(
            f"{shown} has no zone: add one, as in {word[:40]}Z or {word[:40]}+01:00, or give --zone or tz="
        )
    runs = [instant for instant in place(at.replace(microsecond=0), tz, Gap.SKIP, Fold.BOTH) if not instant.skipped]
    if len(runs) != 1:
        what = "comes twice" if runs else "does not exist"
        raise InvalidTime(f"{shown} {what} in {tz}, where the clocks change then: write it with its offset, as +01:00")
    return runs[0].at_s * 1000 + at.microsecond // 1000


def check_times(times_ms: tuple[int, ...]) -> tuple[int, ...]:
    """Return given instants, or raise InvalidTime when there are none or more than a thousand."""
    if not 1 <= len(times_ms) <= MOST_TIMES:
        raise InvalidTime(f"a list of times holds 1 to {MOST_TIMES} of them, and this one {len(times_ms)}")
    return times_ms


def kind_to_json(kind: Kind) -> dict[str, Any]:
    """A rhythm as it is stored."""
    if isinstance(kind, Cron):
        return {"cron": kind.text}
    if isinstance(kind, Every):
        return {"every": kind.ms}
    if isinstance(kind, Times):
        return {"times": list(kind.times_ms)}
    return {
        "interval": kind.every, "unit": kind.unit, "on": list(kind.on), "at": list(kind.at), "start": kind.start,
    }  # fmt: skip


def kind_from_json(given: dict[str, Any]) -> Kind:
    """Read a stored rhythm. Raises: ValueError, KeyError or TypeError for what this version does not know."""
    if "cron" in given:
        CronLine.parse(given["cron"])
        return Cron(given["cron"])
    if "every" in given:
        return Every(check_every(int(given["every"])))
    if "times" in given:
        return Times(check_times(tuple(int(at) for at in given["times"])))
    unit, every = str(given["unit"]), int(given["interval"])
    if unit not in UNITS or not 1 <= every <= 1000:
        raise ValueError(f"an interval of {every} {unit}")
    date.fromisoformat(given["start"])
    return Interval(
        every, unit, tuple(int(day) for day in given["on"]), tuple(_clock(at, "at") for at in given["at"]),
        given["start"],
    )  # fmt: skip


def words(kind: Kind, name: str = "") -> str:
    """A rhythm in English. name: the schedule's, for a line with `H`."""
    if isinstance(kind, Cron):
        line = CronLine.parse(kind.text, name)
        return line.words[:1].lower() + line.words[1:]
    if isinstance(kind, Every):
        return f"every {_span(kind.ms)}"
    if isinstance(kind, Times):
        first = to_datetime(kind.times_ms[0]).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"at {first}" if len(kind.times_ms) == 1 else f"at {len(kind.times_ms)} given times, first {first}"
    unit = kind.unit.rstrip("s")
    text = f"every {unit}" if kind.every == 1 else f"every {kind.every} {kind.unit}"
    if kind.on:
        names = [_WEEKDAY_WORDS[d] if unit == "week" else "the last day" if d == -1 else str(d) for d in kind.on]
        text += " on " + " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    last = max((*kind.on, -1)) if kind.on else date.fromisoformat(kind.start).day
    if unit == "month" and last > 28:
        text += ", in months that have that day,"
    elif unit == "year" and kind.start.endswith("-02-29"):
        text += " that has a 29th of February"
    text += " at " + ", ".join(kind.at)
    return text if kind.start.startswith("1970-01-0") else f"{text}, counted from {kind.start}"


def notes(kind: Kind, name: str = "") -> tuple[str, ...]:
    """What a person should know of how a rhythm was read, in sentences. name: the schedule's."""
    return CronLine.parse(kind.text, name).notes if isinstance(kind, Cron) else ()


def _span(ms: int) -> str:
    parts = []
    for unit, size in (("d", _DAY_MS), ("h", 3_600_000), ("min", 60_000), ("s", 1000), ("ms", 1)):
        count, ms = divmod(ms, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts)
