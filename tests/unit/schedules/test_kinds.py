"""Rhythms as people write them, and the calendars that block them."""

from __future__ import annotations

import itertools
import sys
from datetime import datetime, time
from typing import Any

import pytest
from cronsim import CronSim
from hypothesis import given
from hypothesis import strategies as st

from zwheel.errors import ConfigError, InvalidInput, InvalidTime
from zwheel.schedules import calendars
from zwheel.schedules.calendars import Calendar, OnBlocked
from zwheel.schedules.cron import ALIASES, CronLine
from zwheel.schedules.kinds import (
    Cron,
    Every,
    Interval,
    Times,
    kind_from_json,
    kind_from_text,
    kind_to_json,
    words,
)
from zwheel.schedules.occurrences import Rhythm
from zwheel.times import to_datetime


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def days(text: str, start: str, count: int, tz: str = "UTC", **policies: Any) -> list[str]:
    found = Rhythm(kind_from_text(text), tz, **policies).between(ms(start), ms(start) + 10 * 366 * 86_400_000, count)
    return [to_datetime(o.at_ms).strftime("%Y-%m-%dT%H:%M") for o in found]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0 9 * * MON-FRI", Cron("0 9 * * MON-FRI")),
        ("  */10   * * * * * ", Cron("*/10 * * * * *")),
        ("@every 90s", Every(90_000)),
        ("@every 1h30m", Every(5_400_000)),
        ("every 2 weeks on tue,fri at 09:00 from 2026-11-24", Interval(2, "weeks", (1, 4), ("09:00",), "2026-11-24")),
        ("every day at 7:30, 19:30", Interval(1, "days", (), ("07:30", "19:30"), "1970-01-01")),
        ("every month on last at 08:00", Interval(1, "months", (-1,), ("08:00",), "1970-01-01")),
        ("at 2026-12-01T09:00Z, 2026-11-01 09:00+01:00", Times((ms("2026-11-01T08:00Z"), ms("2026-12-01T09:00Z")))),
    ],
)
def test_a_rhythm_is_read_and_stored_as_it_was_written(text: str, kind: Any) -> None:
    assert kind_from_text(text) == kind
    assert kind_from_json(kind_to_json(kind)) == kind
    assert words(kind)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "* * * *", "0 0 1 1 * * 2026", "@reboot", "@never", "@every", "@every 90", "@every 1ms", "@every -5s",
        "61 * * * *", "* * * * MON#6", "0 0 30 2 *", "0 0 31 2,4 *", "* * */20 * 1L", "0 0 W * *", "0 0 15W * MON",
        "0 0 32W * *", "H(9-2) * * * *", "H/99 * * * *", "every 2 weeks on tue at 09:00", "every week at 09:00",
        "every 0 days", "every 2 fortnights", "every week on someday at 09:00", "every day at 25:00",
        "every month on 32 at 09:00", "every 2 weeks on tue from 2026-13-01", "at noon", "at 2026-12-01T09:00",
        "0 9 * * *\0", "9" * 300, "*" * 10_000, "0 9 * * * # daily", "1-99999999999999999999 * * * *", "é * * * *",
    ],
)  # fmt: skip
def test_what_is_no_rhythm_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InvalidTime) as refusal:
        kind_from_text(text)
    assert 10 < len(str(refusal.value)) < 400
    assert "\n" not in str(refusal.value)


@given(st.text(alphabet="0123456789*/,-#LWH? @everyMONat:\x00é\n", max_size=60))
def test_hostile_text_is_read_or_refused(text: str) -> None:
    try:
        kind = kind_from_text(text)
    except InvalidTime:
        return
    assert kind_from_json(kind_to_json(kind)) == kind


def test_aliases_are_their_lines() -> None:
    for alias, line in ALIASES.items():
        start = datetime(2026, 1, 1)
        theirs, ours = CronLine.parse(alias).walls(start), CronLine.parse(line).walls(start)
        assert [next(theirs) for _ in range(3)] == [next(ours) for _ in range(3)]


