"""Lines as other schedulers and people write them: read rightly, or refused with what to write in their place."""

from __future__ import annotations

from datetime import datetime
from itertools import islice
from typing import Any

import pytest

from zwheel.client.declare import make_definition
from zwheel.errors import InvalidInput, InvalidTime
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.cron import CronLine
from zwheel.schedules.definition import Definition
from zwheel.schedules.kinds import Every, Interval, Times, kind_from_text, notes, words
from zwheel.schedules.occurrences import Rhythm
from zwheel.schedules.zones import Fold, zone
from zwheel.times import to_datetime

START = datetime(2026, 1, 1)


def definition(when: str, task: str, **options: Any) -> Definition:
    return make_definition({}, DEFAULT, "s", when, task, **options)


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def times(line: str, count: int = 4, start: datetime = START) -> list[str]:
    return [f"{wall:%m-%d %H:%M:%S}" for wall in islice(CronLine.parse(line).walls(start), count)]


@pytest.mark.parametrize(
    ("line", "same"),
    [
        ("5-5/2 * * * *", "5 * * * *"),
        ("0 0/1 * 1/1 * ? *", "0 * * * * *"),
        ("0 5 * * FRI-MON", "0 5 * * 5,6,0,1"),
        ("0 5 * * SAT-SUN", "0 5 * * 6,7"),
        ("0 5 * * 6-2/2", "0 5 * * 6,1"),
        ("0 0 1 NOV-FEB *", "0 0 1 11,12,1,2 *"),
        ("0 0 ? * 7-7", "0 0 * * SUN"),
        ("*/90 * * * *", "0 * * * *"),
    ],
)
def test_a_line_is_read_as_the_plain_one(line: str, same: str) -> None:
    assert times(line, 40) == times(same, 40)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0 9 * * 1-5 # weekdays", "a comment, '# weekdays': write '0 9 \\* \\* 1-5'"),
        ("cron(0 10 * * ? *)", "the form of AWS.*write '0 10 \\* \\* \\?'"),
        ("cron(0 10 ? * 2-6 2026)", "write '0 10 \\? \\* 1-5', and for the year '2026' give --start and --end"),
        ("0 10 * * ? *", "the form of AWS"),
        ("daily", "write '@daily'"),
        ("rate(5 minutes)", "write '@every 5m'"),
        ("CRON_TZ=Asia/Tokyo 0 5 * * *", "--zone"),
        ("0 0 12 1 1 ? 2026", "7 fields: a year is not supported.*--start and --end"),
        ("0 22-6 * * *", "22-6 ends before it begins: .* write 22-23,0-6"),
        ("50-10 * * * *", "write 50-59,0-10"),
        ("0 0 L-3 * *", "bad day-of-month: 'L-3' is none of 1 to 31, L, LW or 15W"),
        ("60 * * * *", "bad minute: '60' is none of 0 to 59"),
        ("*/0 * * * *", "a step of 0"),
        ("0 9 * * MON #2", "is not a cron line: it has a bad month: 'MON'"),
    ],
)  # fmt: skip
def test_another_form_is_refused_with_what_to_write(line: str, said: str) -> None:
    with pytest.raises(InvalidTime, match=said) as refusal:
        kind_from_text(line)
    assert len(str(refusal.value)) < 300


def test_a_step_runs_on_over_a_repeated_hour_in_every_spelling() -> None:
    start, end = ms("2026-10-24T23:00Z"), ms("2026-10-25T03:00Z")
    for line in ("0 0/5 0/1 * * ?", "0 */5 * * * *", "0-59/5 0-23 * * *", "0/5 0/1 * * *"):
        rhythm = Rhythm(kind_from_text(line), "Europe/Berlin", fold=Fold.FIRST)
        found = [o.at_ms for o in rhythm.between(start, end, 999)]
        assert found == list(range(start + 300_000, end + 1, 300_000)), line


def test_a_rhythm_with_h_keeps_its_real_time_whatever_its_name() -> None:
    assert {CronLine.parse("H/15 2 * * *", name).fixed for name in map(str, range(40))} == {False}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*/90 * * * *", "at the start of every hour"),
        ("*/45 * * * *", "at minutes 0 and 45 of every hour"),
        ("22 0 31 * *", "at 00:22 on the 31st day of every month"),
        ("0 0 12,22,23 * *", "at 00:00 on the 12th, the 22nd, and the 23rd day of the month"),
        ("0 0 13 * 5", "at 00:00 on the 13th day of the month or on Friday"),
        ("0 0 1 * MON", "at 00:00 on the first day of the month or on Monday"),
        ("0 0 1 JAN MON", "at 00:00 on the first day of the month or on Monday, in January"),
        ("0 0 1-31 * MON", "at 00:00 every day"),
        ("0 0 */2 * MON", "at 00:00 on every second day of the month if it's on Monday"),
        ("0 0 1,LW * *", "at 00:00 on the first day of the month and the last weekday of the month"),
        ("0 5 * * FRI-MON", "at 05:00 on Friday through Sunday and Monday"),
        ("0 0 15W * *", "at 00:00 every day, on the weekday nearest to day 15 of the month"),
    ],
)
def test_the_words_say_what_it_does(line: str, said: str) -> None:
    assert words(kind_from_text(line)) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("*/90 * * * *", "it is minute 0 only; for every 90 minutes write '@every 90m'"),
        ("*/45 * * * *", "begins anew with each hour"),
        ("0 */36 * * *", "it is hour 0 only; for every 36 hours write '@every 36h'"),
        ("0 0 12 ? * 2", "Quartz counts from Sunday = 1"),
        ("H 3 * * *", "H stands for a number drawn from the schedule's name: for 'report' it is read as '"),
    ],
)
def test_what_may_surprise_is_noted(line: str, said: str) -> None:
    (note,) = notes(kind_from_text(line), "report")
    assert said in note


