"""Every search for the next time ends soon: for lines that never fire, for rare ones, and where a calendar blocks all."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given
from hypothesis import strategies as st

from zwheel.client.declare import make_definition
from zwheel.errors import InvalidInput, InvalidTime
from zwheel.payload.codec import DEFAULT
from zwheel.schedules import cron, occurrences, zones
from zwheel.schedules.calendars import Calendar, OnBlocked
from zwheel.schedules.cron import CronLine
from zwheel.schedules.definition import Definition
from zwheel.schedules.fields import RANGES
from zwheel.schedules.kinds import kind_from_text
from zwheel.schedules.occurrences import Rhythm

START = datetime(2026, 1, 1)
#: 51 years of months.
MOST_MONTHS = 51 * 12


def definition(when: str, task: str, **options: Any) -> Definition:
    return make_definition({}, DEFAULT, "s", when, task, **options)


class Counted:
    """Counts the calls of a function."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
        self.calls = 0
        real = getattr(module, name)

        def called(*args: Any) -> Any:
            self.calls += 1
            return real(*args)

        monkeypatch.setattr(module, name, called)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("* * * 31W 2 *", "day-of-month 31W contradicts month 2"),
        ("0 0 30 FEB *", "day-of-month 30 contradicts month FEB"),
        ("* * * 31 2,4,6 *", "day-of-month 31 contradicts month 2,4,6"),
        ("* * */20 * 1L", "day-of-month \\*/20 contradicts day-of-week 1L"),
        ("* * * */28 4 2#2", "day-of-month \\*/28 contradicts day-of-week 2#2"),
        ("* * * */30 2 5L", "day-of-month \\*/30, month 2 and day-of-week 5L contradict each other"),
        ("every 12 months on 31 from 2026-04-01", "none of its months has that day"),
    ],
)
def test_what_never_fires_is_refused_with_what_contradicts_it(line: str, reason: str) -> None:
    with pytest.raises(InvalidTime, match=f"never fires: .*{reason}"):
        kind_from_text(line)


def terms(position: int) -> st.SearchStrategy[str]:
    low, high = RANGES[position]
    number = st.integers(low, high).map(str)
    step = st.integers(1, high + 9).map(str)
    special = {3: ["L", "LW", "15W", "31W", "?", "H"], 4: ["FEB", "NOV-FEB"], 5: ["5L", "MON#5", "FRI-MON", "?", "H"]}
    return st.one_of(
        st.just("*"), number, step.map("*/{}".format), st.tuples(number, step).map("/".join),
        st.tuples(number, number).map("-".join), st.sampled_from(special.get(position, ["H", "H/7"])),
    )  # fmt: skip


LINES = st.tuples(*(st.lists(terms(i), min_size=1, max_size=2).map(",".join) for i in range(6))).map(" ".join)


@given(LINES, st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)))
def test_any_line_is_refused_or_its_next_time_found_within_fifty_years_of_months(line: str, after: datetime) -> None:
    try:
        read = CronLine.parse(line, "report")
    except InvalidTime:
        return
    assert read.words
    with pytest.MonkeyPatch.context() as patched:
        looked = Counted(patched, cron, "days_of")
        found = next(read.walls(after), None)
        assert looked.calls <= MOST_MONTHS
    assert found is not None or after.year > 9949
    assert found is None or found > after.replace(microsecond=0)


@given(LINES, st.datetimes(datetime(1990, 1, 1), datetime(2060, 1, 1)))
def test_any_line_fires_when_another_walker_says(line: str, after: datetime) -> None:
    try:
        read = CronLine.parse(line, "report")
        # It knows no H and no W, no range that goes over the end, and takes 5-5/2 for 5/2.
        theirs = CronSim(line.replace("?", "*"), after)
    except (InvalidTime, CronSimError):
        return
    assert list(islice(read.walls(after), 50)) == list(islice(theirs, 50))


