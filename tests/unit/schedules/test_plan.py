"""What one advance does, for every policy, from a record and a time alone."""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import Any

import pytest

from zwheel.client.declare import make_definition
from zwheel.errors import InvalidInput, InvalidName, UndecodableJob
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.definition import Definition, jitter_of, occurrence_id
from zwheel.schedules.plan import AHEAD_MS, BUFFER_LOOK_MS, Plan, plan, replan
from zwheel.schedules.state import RECENT, ScheduleInfo, State, Status, Verdict, read_schedule, schedule_tail

#: 2030-03-17T17:46:40Z, a whole second.
NOW = 1_900_000_000_000


def made(when: str = "* * * * * *", **options: Any) -> Definition:
    return make_definition({}, DEFAULT, "s", when, "t", **options)


def at(planned: Plan) -> list[int]:
    """Nominal times that go on the wheel, ms from now."""
    return [job.at_ms - NOW for job in planned.free.jobs]


def test_occurrences_go_on_the_wheel_ahead_of_their_time() -> None:
    outcome = plan(made("*/2 * * * * *"), State(cursor_ms=NOW), NOW).free
    assert [job.at_ms - NOW for job in outcome.jobs] == [2000, 4000, 6000, 8000, 10_000]
    assert [job.previous_ms for job in outcome.jobs] == [None, *(job.at_ms for job in outcome.jobs[:-1])]
    assert not any(job.catch_up for job in outcome.jobs)
    assert outcome.state.cursor_ms == NOW + AHEAD_MS
    assert outcome.due_ms == NOW + 12_000 - AHEAD_MS // 2
    assert outcome.state.ahead == tuple((job.at_ms, job.fire_ms) for job in outcome.jobs)
    assert (outcome.state.fired, outcome.state.last_ms) == (5, NOW + 10_000)


def test_nothing_is_decided_twice() -> None:
    first = plan(made(), State(cursor_ms=NOW), NOW).free
    again = plan(made(), first.state, NOW).free
    assert again.jobs == ()
    later = plan(made(), first.state, NOW + 5000).free
    assert [job.at_ms - NOW for job in later.jobs] == [n * 1000 for n in range(11, 16)]


@pytest.mark.parametrize(
    ("options", "late", "caught_up"),
    [
        ({"misfire": "skip"}, [0], 0),
        ({"misfire": "skip", "grace": 0}, [0], 0),
        ({"misfire": "fire_once"}, [0], 0),
        ({"misfire": "fire_all", "misfire_limit": 3}, [-3000, -2000, -1000, 0], 3),
        ({"misfire": "fire_all", "misfire_limit": 1000}, [n * 1000 for n in range(-999, 1)], 999),
        ({"misfire": "fire_all", "misfire_limit": 1000, "window": 2}, [-2000, -1000, 0], 2),
    ],
)
def test_a_thousand_missed_seconds_follow_their_policy(
    options: dict[str, Any], late: list[int], caught_up: int
) -> None:
    outcome = plan(made(**options), State(cursor_ms=NOW - 1_000_000), NOW).free
    past = [job for job in outcome.jobs if job.at_ms <= NOW]
    assert [job.at_ms - NOW for job in past] == late
    assert sum(job.catch_up for job in past) == caught_up
    assert outcome.state.missed == 1000 - len(late)
    assert all(job.fire_ms == (NOW if job.catch_up else job.at_ms) for job in past)


@pytest.mark.parametrize(
    ("options", "late", "catch_up"),
    [
        ({"misfire": "skip"}, [], False),
        ({"misfire": "fire_once"}, [-500], True),
        ({"misfire": "fire_once", "window": 0.1}, [], False),
        ({"misfire": "fire_once", "grace": 1}, [-500], False),
        ({"misfire": "skip", "grace": 1}, [-500], False),
        ({"misfire": "fire_all", "misfire_limit": 2}, [-1500, -500], True),
    ],
)
def test_the_newest_one_is_on_time_within_the_grace(options: dict[str, Any], late: list[int], catch_up: bool) -> None:
    outcome = plan(made(**{"grace": 0} | options), State(cursor_ms=NOW - 10_000), NOW + 500).free
    past = [job for job in outcome.jobs if job.at_ms <= NOW + 500]
    assert [job.at_ms - NOW - 500 for job in past] == late
    assert all(job.catch_up is catch_up for job in past)


