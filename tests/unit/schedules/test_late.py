"""What a plan makes of occurrences that come back unstarted, of other zone data, and of a clock that was ahead."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from itertools import permutations
from typing import Any

import pytest

from zwheel.client.declare import make_definition
from zwheel.payload.codec import DEFAULT
from zwheel.schedules import zones
from zwheel.schedules.calendars import Calendar
from zwheel.schedules.definition import Definition
from zwheel.schedules.plan import AHEAD_MS, LEAST_GRACE_MS, drawn_back, plan
from zwheel.schedules.state import (
    Promise,
    ScheduleInfo,
    State,
    Status,
    Verdict,
    given_back,
    read_schedule,
    schedule_tail,
)

#: 2030-03-17T17:46:40Z, a whole second.
NOW = 1_900_000_000_000
#: 2030-03-17T00:00:00Z.
MIDNIGHT = int(datetime(2030, 3, 17, tzinfo=UTC).timestamp() * 1000)
HOUR, DAY = 3_600_000, 86_400_000
LONG = 3 * DAY


def made(when: str = "* * * * * *", **options: Any) -> Definition:
    return make_definition({}, DEFAULT, "s", when, "t", **options)


def again(definition: Definition, state: State) -> State:
    """The state as it is read back from its record."""
    raw = f"1{state.status.letter}{1:016d}{schedule_tail(state, definition)}".encode()
    read: ScheduleInfo = read_schedule(raw)
    assert read.state == state
    return read.state


def left(definition: Definition) -> State:
    """Ten occurrences on the wheel, and the fleet dies."""
    outcome = plan(definition, State(cursor_ms=NOW), NOW).free
    assert len(outcome.jobs) == 10
    return outcome.state


def back_in(order: Any, definition: Definition, state: State, now: int) -> tuple[State, list[int]]:
    """Occurrences come back one by one, and the schedule is looked at after each. The state, and what runs, sorted."""
    runs: list[int] = []
    for number in order:
        state = again(definition, given_back(state, [NOW + 1000 * number]))
        outcome = plan(definition, state, now).free
        runs += [job.at_ms for job in outcome.jobs]
        assert all(job.catch_up for job in outcome.jobs)
        state = again(definition, outcome.state)
    return state, sorted(runs)


@pytest.mark.parametrize("order", [*permutations((8, 9, 10)), tuple(range(1, 11)), tuple(range(10, 0, -1))])
def test_the_newest_of_those_that_come_back_runs_in_whatever_order_they_come(order: tuple[int, ...]) -> None:
    definition = made(end=datetime.fromtimestamp((NOW + 10_000) / 1000, UTC))
    state, runs = back_in(order, definition, left(definition), NOW + LONG)
    assert runs == [NOW + 10_000]
    assert (state.missed, state.fired, state.status) == (len(order) - 1, 10 - len(order) + 1, Status.FINISHED)


@pytest.mark.parametrize("limit", [1, 3, 10])
def test_those_that_come_back_one_by_one_share_the_limit(limit: int) -> None:
    definition = made(misfire="fire_all", misfire_limit=limit, end=datetime.fromtimestamp((NOW + 10_000) / 1000, UTC))
    state, runs = back_in(range(1, 11), definition, left(definition), NOW + LONG)
    assert len(runs) == limit
    assert (state.fired, state.missed) == (limit, 10 - limit)


def test_the_limit_is_shared_with_those_that_nothing_had_decided() -> None:
    definition = made(misfire="fire_all", misfire_limit=5, grace=0)
    state = left(definition)
    first = plan(definition, state, NOW + LONG + 500).free
    assert sum(job.catch_up for job in first.jobs) == 5
    state, runs = first.state, 0
    for number in range(1, 11):
        outcome = plan(definition, given_back(state, [NOW + 1000 * number]), NOW + LONG + 500).free
        state, runs = outcome.state, runs + len(outcome.jobs)
    assert runs == 0
    # The next outage has a limit of its own.
    later = plan(definition, state, NOW + 2 * LONG + 500).free
    assert sum(job.catch_up for job in later.jobs) == 5


def test_what_comes_back_runs_before_what_is_due_since_and_has_a_new_latest_start() -> None:
    definition = made(misfire="fire_all", end=datetime.fromtimestamp((NOW + 10_000) / 1000, UTC))
    (job,) = plan(definition, given_back(left(definition), [NOW + 1000]), NOW + LONG).free.jobs
    assert (job.fire_ms, job.by_ms, job.catch_up) == (NOW + 1000, NOW + LONG + 60_000, True)


@pytest.mark.parametrize(("grace", "late"), [(0, LEAST_GRACE_MS), (0.5, LEAST_GRACE_MS), (60, 60_000)])
def test_an_occurrence_may_start_until_its_grace_is_over(grace: float, late: int) -> None:
    jobs = plan(made(grace=grace, jitter=2), State(cursor_ms=NOW), NOW).free.jobs
    assert [job.by_ms for job in jobs] == [job.fire_ms + late for job in jobs]


def test_an_end_that_was_reached_is_not_when_the_last_one_comes_back() -> None:
    definition = made(max_count=10, misfire="skip")
    state = left(definition)
    assert state.status is Status.FINISHED
    state = given_back(state, [NOW + 10_000])
    assert (state.status, state.fired, state.taken) == (Status.ACTIVE, 9, (NOW + 10_000,))
    outcome = plan(definition, state, NOW + LONG).free
    assert outcome.state.status is Status.FINISHED
    assert outcome.state.missed > 1000
    assert [job.catch_up for job in outcome.jobs] == [False]


def test_a_pause_keeps_what_comes_back() -> None:
    state = replace(left(made()), status=Status.PAUSED)
    assert given_back(state, [NOW + 1000]).status is Status.PAUSED
    assert given_back(state, [NOW + 1000]).taken == (NOW + 1000,)


class Zone:
    """Zone data that the test changes: how far the clocks of Etc/UTC are from what they are."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real, self._patch = zones._offset_s, monkeypatch

    def shift(self, seconds: int) -> None:
        """The wall clock shows so much more."""
        self._patch.setattr(zones, "_offset_s", lambda name, at_s: self._real(name, at_s) + seconds)
        zones.transitions.cache_clear()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Zone]:
    yield Zone(monkeypatch)
    monkeypatch.undo()
    zones.transitions.cache_clear()


