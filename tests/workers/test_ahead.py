"""Jobs that are claimed ahead of their time start when it has surely come, and go back unharmed when they cannot."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.servers import RedisServer
from tests.workers.hands import Hands
from tests.workers.harness import Log, running
from zwheel import Wheel, current_job
from zwheel.calls.claim import AHEAD_MS
from zwheel.calls.clock import ServerClock
from zwheel.workers.ahead import Ahead, ahead_ms
from zwheel.workers.claims import Claim

pytestmark = pytest.mark.anyio
HOUR_US = 3_600_000_000


def knows(clock: ServerClock, *, within_us: int, ahead_us: int = 0) -> None:
    """Let a clock know the server's within so much. The server's is the machine's, and that much ahead."""
    now_ns = time.monotonic_ns()
    clock.observe(time.time_ns() // 1000 + ahead_us, now_ns - within_us * 1000, now_ns + within_us * 1000)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def let_pass(fire_ms: int) -> None:
    """Let that time pass while nothing else runs, as when a task blocks the event loop."""
    while now_ms() < fire_ms + 2:
        continue


class Still(ServerClock):
    """A clock that stands, and is known within so much."""

    def __init__(self, us: int, error_us: int) -> None:
        super().__init__()
        self.us, self.bound_us = us, error_us

    def now_us(self) -> int:
        return self.us

    def error_us(self) -> int:
        return self.bound_us


@pytest.fixture
async def hands(wheel: Wheel) -> AsyncIterator[Hands]:
    """A runner with room, that knows the server's clock."""
    made = Hands(wheel, 10)
    knows(made.session.clock, within_us=200)
    yield made
    made.runner.close()


def claim(fire_ms: int, name: str = "a") -> Claim:
    return Hands(Wheel("memory://"), 1).claim(name, fire_ms=fire_ms)


async def test_nothing_is_claimed_ahead_while_the_servers_clock_is_not_known_to_a_millisecond() -> None:
    clock = ServerClock()
    assert ahead_ms(clock) == 0
    knows(clock, within_us=5_000)
    assert ahead_ms(clock) == 0
    knows(clock, within_us=100)
    assert ahead_ms(clock) == AHEAD_MS
    knows(clock, within_us=100, ahead_us=HOUR_US)
    assert ahead_ms(clock) == 0, "a clock that jumped is known when another answer agrees"


async def test_a_job_is_due_when_its_time_has_come_at_the_earliest_that_the_clock_may_show() -> None:
    clock = Still(1_000_000, 300)
    held: Ahead[str] = Ahead(clock)
    for name, fire_ms in (("late", 1_002), ("soon", 1_001), ("too", 1_001)):
        held.hold(claim(fire_ms), name)
    clock.us = 1_001_299
    assert held.due() == []
    assert held.rest_s == pytest.approx(1e-6)
    clock.us = 1_001_300
    assert held.due() == ["soon", "too"]
    assert held.due() == []
    assert held.rest_s == pytest.approx(0.001)
    assert (held.all(), held.rest_s) == (["late"], None)


async def test_a_job_whose_time_is_far_away_after_a_step_back_is_taken_out() -> None:
    clock = Still(HOUR_US, 100)
    held: Ahead[str] = Ahead(clock)
    held.hold(claim(HOUR_US // 1000 + 4), "late")
    held.hold(claim(HOUR_US // 1000 + 2), "soon")
    assert held.far() == []
    clock.us = 7
    assert held.due() == []
    assert sorted(held.far()) == ["late", "soon"]
    assert len(held) == 0


async def test_a_job_that_is_held_starts_at_its_time_and_not_before(wheel: Wheel) -> None:
    starts: list[int] = []

    @wheel.task(name="t")
    async def note() -> None:
        starts.append(time.time_ns())

    hands = Hands(wheel, 10)
    knows(hands.session.clock, within_us=200)
    fire_ms = now_ms() + 20
    for after_ms in (7, 0, 7, 12):
        hands.hold(hands.claim("t", fire_ms=fire_ms + after_ms))
    assert starts == []
    await hands.log.seen("done", count=4)
    due = [fire_ms, fire_ms + 7, fire_ms + 7, fire_ms + 12]
    assert all(start >= fire * 1_000_000 for start, fire in zip(starts, due, strict=True))
    hands.runner.close()


async def test_a_worker_that_stops_gives_back_what_it_holds(hands: Hands) -> None:
    hands.hold(hands.claim("t", fire_ms=now_ms() + 50))
    hands.runner.give_back()
    hands.hold(hands.claim("t", fire_ms=now_ms() + 50))
    assert (hands.waiting, hands.slots.held, len(hands.log.of("released"))) == (["release"], 0, 2)
    assert not hands.runner.held


async def test_what_is_held_while_a_task_blocks_the_event_loop_goes_back(hands: Hands) -> None:
    hands.hold(hands.claim("t", fire_ms=(fire_ms := now_ms() + 5)))
    hands.rescue()
    let_pass(fire_ms)
    hands.runner.start_due()
    await asyncio.sleep(0)
    assert (hands.waiting, hands.log.starts()) == (["release"], Counter())


async def test_a_job_that_is_lost_while_it_is_held_does_not_start(hands: Hands) -> None:
    lost = hands.claim("t", fire_ms=(fire_ms := now_ms() + 5))
    hands.hold(lost)
    hands.runner.lost(lost)
    let_pass(fire_ms)
    hands.runner.start_due()
    await asyncio.sleep(0)
    assert (hands.waiting, hands.log.starts(), hands.slots.held) == ([], Counter(), 0)


async def test_a_job_is_released_when_the_servers_clock_is_set_back_while_it_is_held(hands: Hands) -> None:
    hands.hold(hands.claim("t", fire_ms=now_ms() + 5))
    for _ in range(2):
        knows(hands.session.clock, within_us=200, ahead_us=-HOUR_US)
    hands.runner.start_due()
    assert (hands.waiting, hands.log.starts()) == (["release"], Counter())


async def test_a_job_whose_lease_grew_old_while_it_was_held_waits_for_its_renewal(hands: Hands) -> None:
    asked: list[str] = []
    hands.runner.renew = lambda: asked.append("renew")
    frozen = hands.claim("t", age_ms=500, fire_ms=(fire_ms := now_ms() + 1))
    hands.hold(frozen)
    let_pass(fire_ms)
    hands.runner.start_due()
    assert (asked, hands.slots.running) == (["renew"], 0)
    hands.runner.lost(frozen)


async def test_no_job_of_a_precise_queue_starts_early_and_most_are_claimed_ahead(
    wheel: Wheel, log: Log, fresh: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    early: dict[str, int] = {}
    held: list[int] = []

    def hold(self: Ahead[object], claim: Claim, entry: object) -> None:
        held.append(claim.fire_at_ms)
        keep(self, claim, entry)

    keep = Ahead.hold
    monkeypatch.setattr(Ahead, "hold", hold)

    @wheel.task
    async def note() -> None:
        # The server and the worker read the same clock: they are on one machine.
        early[current_job().id] = current_job().fire_at_ms * 1_000_000 - time.time_ns()

    await wheel.set_precise("default", True)
    assert (await wheel.queue("default")).precise
    async with running(wheel, log, concurrency=30):
        first = datetime.now(UTC) + timedelta(milliseconds=150)
        await wheel.enqueue_many(note.options(at=first + timedelta(microseconds=7_300 * n)).job() for n in range(60))
        for _ in range(20):
            await note.enqueue()
        await log.seen("done", count=80)
    assert max(early.values()) <= 0, early
    assert len(held) > 20, "hardly any job was claimed ahead of its time"
    await wheel.set_precise("default", False)
    assert not (await wheel.queue("default")).precise
