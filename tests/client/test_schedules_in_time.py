"""Schedules over minutes and hours, at times that the test gives, on a real server."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from tests.endings import complete
from tests.servers import RedisServer
from zwheel import calls
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import Session
from zwheel.client.declare import make_definition
from zwheel.operations import read
from zwheel.operations import schedules as ops
from zwheel.operations.occurrence import advance_of
from zwheel.payload.codec import DEFAULT
from zwheel.schedules.definition import jitter_of
from zwheel.schedules.plan import plan
from zwheel.schedules.state import ScheduleInfo, Status
from zwheel.verify.schedules import nominal_ms

T = TypeVar("T")
#: 2030-03-17T18:00:00Z, ms.
HOUR = 1_900_000_800_000
MINUTE = 60_000


def nominal(job_id: str) -> int:
    at_ms = nominal_ms(job_id)
    assert at_ms is not None
    return at_ms


class Clock:
    """A client whose time stands where the test puts it, ms after the hour; the scripts get the same time."""

    def __init__(self, server: RedisServer) -> None:
        self.store = SyncStore(server.url, Session("zw", "c"), timeout_s=5)
        self.session = self.store.session
        self.at(0)

    def at(self, ms: int) -> None:
        self.now_ms = HOUR + ms
        self.session.now = str(self.now_ms * 1000)

    def run(self, steps: Steps[T]) -> T:
        try:
            ask = next(steps)
            while True:
                assert not isinstance(ask, (int, float))
                ask = steps.send([self._reply(command) for command in ask])
        except StopIteration as end:
            result: T = end.value
            return result

    def _reply(self, command: Any) -> Any:
        if command == ("TIME",):
            return [str(self.now_ms // 1000), str(self.now_ms % 1000 * 1000)]
        return self.store.send([command])[0]

    def write(self, when: str, task: str = "old", **options: Any) -> ScheduleInfo:
        """Add it, or give it another definition."""
        definition = make_definition({}, DEFAULT, "s", when, task, **options)
        return self.run(ops.add_schedule(self.session, DEFAULT, definition, True))

    def pause(self) -> ScheduleInfo:
        return self.run(ops.pause_schedule(self.session, DEFAULT, "s", None))

    def resume(self, *, catch_up: bool) -> ScheduleInfo:
        return self.run(ops.resume_schedule(self.session, DEFAULT, "s", None, catch_up))

    def read(self) -> ScheduleInfo:
        return self.run(ops.schedule(self.session, "s", None))

    def advance(self) -> None:
        """What a worker does when the schedule is due."""
        info = self.read()
        call = calls.advance(
            self.session.keys("default"),
            [advance_of(info, DEFAULT, plan(info.definition, info.state, self.now_ms))], now=self.session.now,
        )  # fmt: skip
        (word,) = calls.read_advance(call, self.store.send([call])[0])
        assert word[0] in "ab"

    def wheel(self) -> dict[int, tuple[int, str]]:
        """What is on the wheel: nominal time -> fire time, both ms after the hour, and the task."""
        found = self.run(read.jobs(self.session, "default", None, 1000, 0))
        return {nominal(job.id) - HOUR: (job.fire_at_ms - HOUR, job.task) for job in found if job.state == "scheduled"}

    def run_due(self) -> list[int]:
        """Claim and complete all that is due; give the nominal times, ms after the hour."""
        keys = self.session.keys("default")
        ran: list[int] = []
        while True:
            lane = calls.Lane("w", "claim", self.session.request())
            claim = calls.claim(
                keys, day="20300317", worker="w", lease_ms=30_000, limit=100, lane=lane, now=self.session.now
            )
            claimed = calls.read_claim(self.store.send([claim])[0])
            ends = [(claimed.jobs[i], claimed.jobs[i + 1][21:37]) for i in range(0, len(claimed.jobs), 2)]
            if not ends:
                return sorted(ran)
            ran += [nominal(job_id.decode()) - HOUR for job_id, _ in ends]
            lane = calls.Lane("w", "complete", self.session.request())
            self.store.send([complete(keys, ends, lane=lane, now=self.session.now)])

    def forget(self) -> None:
        """Let the tombstones go whose time is over."""
        keys = self.session.keys("default")
        self.store.send([calls.prune(keys, limit=1000, dead_age_ms=1, now=self.session.now)])


@pytest.fixture
def clock(fresh: RedisServer) -> Iterator[Clock]:
    made = Clock(fresh)
    yield made
    made.store.close()


def test_an_edit_keeps_what_waits_for_its_jitter(clock: Clock) -> None:
    clock.write("* * * * * *", jitter=60)
    before = clock.wheel()
    clock.at(4_500)
    ran = clock.run_due()
    waits = {at: fire for at, (fire, _) in before.items() if at not in ran}
    assert [at for at in waits if at <= 4_500], "nothing waits for its jitter alone"
    clock.write("* * * * * *", "new", jitter=60)
    after = clock.wheel()
    assert {at: fire for at, (fire, _) in after.items() if at in waits} == waits
    assert {task for _, task in after.values()} == {"new"}
    assert not set(after) & set(ran)
    even = clock.write("*/2 * * * * *", "even", jitter=60).state
    assert set(clock.wheel()) >= {at for at in waits if at % 2_000 == 0}
    assert not [at for at in clock.wheel() if at % 2_000]
    assert even.fired == len(ran) + len(clock.wheel())


def test_an_edit_with_another_jitter_moves_what_waits(clock: Clock) -> None:
    clock.write("0 * * * * *", jitter=3600)
    clock.at(2 * MINUTE)
    clock.advance()
    assert set(clock.wheel()) >= {MINUTE, 2 * MINUTE}
    clock.write("0 * * * * *", jitter=30)
    assert {at: fire for at, (fire, _) in clock.wheel().items()} == {
        at: at + jitter_of("s", HOUR + at, 30_000) for at in (MINUTE, 2 * MINUTE)
    }


@pytest.mark.parametrize(("misfire", "owed"), [("fire_all", 60), ("fire_once", 1), ("skip", 0)])
def test_what_no_worker_had_decided_is_owed_after_an_edit(clock: Clock, misfire: str, owed: int) -> None:
    """A new version is deployed after an outage: its schedules say a little more than before, and missed the same."""
    clock.write("0 * * * * *", misfire=misfire)
    clock.at(60 * MINUTE + 30_000)
    assert clock.run_due() == []
    state = clock.write("0 * * * * *", "new", misfire=misfire, grace=1).state
    assert len(clock.wheel()) == state.fired == owed
    assert state.missed == 60 - owed
    assert {task for _, task in clock.wheel().values()} <= {"new"}


def test_what_has_other_times_has_nothing_to_make_up(clock: Clock) -> None:
    clock.write("0 * * * * *", misfire="fire_all")
    clock.at(60 * MINUTE + 30_000)
    clock.write("30 * * * * *", misfire="fire_all")
    assert clock.wheel() == {}
    assert clock.read().next_ms == HOUR + 61 * MINUTE + 30_000


def test_a_finished_schedule_that_goes_on_has_nothing_to_make_up(clock: Clock) -> None:
    clock.write("0 * * * * *", misfire="fire_all", max_count=1)
    clock.at(MINUTE - 4_000)
    clock.advance()
    assert clock.read().status is Status.FINISHED
    clock.at(60 * MINUTE + 30_000)
    assert clock.run_due() == [MINUTE]
    clock.write("0 * * * * *", misfire="fire_all")
    assert (clock.read().status, clock.wheel()) == (Status.ACTIVE, {})


@pytest.mark.parametrize("overlap", ["skip", "buffer_one", "cancel_other"])
def test_one_that_is_due_and_not_looked_at_outlasts_an_edit(clock: Clock, overlap: str) -> None:
    clock.write("0 * * * * *", overlap=overlap)
    clock.at(MINUTE + 1)
    edited = clock.write("0 * * * * *", "new", overlap=overlap)
    assert (clock.wheel(), edited.state.next_ms) == ({}, HOUR + MINUTE)
    clock.advance()
    assert clock.wheel() == {MINUTE: (MINUTE, "new")}


@pytest.mark.parametrize("overlap", ["allow", "skip"])
def test_a_pause_and_what_it_left_out(clock: Clock, overlap: str) -> None:
    clock.write("0 * * * * *", misfire="fire_all", overlap=overlap)
    clock.at(3 * MINUTE + 30_000)  # three were missed
    clock.pause()
    clock.at(5 * MINUTE + 30_000)
    clock.write("0 * * * * *", "new", misfire="fire_all", overlap=overlap, grace=1)
    assert (clock.wheel(), clock.read().status) == ({}, Status.PAUSED)
    clock.resume(catch_up=True)
    clock.advance()
    assert set(clock.wheel()) == ({MINUTE * n for n in range(1, 6)} if overlap == "allow" else {MINUTE})
    clock.run_due()
    clock.pause()
    clock.at(10 * MINUTE)
    clock.resume(catch_up=False)
    assert (clock.wheel(), clock.read().next_ms) == ({}, HOUR + 11 * MINUTE)


def test_what_a_pause_took_off_the_wheel_is_missed_when_that_is_asked_for(clock: Clock) -> None:
    clock.write("0 * * * * *", misfire="fire_all", misfire_limit=1000, jitter=3600)
    clock.at(2 * MINUTE)
    clock.advance()
    fires = {at: fire for at, (fire, _) in clock.wheel().items()}
    assert set(fires) == {MINUTE, 2 * MINUTE}
    clock.pause()
    assert (clock.wheel(), clock.read().state.taken) == ({}, (HOUR + MINUTE, HOUR + 2 * MINUTE))
    clock.at(2 * MINUTE + 1_000)
    clock.resume(catch_up=True)
    clock.advance()
    assert {at: fire for at, (fire, _) in clock.wheel().items()} == fires, "their jitter is not over"
    clock.pause()
    clock.at(3 * 3600_000)
    clock.resume(catch_up=True)
    clock.advance()
    found = clock.wheel()
    assert {at: found[at][0] for at in fires} == fires, "they run before what is due since"
    assert set(found) == {MINUTE * n for n in range(1, 181)}


@pytest.mark.parametrize(("policy", "runs"), [("skip", set()), ("fire_once", {MINUTE}), ("fire_all", {MINUTE})])
def test_what_was_due_before_a_pause_and_had_not_started_is_owed_after_it(
    clock: Clock, policy: str, runs: set[int]
) -> None:
    clock.write("0 * * * * *", misfire=policy)
    clock.at(MINUTE - 5_000)
    clock.advance()
    clock.at(MINUTE + 20_000)  # it is due, and no worker has room
    clock.pause()
    assert (clock.wheel(), clock.read().state.taken) == ({}, (HOUR + MINUTE,))
    clock.at(9 * MINUTE + 30_000)
    clock.resume(catch_up=False)
    assert set(clock.wheel()) == runs
    state = clock.read().state
    assert (state.fired, state.missed, state.taken) == (len(runs), 1 - len(runs), ())
    assert state.next_ms == HOUR + 10 * MINUTE


ACTS: tuple[Callable[[Clock, random.Random, dict[str, Any]], object], ...] = (
    lambda clock, pick, says: clock.write("* * * * * *", pick.choice(("a", "b")), **says),
    lambda clock, pick, says: clock.write("* * * * * *", "a", **{**says, "jitter": pick.choice((0, 3, 30))}),
    lambda clock, pick, says: (clock.pause(), clock.resume(catch_up=True)),
    lambda clock, pick, says: clock.pause(),
    lambda clock, pick, says: clock.resume(catch_up=True),
    lambda clock, pick, says: clock.advance() if clock.read().status is Status.ACTIVE else None,
    lambda clock, pick, says: clock.advance() if clock.read().status is Status.ACTIVE else None,
    lambda clock, pick, says: clock.forget(),
)


@pytest.mark.parametrize("seed", range(25))
def test_through_edits_and_pauses_each_second_runs_once(clock: Clock, seed: int) -> None:
    pick = random.Random(seed)
    says: dict[str, Any] = {"misfire": "fire_all", "misfire_limit": 1000, "grace": pick.choice((0, 60)), "keep": 1}
    says |= {"jitter": pick.choice((0, 3, 30))}
    clock.write("* * * * * *", **says)
    ran: list[int] = []
    time = 0
    for _ in range(80):
        time += pick.choice((0, 1, 400, 1_000, 1_700, 6_000))
        clock.at(time)
        if pick.random() < 0.6:
            ran += clock.run_due()
        pick.choice(ACTS)(clock, pick, says)
    clock.resume(catch_up=True)
    clock.advance()
    clock.at(time + 60_000)
    ran += clock.run_due()
    end = time + 10_000
    assert sorted(ran) == list(range(1_000, max(ran) + 1, 1_000))
    assert time <= max(ran) <= end