def test_an_endless_outage_costs_no_more_than_its_limit() -> None:
    outcome = plan(made(misfire="fire_all", misfire_limit=50), State(cursor_ms=NOW - 10 * 365 * 86_400_000), NOW).free
    assert len([job for job in outcome.jobs if job.at_ms <= NOW]) == 51
    assert outcome.state.missed >= 900
    assert len(outcome.state.recent) == RECENT


def test_a_guarded_occurrence_goes_on_the_wheel_ahead_when_the_one_before_has_ended() -> None:
    definition = made("*/20 * * * * *", overlap="skip")
    early = plan(definition, State(cursor_ms=NOW), NOW)
    assert (early.free.jobs, early.busy, early.free.due_ms) == ((), None, NOW + 20_000 - AHEAD_MS // 2)
    first = plan(definition, early.free.state, NOW + 15_000)
    assert at(first) == [20_000]
    assert (first.busy, first.free.state.ahead) == (None, ((NOW + 20_000, NOW + 20_000),))
    second = plan(definition, first.free.state, NOW + 35_000)
    assert (second.after_ms, at(second)) == (NOW + 20_000, [40_000])
    # Is it still active, then nothing is decided yet: it may end in time.
    assert second.busy is not None
    assert (second.busy.state, second.busy.jobs, second.busy.due_ms) == (first.free.state, (), NOW + 40_000)
    third = plan(definition, second.busy.state, NOW + 40_000)
    assert (third.after_ms, at(third)) == (NOW + 20_000, [40_000])
    assert third.busy is not None
    assert (third.busy.jobs, third.busy.state.skipped, third.busy.due_ms) == ((), 1, NOW + 55_000)
    assert third.busy.state.recent[-1].verdict is Verdict.SKIPPED


def test_only_one_guarded_occurrence_is_on_the_wheel() -> None:
    definition = made("* * * * * *", overlap="skip")
    ready = plan(definition, State(cursor_ms=NOW), NOW).free
    assert ready.due_ms == NOW + 500
    first = plan(definition, ready.state, NOW + 500).free
    assert [job.at_ms - NOW for job in first.jobs] == [1000]
    assert first.due_ms == NOW + 1500
    # Whoever looks before: the one on the wheel is active, and the next is decided at its time.
    soon = plan(definition, first.state, NOW + 600)
    assert soon.busy is not None
    assert (soon.after_ms, soon.busy.jobs, soon.busy.due_ms) == (NOW + 1000, (), NOW + 2000)


def test_what_is_due_comes_before_what_goes_on_the_wheel_ahead() -> None:
    definition = made("*/5 * * * * *", overlap="skip")
    state = replace(State(cursor_ms=NOW - 1), next_ms=NOW, last_ms=NOW - 5000)
    now = plan(definition, state, NOW)
    assert at(now) == [0]
    assert now.free.state.cursor_ms == NOW
    assert now.busy is not None
    assert now.busy.state.skipped == 1
    back = replace(State(cursor_ms=NOW), next_ms=NOW + 5000, taken=(NOW - 5000,))
    assert at(plan(definition, back, NOW)) == [-5000]
    waits = replace(State(cursor_ms=NOW), next_ms=NOW + 5000, buffered_ms=NOW - 5000, last_ms=NOW - 10_000)
    assert at(plan(made("*/5 * * * * *", overlap="buffer_one"), waits, NOW)) == [-5000]


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "cancel_other"])
@pytest.mark.parametrize("when", ["* * * * * *", "*/3 * * * * *", "@every 7s", "*/20 * * * * *"])
@pytest.mark.parametrize("seed", range(6))
def test_looking_ahead_decides_as_looking_at_the_very_time_would(when: str, overlap: str, seed: int) -> None:
    """An occurrence runs when the one before has ended by its time, however long each of them takes."""
    definition, random = made(when, overlap=overlap, jitter=seed % 2), Random(seed)
    state, now, last = State(cursor_ms=NOW, anchor_ms=NOW), NOW, NOW + 300_000
    runs: list[int] = []
    ends: dict[int, int] = {}
    while now < last:
        planned = plan(definition, state, now)
        active = planned.after_ms is not None and ends.get(planned.after_ms, 0) > now
        outcome = planned.busy if active and planned.busy is not None else planned.free
        for job in outcome.jobs:
            assert all(end <= job.fire_ms for end in ends.values()), "two of them run at a time"
            ends[job.at_ms] = job.fire_ms + random.choice((10, 900, 2500, 8000, 30_000))
            runs.append(job.at_ms)
        state, due = outcome.state, outcome.due_ms
        assert due is not None
        # A worker is told when the occurrence has ended for which another waits.
        free = min([end for end in ends.values() if end > now], default=due) if state.buffered_ms else due
        now = max(now + 1, min(due, free) + random.choice((0, 0, 20)))
    rhythm = definition.rhythm(NOW)
    for nominal in (o.at_ms for o in rhythm.between(NOW, last - 31_000, 1000)):
        before = max((ends[at] for at in runs if at < nominal), default=0)
        late = jitter_of("s", nominal, definition.jitter_ms) + 20
        assert nominal in runs or before > nominal, f"{nominal - NOW} was left out, though all had ended"
        assert nominal not in runs or overlap != "skip" or before <= nominal + late
    assert len(runs) + state.skipped + bool(state.buffered_ms) >= len(rhythm.between(NOW, state.cursor_ms, 1000))