@pytest.mark.parametrize(
    "line",
    [
        "*/7 * * * *", "0 0 * * 0", "0 0 * * 7", "5-59/10 8-18 * * 1-5", "0 0 1,15 * *", "0 0 13 * FRI", "0 0 */2 * MON",
        "0 12 L * *", "0 12 LW * *", "0 0 * * MON#2", "0 0 * * 5L", "30 6 1 JAN,JUL *", "59 23 31 12 *", "0 0 29 2 *",
        "15 10 ? * *", "20,40 */6 * * SUN,WED",
    ],
)  # fmt: skip
def test_a_line_fires_when_cronsim_says_in_utc(line: str) -> None:
    start = datetime(2026, 1, 1)
    theirs = CronSim(line.replace("?", "*"), start)
    ours = CronLine.parse(line).walls(start)
    assert [next(ours) for _ in range(30)] == [next(theirs) for _ in range(30)]


def test_the_nearest_weekday_stays_in_its_month() -> None:
    found = days("0 0 15W * *", "2026-01-01T00:00Z", 12)
    assert [day[8:10] for day in found] == ["15", "16", "16", "15", "15", "15", "15", "14", "15", "15", "16", "15"]
    assert [day[5:10] for day in days("0 0 1W * ?", "2026-01-01T00:00Z", 3)] == ["02-02", "03-02", "04-01"]
    assert [day[5:10] for day in days("0 0 31W * *", "2026-01-01T00:00Z", 3)] == ["01-30", "03-31", "05-29"]


def test_h_spreads_schedules_and_stays() -> None:
    lines = {CronLine.parse("H H * * *", name).words for name in map(str, range(50))}
    assert len(lines) > 40
    assert CronLine.parse("H H * * *", "a").words == CronLine.parse("H H * * *", "a").words
    step = CronLine.parse("H/15 * * * *", "a").walls(datetime(2026, 1, 1))
    minutes = [next(step).minute for _ in range(4)]
    assert [b - a for a, b in itertools.pairwise(minutes)] == [15, 15, 15]
    assert not CronLine.parse("H/15 * * * *", "a").fixed


def test_calendar_intervals_keep_their_wall_time() -> None:
    assert days("every 2 weeks on tue at 09:00 from 2026-10-13", "2026-10-01T00:00Z", 4, "Europe/Berlin") == [
        "2026-10-13T07:00", "2026-10-27T08:00", "2026-11-10T08:00", "2026-11-24T08:00",
    ]  # fmt: skip
    assert [d[:10] for d in days("every month on 31 at 09:00", "2026-11-20T00:00Z", 4)] == [
        "2026-12-31", "2027-01-31", "2027-03-31", "2027-05-31",
    ]  # fmt: skip
    assert [d[:10] for d in days("every month on last at 09:00", "2027-11-20T00:00Z", 4)] == [
        "2027-11-30", "2027-12-31", "2028-01-31", "2028-02-29",
    ]  # fmt: skip
    assert [d[:10] for d in days("every 2 years at 09:00 from 2026-03-01", "2026-01-01T00:00Z", 3)] == [
        "2026-03-01", "2028-03-01", "2030-03-01",
    ]  # fmt: skip
    assert [d[:10] for d in days("every 10 days at 09:00 from 2026-12-25", "2026-01-01T00:00Z", 3)] == [
        "2026-12-25", "2027-01-04", "2027-01-14",
    ]  # fmt: skip


WORK = Calendar(holidays=("CN",), weekdays=("sat", "sun"))


@pytest.mark.parametrize("day", ["2026-02-14", "2026-02-28", "2026-09-20", "2026-10-10"])
def test_weekends_that_china_works_are_open(day: str) -> None:
    assert WORK.blocked(datetime.fromisoformat(f"{day}T09:00")) == ""


@pytest.mark.parametrize("day", ["2026-02-15", "2026-02-17", "2026-02-23", "2026-10-01"])
def test_holidays_and_other_weekends_are_blocked(day: str) -> None:
    assert WORK.blocked(datetime.fromisoformat(f"{day}T09:00"))


def test_a_country_whose_feasts_are_known_for_some_years_only_warns_nobody() -> None:
    """Warnings are errors here: each would be a line in the log of every worker, for every year that is looked at."""
    india = Calendar(holidays=("IN",))
    assert india.blocked(datetime(2040, 1, 26, 9))
    assert not india.blocked(datetime(2040, 1, 27, 9))
    assert india.data_ends() is None


def test_a_calendar_says_where_its_data_ends() -> None:
    ends = WORK.data_ends()
    assert ends is not None and ends >= 2026
    assert Calendar(holidays=("DE",)).data_ends() is None


