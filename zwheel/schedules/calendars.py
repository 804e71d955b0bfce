"""Calendars: which days and times of day are blocked, and where an occurrence goes then."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Any

from zwheel.errors import ConfigError, InvalidInput
from zwheel.schedules.kinds import WEEKDAYS

#: Nothing is moved further than this.
LONGEST_MOVE_DAYS = 31
_MOST_DATES = 2000
_MOST_WINDOWS = 50
_MOST_IN_A_ROW = 2 * _MOST_DATES
_NAMES = ("holidays", "dates", "open_dates", "weekdays", "windows")
_COUNTRY = re.compile(r"[A-Z]{2}(?:-[A-Za-z0-9]{1,6})?\Z")
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]|24):([0-5]\d)\Z")


class OnBlocked(StrEnum):
    """What an occurrence on a blocked day or time does."""

    SKIP = "skip"
    """It does not run."""
    NEXT = "next"
    """It runs at the same time of the next day that is not blocked; in a blocked window, at its end."""
    PREVIOUS = "previous"
    """It runs at the same time of the last day before that is not blocked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """Blocked days and times, on the wall clock of the schedule's zone."""

    holidays: tuple[str, ...] = ()
    """Public holidays of countries or their parts: `DE`, `DE-BE`, `CN`. Where a country makes up for long holidays by
    working on weekends, those days are open."""
    dates: tuple[str, ...] = ()
    """Further blocked days, YYYY-MM-DD."""
    open_dates: tuple[str, ...] = ()
    """Days that are open whatever else says, YYYY-MM-DD."""
    weekdays: tuple[str, ...] = ()
    """Blocked weekdays: mon to sun."""
    windows: tuple[str, ...] = ()
    """Blocked times of day: `22:00-06:00`; the end is open again."""
    _blocked: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)
    _open: frozenset[str] = field(default=frozenset(), init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Raises: InvalidInput, or ConfigError where the package that knows holidays is missing."""
        for name in _NAMES:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        for text in (*self.dates, *self.open_dates):
            try:
                if len(text) != 10:
                    raise ValueError
                date.fromisoformat(text)
            except (ValueError, TypeError):
                raise InvalidInput(f"calendar: {text!r} is not a day such as 2026-12-24") from None
        for day in self.weekdays:
            if day not in WEEKDAYS:
                raise InvalidInput(f"calendar: {day!r} is none of {', '.join(WEEKDAYS)}")
        if len(self.weekdays) > 6:
            raise InvalidInput("calendar: every day of the week is blocked")
        for window in self.windows:
            found = _WINDOW.match(window)
            if found is None or window[:5] == window[6:] or (window[6:8] == "24" and window[9:] != "00"):
                raise InvalidInput(f"calendar: {window!r} is not a time of day such as 22:00-06:00")
        if len(self.windows) <= _MOST_WINDOWS and _open_minute(self.windows) is None:
            raise InvalidInput("calendar: every time of day is blocked")
        if (
            len(self.dates) + len(self.open_dates) > _MOST_DATES
            or len(self.windows) + len(self.holidays) > _MOST_WINDOWS
        ):
            raise InvalidInput("calendar: it has too many entries")
        for code in self.holidays:
            _country(code)
        object.__setattr__(self, "_blocked", frozenset(self.dates))
        object.__setattr__(self, "_open", frozenset(self.open_dates))

    def to_json(self) -> dict[str, Any]:
        """As it is stored."""
        return {name: list(getattr(self, name)) for name in _NAMES if getattr(self, name)}

    @classmethod
    def from_json(cls, given: dict[str, Any]) -> Calendar:
        """Read a stored one."""
        return cls(**{name: tuple(str(v) for v in values) for name, values in given.items()})

    def blocked(self, wall: datetime) -> str:
        """Why a wall time is blocked, in words; '' when it is not."""
        return self.day_blocked(wall.date()) or self.window_blocked(wall.time())

    def day_blocked(self, day: date) -> str:
        """Why a day is blocked; '' when it is not."""
        text = day.isoformat()
        if text in self._open:
            return ""
        if text in self._blocked:
            return f"{text} is blocked"
        working = False
        for code in self.holidays:
            name, made_up = _holiday(code, day)
            if name:
                return f"{name} ({code})"
            working = working or made_up
        weekday = WEEKDAYS[day.weekday()]
        if weekday in self.weekdays and not working:
            return f"{day:%A} is blocked"
        return ""

    def open_day(self, day: date) -> date:
        """The next day after `day` that is not blocked, as far as 2000 listed days and the weekends between can reach."""
        for _ in range(_MOST_IN_A_ROW):
            day += timedelta(days=1)
            if not self.day_blocked(day):
                break
        return day

    def window_blocked(self, at: time) -> str:
        """Why a time of day is blocked; '' when it is not."""
        for window in self.windows:
            start, end = _window(window)
            minute = at.hour * 60 + at.minute
            if start <= minute < end or (end < start and (minute >= start or minute < end)):
                return f"{window} is blocked"
        return ""

    def window_end(self, wall: datetime) -> datetime:
        """When the blocked window that a wall time lies in ends."""
        for window in self.windows:
            start, end = _window(window)
            minute = wall.hour * 60 + wall.minute
            if start <= minute < end or (end < start and (minute >= start or minute < end)):
                midnight = datetime.combine(wall.date(), time())
                days = 1 if end < start and minute >= start else 0
                return midnight + timedelta(days=days, minutes=end)
        return wall

    def data_ends(self) -> int | None:
        """The last year whose working weekends are known, where a country announces them year by year; else None."""
        ends = [end for code in self.holidays if (end := _made_up_until(code)) is not None]
        return min(ends) if ends else None

    @property
    def blocks(self) -> bool:
        """Whether it blocks anything."""
        return bool(self.holidays or self.dates or self.weekdays or self.windows)


def _window(text: str) -> tuple[int, int]:
    return int(text[:2]) * 60 + int(text[3:5]), int(text[6:8]) * 60 + int(text[9:])


def _open_minute(windows: tuple[str, ...]) -> int | None:
    """The first minute of a day that no window blocks; None when there is none."""
    spans = [_window(text) for text in windows]
    spans = [*spans, *((0, end) for start, end in spans if end < start)]
    minute = 0
    while minute < 24 * 60:
        end = max(
            (
                end if start <= end else 24 * 60
                for start, end in spans
                if start <= minute and (minute < end or end < start)
            ),
            default=minute,
        )
        if end == minute:
            return minute
        minute = end
    return None


@lru_cache(maxsize=64)
def _country(code: str) -> Any:
    if not _COUNTRY.match(code):
        raise InvalidInput(f"calendar: {code!r} is not a country such as DE, or a part of one such as DE-BE")
    try:
        import holidays
    except ImportError:
        raise ConfigError("public holidays need the holidays package: pip install 'zwheel[holidays]'") from None
    country, _, part = code.partition("-")
    try:
        return holidays.country_holidays(country, subdiv=part or None)
    except NotImplementedError:
        raise InvalidInput(f"calendar: no holidays are known for {code!r}") from None


@contextmanager
def _unwarned() -> Iterator[None]:
    """Keep the package from warning that it knows some feasts of a country up to a year only, such as 2035.

    It would say so in the log of each worker, for each year that anyone looks at, and nobody there can do anything
    about it. Entered once for each year of a country: filters of warnings belong to all threads.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@lru_cache(maxsize=16384)
def _holiday(code: str, day: date) -> tuple[str, bool]:
    """The holiday's name, and whether a weekend day is worked to make up for one."""
    known = _country(code)
    if day.year not in known.years:
        with _unwarned():
            known.get(day)
    name = known.get(day)
    made_up = getattr(known, "weekend_workdays", ())
    return (str(name), False) if name else ("", day in made_up)


@lru_cache(maxsize=64)
def _made_up_until(code: str) -> int | None:
    import holidays

    country, _, part = code.partition("-")
    with _unwarned():
        now = holidays.country_holidays(country, subdiv=part or None, years=range(2015, 2041))
    made_up = getattr(now, "weekend_workdays", ())
    return max((day.year for day in made_up), default=None)