def test_one_occurrence_waits_and_the_others_are_skipped() -> None:
    definition = made("*/5 * * * * *", overlap="buffer_one")
    ran = replace(State(cursor_ms=NOW), last_ms=NOW - 5000)
    waits = plan(definition, ran, NOW + 5000).busy
    assert waits is not None
    assert (waits.state.buffered_ms, waits.jobs, waits.due_ms) == (NOW + 5000, (), NOW + 5000 + BUFFER_LOOK_MS)
    still = plan(definition, waits.state, NOW + 10_000).busy
    assert still is not None
    assert (still.state.buffered_ms, still.state.skipped) == (NOW + 5000, 1)
    goes = plan(definition, still.state, NOW + 11_000).free
    assert [(job.at_ms, job.fire_ms) for job in goes.jobs] == [(NOW + 5000, NOW + 11_000)]
    assert goes.state.buffered_ms is None
    assert [d.verdict for d in goes.state.recent] == [Verdict.BUFFERED, Verdict.SKIPPED]


def test_one_that_waits_goes_at_once_when_overlap_is_allowed_by_now() -> None:
    waits = replace(State(cursor_ms=NOW + 5000), last_ms=NOW, buffered_ms=NOW + 5000)
    goes = plan(made("0 0 1 1 *"), waits, NOW + 6000).free
    assert [(job.at_ms, job.fire_ms, job.catch_up) for job in goes.jobs] == [(NOW + 5000, NOW + 6000, False)]
    assert (goes.state.buffered_ms, goes.state.fired) == (None, 1)
    assert [d.verdict for d in goes.state.recent] == [Verdict.BUFFERED]


def test_a_count_and_an_end_finish_a_schedule() -> None:
    three = plan(made(max_count=3), State(cursor_ms=NOW), NOW).free
    assert (len(three.jobs), three.state.status, three.due_ms) == (3, Status.FINISHED, None)
    ends = replace(made(), end_ms=NOW + 2500)
    over = plan(ends, State(cursor_ms=NOW), NOW).free
    assert (len(over.jobs), over.state.status) == (2, Status.FINISHED)
    starts = replace(made(), start_ms=NOW + 8000)
    assert at(plan(starts, State(cursor_ms=NOW), NOW)) == [8000, 9000, 10_000]
    times = made("at 2030-03-17T17:46:45Z")
    once = plan(times, State(cursor_ms=NOW), NOW).free
    assert (at(plan(times, State(cursor_ms=NOW), NOW)), once.state.status) == ([5000], Status.FINISHED)


def test_a_jitter_is_bounded_and_the_same_for_everyone() -> None:
    definition = made(jitter=30)
    jobs = plan(definition, State(cursor_ms=NOW), NOW).free.jobs
    delays = [job.fire_ms - job.at_ms for job in jobs]
    assert delays == [jitter_of("s", job.at_ms, 30_000) for job in jobs]
    assert all(0 <= delay <= 30_000 for delay in delays)
    assert len(set(delays)) > 5
    assert jitter_of("s", NOW, 0) == 0


def test_one_whose_jitter_is_not_over_was_not_missed() -> None:
    definition = made(jitter=30, grace=0, misfire="skip")
    times = range(NOW - 29_000, NOW + 1, 1000)
    delayed = [at for at in times if at + jitter_of("s", at, 30_000) > NOW]
    outcome = plan(definition, State(cursor_ms=NOW - 30_000), NOW).free
    past = [job for job in outcome.jobs if job.at_ms <= NOW]
    assert [job.at_ms for job in past] == delayed
    assert [job.fire_ms for job in past] == [at + jitter_of("s", at, 30_000) for at in delayed]
    assert outcome.state.missed == 30 - len(delayed) > 0


