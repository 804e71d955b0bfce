"""Enqueues around midnight, and by a client whose estimate of the server's clock is far off: nothing is refused."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from tests.jumps import Door
from tests.servers import RedisServer
from tests.workers.harness import one_kind
from zwheel import Enqueued, NewJob, Wheel
from zwheel.times import DAY_MS, day_of

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.fixture
async def wheel(door: Door, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel behind the door."""
    async with Wheel(door.url, namespace="zw") as made:
        yield made


def before_midnight(door: Door, ms: float) -> None:
    """Set the server's clock to so long before its next midnight."""
    door.ahead_s = (DAY_MS - ms - time.time_ns() / 1e6 % DAY_MS) / 1000


@pytest.mark.parametrize("apart_ms", [1, 0.5, 5])
async def test_a_bulk_of_delays_may_straddle_midnight(
    wheel: Wheel, door: Door, fresh: RedisServer, apart_ms: float
) -> None:
    count, tries = 250, 0
    days: list[str] = []
    jobs: list[NewJob] = []
    answers: list[Enqueued] = []
    with fresh.client() as client:
        while len(days) != 2 and tries < 50:  # on a busy machine all of them may be due after midnight
            client.flushall()
            tries += 1
            before_midnight(door, 3_000)
            jobs = [wheel.new_job("t", delay=max(0.0, 3.0 + (i - count / 2) * apart_ms / 1000)) for i in range(count)]
            answers = await wheel.enqueue_many(jobs)
            days = sorted(day.decode() for day in client.zrange("{zw:default:0}:days", 0, -1))
        placed = {
            name.decode(): (day, int(fire))
            for day in days
            for name, fire in client.zrange(f"{{zw:default:0}}:wheel:{day}", 0, -1, withscores=True)
        }
    assert len(days) == 2
    assert {answer.job_id: (day_of(answer.fire_at_ms), answer.fire_at_ms) for answer in answers} == placed
    assert [answer.job_id for answer in answers] == [job.id for job in jobs]


async def test_single_enqueues_go_on_over_midnight(wheel: Wheel, door: Door) -> None:
    before_midnight(door, 300)
    stored = [(await wheel.enqueue("t")).fire_at_ms]
    while day_of(stored[-1]) == day_of(stored[0]):
        stored.append((await wheel.enqueue("t")).fire_at_ms)
    assert stored == sorted(stored)


@pytest.mark.parametrize("off_h", [-72, -9, 9, 24 * 365])
async def test_the_first_enqueue_after_a_suspended_machine_woke_is_stored(
    wheel: Wheel, door: Door, off_h: float
) -> None:
    """The monotonic clock stood while the machine slept, so that the estimate is as far behind."""
    for _ in range(5):
        await wheel.enqueue("t")
    door.ahead_s += off_h * 3600
    answer = await wheel.enqueue("t", delay=1)
    assert abs(answer.fire_at_ms - door.now_us() // 1000 - 1000) < 5_000
    jobs = [wheel.new_job("t", delay=n) for n in range(10)]
    door.ahead_s -= off_h * 3600
    assert len(await wheel.enqueue_many(jobs)) == 10
