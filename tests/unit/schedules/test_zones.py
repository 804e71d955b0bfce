"""Rhythms over gaps and folds: tables with the very instants, and agreement with a walker that knows only minutes."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zwheel.errors import InvalidTime
from zwheel.schedules.kinds import kind_from_text
from zwheel.schedules.occurrences import Rhythm
from zwheel.schedules.zones import LARGEST_CHANGE_S, Fold, Gap, place, transitions, zone
from zwheel.times import to_datetime

ZONES = (
    "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham", "Antarctica/Troll", "Asia/Beirut",
    "America/Havana", "Africa/Casablanca", "Pacific/Apia", "America/Sao_Paulo",
)  # fmt: skip
LINES = ("30 2 * * *", "*/20 * * * *", "0 0 * * *", "15 0,2 * * *", "0 12 * * *", "45 1,2,3 * * *")


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def first(line: str, tz: str, start: str, count: int, gap: Gap = Gap.RUN_AFTER, fold: Fold = Fold.FIRST) -> list[str]:
    found = Rhythm(kind_from_text(line), tz, gap, fold).between(ms(start), ms(start) + 20 * 86_400_000, count)
    return [to_datetime(o.at_ms).strftime("%m-%dT%H:%M") for o in found]


RUN_AFTER = [
    ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:30"]),
    ("0,30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:00", "03-30T00:30"]),
    ("0 2,3 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:00", "03-30T01:00"]),
    ("15 30 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", ["03-29T01:00", "03-30T00:30"]),
    ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["03-08T07:00", "03-09T06:30"]),
    ("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00Z", ["10-03T15:30", "10-04T15:15"]),
    ("50 2 * * *", "Pacific/Chatham", "2026-09-26T00:00Z", ["09-26T14:00", "09-27T13:05"]),
    ("30 1 * * *", "Antarctica/Troll", "2026-03-28T12:00Z", ["03-29T01:00", "03-29T23:30"]),
    ("0 0 * * *", "Asia/Beirut", "2026-03-28T12:00Z", ["03-28T22:00", "03-29T21:00"]),
    ("0 0 * * *", "America/Havana", "2026-03-07T12:00Z", ["03-08T05:00", "03-09T04:00"]),
    ("30 2 * * *", "Africa/Casablanca", "2026-03-21T12:00Z", ["03-22T02:00", "03-23T01:30"]),
    ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00Z", ["11-04T03:00", "11-05T02:00"]),
]
FIRST = [
    ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:30", "10-26T01:30"]),
    ("0 30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", ["10-25T00:30", "10-26T01:30"]),
    ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["11-01T05:30", "11-02T06:30"]),
    ("45 1 * * *", "Australia/Lord_Howe", "2026-04-04T00:00Z", ["04-04T14:45", "04-05T15:15"]),
    ("0 0 * * *", "America/Havana", "2026-10-31T12:00Z", ["11-01T04:00", "11-02T05:00"]),
]


@pytest.mark.parametrize(("line", "tz", "start", "wanted"), RUN_AFTER + FIRST)
def test_a_fixed_time_runs_once_on_the_day_of_the_change(line: str, tz: str, start: str, wanted: list[str]) -> None:
    assert first(line, tz, start, len(wanted)) == wanted


@pytest.mark.parametrize(("line", "tz", "start", "wanted"), [case for case in RUN_AFTER if "," not in case[0]])
def test_with_skip_nothing_runs_for_a_time_in_the_gap(line: str, tz: str, start: str, wanted: list[str]) -> None:
    assert first(line, tz, start, 1, gap=Gap.SKIP) == wanted[1:2]


@pytest.mark.parametrize(
    ("fold", "wanted"),
    [
        (Fold.FIRST, ["10-25T00:00", "10-25T00:30", "10-26T01:00"]),
        (Fold.SECOND, ["10-25T01:00", "10-25T01:30", "10-26T01:00"]),
        (Fold.BOTH, ["10-25T00:00", "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-26T01:00"]),
    ],
)
def test_a_time_that_comes_twice_runs_as_its_policy_says(fold: Fold, wanted: list[str]) -> None:
    assert first("0,30 2 * * *", "Europe/Berlin", "2026-10-24T12:00Z", len(wanted), fold=fold) == wanted


@pytest.mark.parametrize("fold", Fold)
@pytest.mark.parametrize("gap", Gap)
def test_a_rhythm_keeps_its_real_time_whatever_the_policy(gap: Gap, fold: Fold) -> None:
    assert first("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15Z", 4, gap, fold) == [
        "10-25T00:30", "10-25T01:00", "10-25T01:30", "10-25T02:00",
    ]  # fmt: skip
    assert first("*/10 2 * * *", "Europe/Berlin", "2026-03-28T12:00Z", 1, gap, fold) == ["03-30T00:00"]


@pytest.mark.parametrize(
    ("fold", "wanted"),
    [(Fold.FIRST, ["00:30"]), (Fold.SECOND, ["01:30"]), (Fold.BOTH, ["00:30", "01:30"])],
)
def test_one_wall_time_that_comes_twice_is_placed_as_its_policy_says(fold: Fold, wanted: list[str]) -> None:
    found = place(datetime(2026, 10, 25, 2, 30), "Europe/Berlin", Gap.RUN_AFTER, fold)
    assert [to_datetime(instant.at_s * 1000).strftime("%H:%M") for instant in found] == wanted


def test_a_day_that_a_zone_left_out_has_no_runs() -> None:
    assert first("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00Z", 2) == ["12-29T22:00", "12-30T22:00"]


class Walker:
    """Knows the fields of a line and the clock of a zone, minute by minute, and nothing else."""

    def __init__(self, line: str, tz: str, gap: Gap, fold: Fold) -> None:
        minute, hour, *rest = line.split()
        assert rest == ["*", "*", "*"]
        self.minutes, self.hours = self._numbers(minute, 60), self._numbers(hour, 24)
        self.fixed = not minute.startswith("*") and not hour.startswith("*")
        self.zone, self.gap, self.fold = ZoneInfo(tz), gap, fold

    @staticmethod
    def _numbers(field: str, top: int) -> set[int]:
        if field.startswith("*"):
            return set(range(0, top, int(field.partition("/")[2] or 1)))
        return {int(word) for word in field.split(",")}

    def names(self, wall: datetime) -> bool:
        return wall.minute in self.minutes and wall.hour in self.hours

    def runs(self, start: datetime, end: datetime) -> list[datetime]:
        found: set[datetime] = set()
        at = start
        before = (at - timedelta(minutes=1)).astimezone(self.zone).replace(tzinfo=None)
        while at < end:
            local = at.astimezone(self.zone)
            wall = local.replace(tzinfo=None, fold=0)
            twice = wall.replace(tzinfo=self.zone, fold=0).utcoffset() != wall.replace(
                tzinfo=self.zone, fold=1
            ).utcoffset()  # fmt: skip
            wanted = {Fold.FIRST: local.fold == 0, Fold.SECOND: local.fold == 1, Fold.BOTH: True}[self.fold]
            if self.names(wall) and (wanted or not twice or not self.fixed):
                found.add(at)
            jump = wall - before
            if self.fixed and timedelta(minutes=1) < jump < timedelta(seconds=LARGEST_CHANGE_S, minutes=1):
                skipped = before + timedelta(minutes=1)
                while skipped < wall:
                    if self.names(skipped) and self.gap is Gap.RUN_AFTER:
                        found.add(at)
                    skipped += timedelta(minutes=1)
            before = wall
            at += timedelta(minutes=1)
        return sorted(found)


@cache
def windows(tz: str) -> list[tuple[datetime, datetime]]:
    """A day around each change of clocks from 1990 to 2040, and a few others."""
    chance = random.Random(tz)
    changes = [when for year in range(1990, 2041) for when, _, _ in transitions(tz, year)]
    others = [chance.randrange(631_152_000, 2_240_524_800) // 60 * 60 for _ in range(3)]
    return [
        (at - timedelta(hours=6), at + timedelta(hours=8))
        for at in (datetime.fromtimestamp(s - s % 60, UTC) for s in changes + others)
    ]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("tz", ZONES)
def test_the_walk_agrees_with_brute_force(tz: str, line: str) -> None:
    chance = random.Random(f"{tz} {line}")
    assert len(windows(tz)) > 3
    for start, end in chance.sample(windows(tz), min(20, len(windows(tz)))):
        gap, fold = chance.choice(list(Gap)), chance.choice(list(Fold))
        rhythm = Rhythm(kind_from_text(line), tz, gap, fold)
        begin = int(start.timestamp() * 1000) - 1
        got = [
            to_datetime(o.at_ms) for o in rhythm.between(begin, begin + int((end - start).total_seconds() * 1000), 999)
        ]
        assert got == Walker(line, tz, gap, fold).runs(start, end), f"{start} {gap} {fold}"


@given(
    tz=st.sampled_from(ZONES), line=st.sampled_from(LINES), at_s=st.integers(631_152_000, 2_208_988_800),
    skip=st.integers(0, 20), gap=st.sampled_from(Gap), fold=st.sampled_from(Fold),
)  # fmt: skip
def test_wherever_one_begins_the_occurrences_are_the_same(
    tz: str, line: str, at_s: int, skip: int, gap: Gap, fold: Fold
) -> None:
    rhythm = Rhythm(kind_from_text(line), tz, gap, fold)
    changes = [when for when, _, _ in transitions(tz, to_datetime(at_s * 1000).year)]
    start = (changes[at_s % len(changes)] - 7200 if changes else at_s) * 1000
    found = [o.at_ms for o in rhythm.between(start, start + 3 * 86_400_000, 40)]
    assert found == sorted(set(found))
    for cut in found[skip : skip + 2]:
        assert [o.at_ms for o in rhythm.between(cut, start + 3 * 86_400_000, 40)][: 40 - found.index(cut) - 1] == (
            found[found.index(cut) + 1 :]
        )
        assert rhythm.newest(start, cut, 3)[0][-1].at_ms == cut


@pytest.mark.parametrize(
    "name", ["", "+02:00", "UTC+2", "Europe/Nowhere", "localtime", "/etc/passwd", "../UTC", "x" * 99]
)
def test_a_name_that_is_no_zone_is_refused(name: str) -> None:
    with pytest.raises(InvalidTime):
        zone(name)