def test_days_windows_and_exceptions() -> None:
    calendar = Calendar(
        dates=("2026-12-24",), open_dates=("2026-12-25",), weekdays=("sun",), windows=("22:00-06:00", "12:00-13:00"),
        holidays=("DE-BE",),
    )  # fmt: skip
    assert Calendar.from_json(calendar.to_json()) == calendar
    blocked = [w for w in ("2026-12-24T09:00", "2026-12-25T09:00", "2026-12-26T09:00", "2026-12-28T23:00",
                           "2026-12-28T05:59", "2026-12-28T06:00", "2026-12-28T12:30", "2026-12-28T13:00")
               if calendar.blocked(datetime.fromisoformat(w))]  # fmt: skip
    assert blocked == [
        "2026-12-24T09:00", "2026-12-26T09:00", "2026-12-28T23:00", "2026-12-28T05:59", "2026-12-28T12:30",
    ]  # fmt: skip
    assert calendar.window_end(datetime(2026, 12, 28, 23, 0)) == datetime(2026, 12, 29, 6, 0)
    assert calendar.window_blocked(time(6, 0)) == ""


def test_a_blocked_day_moves_and_meets_its_own() -> None:
    closed = Calendar(holidays=("DE",), weekdays=("sat", "sun"))
    moved = days("0 9 * * *", "2026-12-23T12:00Z", 4, calendar=closed, on_blocked=OnBlocked.NEXT)
    assert moved == ["2026-12-24T09:00", "2026-12-28T09:00", "2026-12-29T09:00", "2026-12-30T09:00"]
    back = days("0 9 25 12 *", "2026-12-01T00:00Z", 1, calendar=closed, on_blocked=OnBlocked.PREVIOUS)
    assert back == ["2026-12-24T09:00"]
    order = days("0 9,17 * * *", "2026-12-24T10:00Z", 4, calendar=closed, on_blocked=OnBlocked.NEXT)
    assert order == ["2026-12-24T17:00", "2026-12-28T09:00", "2026-12-28T17:00", "2026-12-29T09:00"]
    night = Calendar(windows=("22:00-06:00",))
    assert days("0 23 * * *", "2026-12-24T10:00Z", 1, calendar=night, on_blocked=OnBlocked.NEXT) == ["2026-12-25T06:00"]
    never = Calendar(weekdays=("mon",), dates=())
    assert days("0 9 * * MON", "2026-12-01T00:00Z", 1, calendar=never) == []


def test_a_rhythm_does_not_walk_through_what_is_blocked() -> None:
    rhythm = Rhythm(
        kind_from_text("* * * * * *"), "Europe/Berlin",
        calendar=Calendar(weekdays=("sat", "sun"), windows=("20:00-08:00",)),
    )  # fmt: skip
    friday = ms("2026-11-20T19:59:58+01:00")
    found = [to_datetime(o.at_ms).isoformat() for o in rhythm.between(friday, friday + 7 * 86_400_000, 3)]
    assert found == ["2026-11-20T18:59:59+00:00", "2026-11-23T07:00:00+00:00", "2026-11-23T07:00:01+00:00"]
    every = Rhythm(kind_from_text("@every 90s"), "UTC", calendar=Calendar(weekdays=("sat", "sun")))
    start = ms("2026-11-20T23:59:00Z")
    assert every.between(start, start + 7 * 86_400_000, 2)[1].at_ms >= ms("2026-11-23T00:00Z")


@pytest.mark.parametrize(
    "given",
    [
        {"holidays": ("XX",)}, {"holidays": ("../x",)}, {"dates": ("24.12.2026",)}, {"weekdays": ("saturday",)},
        {"windows": ("9-17",)}, {"windows": ("09:00-09:00",)}, {"weekdays": ("mon", "tue", "wed", "thu", "fri", "sat", "sun")},
    ],
)  # fmt: skip
def test_a_calendar_that_makes_no_sense_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Calendar(**given)


def test_only_fixed_times_can_move() -> None:
    with pytest.raises(InvalidTime, match="only fixed times"):
        Rhythm(kind_from_text("*/5 * * * *"), calendar=Calendar(weekdays=("sat",)), on_blocked=OnBlocked.NEXT)
    with pytest.raises(InvalidTime, match="previous"):
        Rhythm(kind_from_text("0 9 * * *"), calendar=Calendar(windows=("01:00-02:00",)), on_blocked=OnBlocked.PREVIOUS)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "holidays", None)
    calendars._country.cache_clear()
    with pytest.raises(ConfigError, match=r"zwheel\[holidays\]"):
        Calendar(holidays=("DE",))
    calendars._country.cache_clear()