NINE = MIDNIGHT + 9 * HOUR


def looks(definition: Definition, state: State, zone: Zone, *turns: tuple[int, int]) -> tuple[State, list[int]]:
    """Workers with different data look: each turn a time and a shift. The state, and what went on the wheel."""
    ran: list[int] = []
    for now, shift in turns:
        zone.shift(shift)
        planned = plan(definition, state, now)
        ran += [job.at_ms for job in planned.free.jobs]
        state = again(definition, planned.free.state)
    return state, ran


@pytest.mark.parametrize("overlap", ["allow", "skip"])
@pytest.mark.parametrize("shift", [20, -20, 600, 3600, -3600, 7200])
@pytest.mark.parametrize("seed", range(8))
def test_a_fleet_with_old_and_new_zone_data_runs_each_wall_time_once_or_counts_it(
    zone: Zone, shift: int, seed: int, overlap: str
) -> None:
    """Whichever worker looks when something is due: each of three days has one occurrence, run or missed."""
    definition = made("0 9 * * *", tz="Etc/UTC", overlap=overlap, grace=seed % 2 * 7200)
    zone.shift(0)
    state = plan(definition, State(cursor_ms=MIDNIGHT + 7 * HOUR), MIDNIGHT + 7 * HOUR).free.state
    ran, now, turn = [], MIDNIGHT + 7 * HOUR, seed
    while now < MIDNIGHT + 2 * DAY + 12 * HOUR:
        turn += 1 + turn // 2 % 2
        zone.shift(shift if turn % 2 else 0)
        outcome = plan(definition, state, now).free
        ran += [job.at_ms for job in outcome.jobs]
        state = again(definition, outcome.state)
        assert outcome.due_ms is not None
        now = max(now + 1000, outcome.due_ms)
    days = [(at + 4 * HOUR) // DAY for at in ran]
    assert len(days) == len(set(days))
    assert len(days) + state.missed == 3


def test_what_was_promised_and_comes_no_more_is_counted(zone: Zone) -> None:
    """A holiday that other data do not have: a newer package, or another."""
    open_, closed = made("0 9 * * *"), made("0 9 * * *", calendar=Calendar(dates=("2030-03-17",)))
    state = plan(open_, State(cursor_ms=MIDNIGHT), MIDNIGHT).free.state
    assert state.promise == Promise(NINE, "2030-03-17T09:00:00")
    # It stays promised until its time, whichever worker looks meanwhile.
    state = again(closed, plan(closed, state, MIDNIGHT + HOUR).free.state)
    assert state.promise == Promise(NINE, "2030-03-17T09:00:00")
    outcome = plan(closed, state, NINE - 5000).free
    assert (outcome.jobs, outcome.state.missed, outcome.state.next_ms) == ((), 1, NINE + DAY)
    assert outcome.state.recent[-1].verdict is Verdict.MISSED
    # And by data that know of no holiday it runs.
    assert [job.at_ms for job in plan(open_, state, NINE - 5000).free.jobs] == [NINE]
    assert plan(open_, outcome.state, NINE).free.jobs == ()


def test_two_promises_are_kept_apart() -> None:
    """Two packages that disagree about two days: each promises the other's holiday."""
    first, second = (made("0 9 * * *", calendar=Calendar(dates=(f"2030-03-{day}",))) for day in (17, 18))
    state = plan(second, State(cursor_ms=MIDNIGHT + 10 * HOUR), MIDNIGHT + 10 * HOUR).free.state
    assert state.next_ms == NINE + 2 * DAY
    state = again(first, plan(first, state, MIDNIGHT + 11 * HOUR).free.state)
    assert (state.next_ms, [p.at_ms for p in state.owed]) == (NINE + DAY, [NINE + 2 * DAY])
    state, _ = again(first, state), None
    outcome = plan(first, state, NINE + DAY).free
    assert [job.at_ms for job in outcome.jobs] == [NINE + DAY]
    assert (outcome.state.next_ms, outcome.state.owed) == (NINE + 2 * DAY, ())


def test_a_record_of_an_older_version_names_no_wall_time() -> None:
    state = State(cursor_ms=MIDNIGHT, next_ms=NINE)
    assert [job.at_ms for job in plan(made("0 9 * * *"), state, NINE - 5000).free.jobs] == [NINE]


@pytest.mark.parametrize("jump", [HOUR, 10 * 365 * DAY])
@pytest.mark.parametrize("when", ["* * * * * *", "0 * * * * *", "0 9 * * *", "@every 90s"])
@pytest.mark.parametrize("policy", ["skip", "fire_once", "fire_all"])
def test_a_clock_that_was_ahead_leaves_no_gap_and_nothing_twice(jump: int, when: str, policy: str) -> None:
    definition = made(when, misfire=policy, misfire_limit=3)
    start = State(cursor_ms=NOW, anchor_ms=NOW, created_ms=NOW)
    before = plan(definition, start, NOW).free.state
    ahead = plan(definition, before, NOW + jump)
    ran = {job.at_ms for job in ahead.free.jobs}
    # What is on the wheel or ran has a record, and the script puts nothing over that.
    exists = {*(at for at, _ in before.ahead), *ran}
    state, fires = again(definition, ahead.free.state), []
    now = NOW + 2_000
    for _ in range(400):
        outcome = plan(definition, state, now).free
        fires += [job.at_ms for job in outcome.jobs if job.at_ms not in exists]
        assert not any(job.catch_up for job in outcome.jobs)
        state = again(definition, outcome.state)
        if outcome.due_ms is None:
            break
        now = max(now, outcome.due_ms)
    wanted = [o.at_ms for o in definition.rhythm(NOW).between(NOW, state.cursor_ms, 100_000)]
    assert sorted(fires) == [at for at in wanted if at not in exists]
    assert state.missed <= before.missed + 20, "what cannot be counted exactly is a lower bound"
    assert all(d.at_ms <= now + AHEAD_MS for d in state.recent)


def test_a_clock_that_went_back_takes_up_what_the_wheel_knows() -> None:
    """Eight seconds back: what is on the wheel stays there, and what ran is known by its id."""
    definition = made()
    state = left(definition)
    outcome = plan(definition, state, NOW - 8_000).free
    assert outcome.state.cursor_ms == NOW + 2_000
    assert [job.at_ms for job in outcome.jobs] == [NOW - 1000 * n for n in range(7, -1, -1)]
    assert outcome.due_ms is not None
    assert outcome.due_ms <= NOW


def test_a_schedule_that_a_wrong_clock_finished_goes_on() -> None:
    definition = made("0 9 * * *", end=datetime.fromtimestamp((MIDNIGHT + 5 * DAY) / 1000, UTC))
    ended = plan(definition, State(cursor_ms=MIDNIGHT), MIDNIGHT + 10 * DAY).free.state
    assert ended.status is Status.FINISHED
    state = drawn_back(definition, ended, MIDNIGHT + HOUR)
    assert (state.status, state.cursor_ms) == (Status.ACTIVE, MIDNIGHT + HOUR)
    assert plan(definition, state, MIDNIGHT + HOUR).free.state.next_ms == NINE


def test_a_start_that_is_far_ahead_is_no_clock_that_was() -> None:
    definition = made("0 9 * * *", start=datetime.fromtimestamp((MIDNIGHT + 5 * DAY) / 1000, UTC))
    state = plan(definition, State(cursor_ms=MIDNIGHT), MIDNIGHT).free.state
    assert drawn_back(definition, state, MIDNIGHT + HOUR) is state