@pytest.mark.parametrize(
    "line", ["*/15 * * * *", "0 12 ? * MON", "0 0 12 ? * MON#2", "0 9 ? * THU-FRI", "5-50/7 * * * *"]
)
def test_what_is_usual_has_no_note(line: str) -> None:
    assert notes(kind_from_text(line), "report") == ()


def test_a_zone_before_the_fields_is_the_zone() -> None:
    for text in ("CRON_TZ=Asia/Tokyo 0 5 * * *", "TZ='Asia/Tokyo' 0 5 * * *"):
        made = definition(text, "t")
        assert (made.tz, made.when()) == ("Asia/Tokyo", "at 05:00 every day")
    assert definition("CRON_TZ=Asia/Tokyo 0 5 * * *", "t", tz="Asia/Tokyo").tz == "Asia/Tokyo"
    with pytest.raises(InvalidInput, match="two zones, Asia/Tokyo and UTC"):
        definition("CRON_TZ=Asia/Tokyo 0 5 * * *", "t", tz="UTC")


def test_an_option_for_the_zone_of_another_name_is_refused_with_the_right_one() -> None:
    with pytest.raises(InvalidInput, match="there is no option zone: the zone is tz="):
        definition("0 9 * * *", "t", zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("text", "every_ms"),
    [
        ("every 90 minutes", 5_400_000), ("every hour", 3_600_000), ("every 30 seconds", 30_000), ("every 1h30m", 5_400_000),
        ("every 5 min", 300_000), ("@every 90 minutes", 5_400_000), ("Every 2 Hours", 7_200_000),
    ],
)  # fmt: skip
def test_an_interval_of_hours_or_less_is_read_in_words(text: str, every_ms: int) -> None:
    assert kind_from_text(text) == Every(every_ms)


def test_given_times_are_read_in_the_zone() -> None:
    given = "at 2026-12-01 09:00, 2026-06-01T09:00:30.250, 2026-12-01T09:00Z"
    assert kind_from_text(given, "Europe/Berlin") == Times(
        (ms("2026-06-01T07:00:30.250Z"), ms("2026-12-01T08:00Z"), ms("2026-12-01T09:00Z"))
    )
    with pytest.raises(InvalidTime, match="has no zone: add one, as in 2026-12-01 09:00Z"):
        kind_from_text("at 2026-12-01 09:00")
    for text, what in (("2026-03-29 02:30", "does not exist in"), ("2026-10-25 02:30", "comes twice in")):
        with pytest.raises(InvalidTime, match=f"{what} Europe/Berlin.*offset"):
            kind_from_text(f"at {text}", "Europe/Berlin")


def test_a_leap_day_says_so() -> None:
    year = kind_from_text("every year from 2024-02-29")
    assert isinstance(year, Interval)
    assert words(year) == "every year that has a 29th of February at 00:00, counted from 2024-02-29"
    leaps = [to_datetime(o.at_ms).year for o in islice(Rhythm(year).after(ms("2096-01-01T00:00Z")), 3)]
    assert leaps == [2096, 2104, 2108]
    assert "in months that have that day" in words(kind_from_text("every month on 31 at 09:00"))
    assert "months that have" not in words(kind_from_text("every month on last at 09:00"))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("GMT+2", "2 h ahead of UTC all year is Etc/GMT-2, whose sign is turned round"),
        ("UTC-5", "5 h behind UTC all year is Etc/GMT\\+5"),
        ("+05:30", "an offset knows no summer time, use the name of a place such as Europe/Berlin$"),
        ("PST", "did you mean America/Los_Angeles\\?"),
        ("berlin", "did you mean Europe/Berlin\\?"),
        ("Europe/Berlni", "did you mean Europe/Berlin"),
    ],
)
def test_a_name_that_is_no_zone_names_the_right_one(name: str, said: str) -> None:
    with pytest.raises(InvalidTime, match=said):
        zone(name)


def test_a_policy_that_another_one_undoes_is_noted() -> None:
    assert definition("0 9 * * *", "t", misfire="fire_all").notes() == ()
    (skip,) = definition("0 9 * * *", "t", misfire="fire_all", overlap="skip").notes()
    assert "the oldest runs and the others are skipped" in skip
    (one,) = definition("0 9 * * *", "t", misfire="fire_all", overlap="buffer_one").notes()
    assert "but for one that waits" in one
