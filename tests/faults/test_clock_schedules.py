"""Schedules over jumps of the server's clock: the schedules' part of C-03, C-05 and C-08."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.jumps import Door
from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import Wheel, current_job
from zwheel.schedules.state import Status
from zwheel.times import to_datetime

pytestmark = [pytest.mark.anyio, pytest.mark.slow, one_kind]
HOUR_S = 3600.0
YEARS_S = 10 * 365 * 86_400.0
#: A schedule of every second starts its next occurrence this soon after the clock is right again, s: a look every few
#: seconds, and what a busy machine adds.
SOON_S = 20.0


@pytest.fixture
def url(door: Door) -> str:
    """The URL of the server behind the door."""
    return door.url


class Rings:
    """The nominal times that ran, ms; those of two minutes from a time on: what ran in a jump is further ahead."""

    def __init__(self, wheel: Wheel) -> None:
        self.ran: Counter[int] = Counter()

        @wheel.task(name="ring", keep=7200)
        async def ring() -> None:
            occurrence = current_job().occurrence
            assert occurrence is not None
            self.ran[round(occurrence.nominal.timestamp() * 1000)] += 1

    def since(self, ms: int) -> list[int]:
        return sorted(at for at in self.ran if ms <= at < ms + 120_000)


async def settled(log: Log, rings: Rings, since_ms: int, count: int) -> list[int]:
    """Wait for so many occurrences from a time on."""
    await log.until(lambda: len(rings.since(since_ms)) >= count, within=SOON_S)
    return rings.since(since_ms)[:count]


@pytest.mark.parametrize(("ahead_s", "policy"), [(HOUR_S, "skip"), (YEARS_S, "fire_all")])
async def test_a_schedule_goes_on_as_if_a_jump_ahead_had_not_been(
    wheel: Wheel, door: Door, log: Log, ahead_s: float, policy: str
) -> None:
    rings = Rings(wheel)
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "ring", misfire=policy, misfire_limit=3, keep=7200))
    async with running(wheel, log), running(wheel, log):
        await log.until(lambda: len(rings.ran) >= 2)
        door.ahead_s = ahead_s
        far = door.now_us() // 1000
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.cursor_ms >= far, within=SOON_S)
        door.ahead_s = 0.0
        back = door.now_us() // 1000
        # What lay on the wheel when the clock jumped ran in the jump; what comes after that runs at its time.
        went_on = await settled(log, rings, back + 10_000, 3)
        info = await wheel.schedule("s")
    assert went_on == [went_on[0] + 1000 * n for n in range(3)]
    assert went_on[0] < back + 12_000
    assert set(rings.ran.values()) == {1}
    assert info.state.cursor_ms < door.now_us() // 1000 + 60_000


@pytest.mark.parametrize("overlap", ["allow", "skip"])
async def test_a_schedule_that_was_written_in_the_jump_fires_after_it(
    wheel: Wheel, door: Door, log: Log, overlap: str
) -> None:
    rings = Rings(wheel)
    async with running(wheel, log):
        await asyncio.to_thread(lambda: None)
        door.ahead_s = HOUR_S
        await wheel.add_schedule(wheel.new_schedule("s", "@every 1s", "ring", overlap=overlap, keep=7200))
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.fired >= 1, within=SOON_S)
        door.ahead_s = 0.0
        back = door.now_us() // 1000
        await log.until(lambda: any(back <= at < back + 60_000 for at in rings.ran), within=SOON_S)


async def test_after_a_step_back_nothing_runs_twice_and_nothing_falls_silent(
    wheel: Wheel, door: Door, log: Log
) -> None:
    rings = Rings(wheel)
    await wheel.add_schedule(wheel.new_schedule("s", "* * * * * *", "ring", keep=7200))
    async with running(wheel, log), running(wheel, log):
        await log.until(lambda: len(rings.ran) >= 4)
        newest = max(rings.ran)
        door.ahead_s = -8.0
        went_on = await settled(log, rings, newest + 1000, 5)
    assert went_on == [newest + 1000 * n for n in range(1, 6)]
    assert set(rings.ran.values()) == {1}


async def test_a_schedule_that_ended_in_the_jump_goes_on(wheel: Wheel, door: Door, log: Log) -> None:
    rings = Rings(wheel)
    end = door.now_us() // 1000 + 1_000_000
    await wheel.add_schedule(
        wheel.new_schedule("s", "* * * * * *", "ring", keep=7200, misfire="skip", end=to_datetime(end))
    )
    async with running(wheel, log):
        await log.until(lambda: len(rings.ran) >= 2)
        door.ahead_s = HOUR_S
        await eventually(lambda: wheel.schedule("s"), lambda info: info.status is Status.FINISHED, within=SOON_S)
        door.ahead_s = 0.0
        back = door.now_us() // 1000
        assert await settled(log, rings, back + 10_000, 3)
    assert set(rings.ran.values()) == {1}


@pytest.mark.parametrize("overlap", ["skip", "buffer_one"])
async def test_what_a_jump_left_on_the_wheel_keeps_no_schedule_silent(
    wheel: Wheel, door: Door, log: Log, overlap: str
) -> None:
    rings = Rings(wheel)
    async with running(wheel, log):
        await wheel.pause("default")
        door.ahead_s = HOUR_S
        await wheel.add_schedule(wheel.new_schedule("s", "@every 1s", "ring", overlap=overlap, keep=7200))
        await eventually(lambda: wheel.schedule("s"), lambda info: info.state.fired >= 1, within=SOON_S)
        door.ahead_s = 0.0
        back = door.now_us() // 1000
        await wheel.resume("default")
        await settled(log, rings, back, 2)
    assert set(rings.ran.values()) == {1}