def test_no_more_wait_for_their_jitter_than_a_record_can_list() -> None:
    assert made("* * * * *", jitter=5940).jitter_ms == 5_940_000
    for when, jitter in (("* * * * *", 6000), ("* * * * * *", 101), ("@every 1s", 101), ("0 0 * * *", 101 * 86_400)):
        with pytest.raises(InvalidInput, match="jitter"):
            made(when, jitter=jitter)
    assert made("at 2030-03-17T17:46:45Z", jitter=86_400).jitter_ms == 86_400_000


def test_what_an_edit_took_back_fires_if_its_time_stays() -> None:
    state = State(cursor_ms=NOW)
    again = [NOW - 3000, NOW - 2500, NOW]
    outcome = replan(made("0 0 1 1 *"), state, NOW, again)
    assert outcome.jobs == ()
    outcome = replan(made(misfire="skip", grace=0), state, NOW, again)
    assert [job.at_ms - NOW for job in outcome.jobs][:3] == [-3000, 0, 1000]
    assert [d.verdict for d in outcome.state.recent[:2]] == [Verdict.FIRED, Verdict.FIRED]
    outcome = replan(made(overlap="skip"), state, NOW, again)
    assert [job.at_ms - NOW for job in outcome.jobs] == [-3000, 0]
    later = replace(made(), start_ms=NOW - 1000, end_ms=NOW + 500)
    assert [job.at_ms - NOW for job in replan(later, state, NOW, again).jobs] == [0]


def test_what_a_pause_took_back_is_missed_when_it_goes_on() -> None:
    state = State(cursor_ms=NOW, taken=(NOW - 90_000, NOW - 80_000))
    for misfire, runs in (("skip", []), ("fire_once", [-80_000]), ("fire_all", [-90_000, -80_000])):
        outcome = plan(made("0 0 1 1 *"), state, NOW).free
        assert outcome.jobs == ()
        outcome = plan(made("*/10 * * * * *", misfire=misfire), state, NOW).free
        assert [job.at_ms - NOW for job in outcome.jobs if job.at_ms <= NOW] == runs
        assert (outcome.state.taken, outcome.state.missed) == ((), 2 - len(runs))


def test_every_counts_from_its_anchor_and_never_drifts() -> None:
    definition = made("@every 7s")
    anchor = NOW - 1234
    state = State(cursor_ms=NOW, anchor_ms=anchor)
    fired = []
    for look in range(0, 60_000, 3_333):
        outcome = plan(definition, state, NOW + look).free
        fired += [job.at_ms for job in outcome.jobs]
        state = outcome.state
    assert fired == [anchor + n * 7000 for n in range(1, len(fired) + 1)]


def test_an_occurrence_s_id_is_its_name_and_time() -> None:
    assert occurrence_id("report", NOW) == "report@2030-03-17T17:46:40Z"
    assert occurrence_id("report", NOW + 250, ":trigger") == "report@2030-03-17T17:46:40.250Z:trigger"


def test_a_record_says_all_of_a_schedule() -> None:
    definition = made(
        "every 2 weeks on tue at 09:00 from 2026-11-24", tz="Europe/Berlin", overlap="skip", args=[b"\x00"]
    )
    state = plan(made(), State(cursor_ms=NOW, created_ms=5, declared="x"), NOW).free.state
    raw = f"1a{NOW * 1000:016d}{schedule_tail(state, definition)}".encode()
    info = read_schedule(raw)
    assert info == ScheduleInfo(definition=definition, state=state, stamp=f"{NOW * 1000:016d}")
    assert Definition.parse(definition.text()) == definition
    assert definition.digest() != made().digest()


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"2a0000000000000001\n{}\n{}", b"1z0000000000000001\n{}\n{}", b"1a00000000000000x1\n{}\n{}", b"\xff",
        b"1a0000000000000001\n{}\n{}", b'1a0000000000000001\n{}\n{"name":"s","queue":"q","kind":{"cron":"99 * * * *"}}',
        b"1a0000000000000001\n[]\n" + made().text().encode(), b"1a0000000000000001\n{",
        b"1a0000000000000001\n{}\n" + made().text().encode()[:-1] + b',"colour":"red"}',
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_read_says_so(raw: bytes) -> None:
    with pytest.raises(UndecodableJob):
        read_schedule(raw)


def test_names_and_sizes_are_bounded() -> None:
    with pytest.raises(InvalidName, match="90"):
        replace(made(), name="x" * 91).check()
    with pytest.raises(InvalidInput):
        replace(made(), description="x" * 1001).check()