@pytest.mark.parametrize("line", ["* * * 15W * *", "* * * * 2 MON#5", "0-58 0-58 0-22 29 2 *", "* * * */28 2 MON"])
def test_a_rare_line_costs_months_and_not_the_seconds_between(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = CronLine.parse(line)
    looked = Counted(monkeypatch, cron, "days_of")
    assert next(read.walls(datetime(2026, 3, 1))).month in (2, 3)
    assert looked.calls <= 40 * 12


def test_a_time_far_ahead_is_not_looked_for_year_by_year(monkeypatch: pytest.MonkeyPatch) -> None:
    rhythm = Rhythm(kind_from_text("every 1000 years at 09:00 from 2220-10-03"), "Europe/Berlin")
    looked = Counted(monkeypatch, zones, "transitions")
    assert [o.wall and o.wall.year for o in islice(rhythm.after(0), 4)] == [2220, 3220, 4220, 5220]
    assert looked.calls < 100


@pytest.mark.parametrize("on_blocked", OnBlocked)
@pytest.mark.parametrize(
    ("when", "blocked"),
    [
        ("0 9 * * MON", {"weekdays": ("mon",)}),
        ("0-58 0-58 9 * * *", {"windows": ("09:00-10:00",)}),
        ("*/5 * 9 * * *", {"windows": ("09:00-10:00",)}),
        ("every week on mon at 09:00", {"weekdays": ("mon",)}),
        ("0 0 29 2 *", {"dates": tuple(f"{year}-02-29" for year in range(1972, 2100, 4))}),
    ],
)
def test_a_schedule_whose_calendar_blocks_all_is_refused(
    when: str, blocked: dict[str, Any], on_blocked: OnBlocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    segments = Counted(monkeypatch, occurrences, "segment")
    calendar = Calendar(**blocked)
    if on_blocked is OnBlocked.SKIP:
        with pytest.raises(InvalidInput, match="never fires: its calendar blocks each of its times"):
            definition(when, "t", calendar=calendar)
    else:
        try:
            definition(when, "t", calendar=calendar, on_blocked=str(on_blocked))
        except InvalidInput as refused:
            assert any(word in str(refused) for word in ("times a day", "previous day", "fixed times"))  # noqa: PT017
    assert segments.calls < 10_000


def test_a_schedule_that_ends_before_its_first_time_is_refused() -> None:
    start, end = datetime.fromisoformat("2026-03-01T00:00Z"), datetime.fromisoformat("2027-03-01T00:00Z")
    with pytest.raises(InvalidInput, match="never fires: it has no time between its start and its end"):
        definition("0 0 29 2 *", "t", start=start, end=end)


def test_a_calendar_that_leaves_no_time_of_day_is_refused() -> None:
    with pytest.raises(InvalidInput, match="every time of day is blocked"):
        Calendar(windows=("22:00-06:00", "00:01-12:00", "12:00-22:00"))
    assert Calendar(windows=("22:00-06:00", "06:01-22:00")).window_blocked(datetime(2026, 1, 1, 6).time()) == ""


def walked(rhythm: Rhythm, after_ms: int, until_ms: int) -> Iterator[int]:
    for occurrence in rhythm.after(after_ms):
        if occurrence.at_ms > until_ms:
            return
        yield occurrence.at_ms


@given(
    when=st.sampled_from(["*/7 * * 2-3 *", "0 9 * * *", "0-30 2 * * MON", "every month on 31 at 09:00", "5 0 1 1 *"]),
    start_s=st.integers(1_700_000_000, 1_900_000_000), span_s=st.integers(1, 40_000_000), limit=st.integers(1, 40),
)  # fmt: skip
def test_the_newest_are_found_without_a_walk_through_all(when: str, start_s: int, span_s: int, limit: int) -> None:
    rhythm = Rhythm(kind_from_text(when), "Europe/Berlin")
    start, end = start_s * 1000, (start_s + span_s) * 1000
    every = list(walked(rhythm, start, end))
    found, more = rhythm.newest(start, end, limit)
    assert [o.at_ms for o in found] == every[-limit:]
    assert more == (len(every) > limit)


def test_the_newest_of_a_dense_month_cost_no_walk_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rhythm = Rhythm(kind_from_text("* * * * 2 *"), "UTC")
    made = Counted(monkeypatch, occurrences, "_occurrence")
    after, until = (
        int(datetime.fromisoformat(t).timestamp() * 1000) for t in ("2026-02-01T00:00Z", "2027-01-01T00:00Z")
    )
    found, more = rhythm.newest(after, until, 5)
    assert (more, found[-1].wall) == (True, datetime(2026, 2, 28, 23, 59, 59))
    assert made.calls < 2000


@pytest.mark.parametrize("part", ["1", "1h", " at", "a ", "mon,", "09:00 ", "(", "1,"])
@pytest.mark.parametrize("head", ["every ", "every week on ", "every day at ", "at ", "@every ", "cron(", "TZ=", ""])
def test_a_very_long_text_is_refused_without_a_search(head: str, part: str) -> None:
    with pytest.raises(InvalidInput):
        definition(head + part * (39_000 // len(part)) + "x", "t")
