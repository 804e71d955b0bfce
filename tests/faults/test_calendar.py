"""Days that pass without a worker, days that empty and fill, times out of range, leap seconds: T-02 to T-07, T-15.

ZWHEEL_FAULT_STEPS sets how many interleavings T-05 walks through: 100,000 unless it says 1000000.
"""

from __future__ import annotations

import asyncio
import os
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.endings import complete
from tests.faults.witness import server_ms
from tests.lua.shard import KEYS, NOW, Shard, at
from tests.model.entries import Wanted
from tests.model.model import Model
from tests.servers import RedisServer
from tests.workers.harness import Log, one_kind, running
from zwheel import InvalidTime, JobState, Wheel, calls, current_job
from zwheel.calls import Lane, NewJob, Session, read_claim, read_enqueue
from zwheel.job import JobId, QueueName
from zwheel.record import record_tail
from zwheel.times import DAY_MS, day_of

pytestmark = [pytest.mark.anyio, one_kind]
STEPS = int(os.environ.get("ZWHEEL_FAULT_STEPS", "100000"))
#: One step in so many is walked beside the real scripts, from the first on.
REAL = 20


async def test_days_without_a_worker_are_worked_off_oldest_first(wheel: Wheel, fresh: RedisServer, log: Log) -> None:
    order: list[str] = []

    @wheel.task
    async def work() -> None:
        order.append(current_job().id)

    now = datetime.fromtimestamp(await server_ms(wheel) / 1000, UTC)
    times = [now - timedelta(days=days, minutes=minutes) for days in (3, 2, 1, 0) for minutes in (40, 30, 20, 10)]
    stored = {}
    for index in random.Random(5).sample(range(len(times)), len(times)):
        stored[index] = (await work.options(at=times[index]).enqueue()).job_id
    assert len(await wheel.days("default")) >= 4
    async with running(wheel, log, concurrency=1, prefetch=0):
        await log.seen("done", count=len(times))
    assert order == [stored[index] for index in range(len(times))]
    with fresh.client() as client:
        keys = Session("zw").keys("default")
        assert client.exists(keys.days, *(keys.wheel(day_of(int(time.timestamp() * 1000))) for time in times)) == 0


@pytest.mark.parametrize("when", [datetime(1970, 1, 1, tzinfo=UTC), datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC), None])
async def test_a_time_long_past_is_now(wheel: Wheel, log: Log, when: datetime | None) -> None:
    @wheel.task(keep=60)
    async def work() -> None:
        pass

    when = when or datetime.fromtimestamp(await server_ms(wheel) / 1000, UTC) - timedelta(days=1)
    answer = await work.options(at=when).enqueue()
    assert answer.fire_at_ms == int(when.timestamp() * 1000)
    assert (await wheel.queue("default")).due == 1
    async with running(wheel, log):
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 1


async def test_a_time_beyond_the_calendar_is_refused(wheel: Wheel, fresh: RedisServer) -> None:
    ends = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    for delay in (float("inf"), float("-inf"), float("nan"), -1, 2.0**53, 9_007_199_254_740_993, 1e300):
        with pytest.raises(InvalidTime):
            await wheel.enqueue("t", delay=delay)
    for when in (ends + timedelta(microseconds=1), datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)):
        with pytest.raises(InvalidTime):
            await wheel.enqueue("t", at=when)
    with fresh.client() as client:
        assert client.dbsize() == 0
    answer = await wheel.enqueue("t", at=ends)
    assert answer.fire_at_ms == 253_402_300_799_999
    job = await wheel.get(answer.job_id)
    assert job is not None and job.fire_at_ms == answer.fire_at_ms
    assert [day.day for day in await wheel.days("default")] == ["99991231"]


async def test_a_time_without_a_zone_is_refused(wheel: Wheel) -> None:
    answer = await wheel.enqueue("t", delay=60)
    naive = datetime(2030, 1, 1, 9)
    with pytest.raises(InvalidTime, match="no time zone"):
        await wheel.enqueue("t", at=naive)
    with pytest.raises(InvalidTime, match="no time zone"):
        await wheel.reschedule(answer.job_id, at=naive)


class Real:
    """The scripts, with workers that remember the day they were told last."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._days = ["19700101"] * 3
        self._requests = 0
        self._tokens: dict[str, bytes] = {}

    def _lane(self, name: str) -> Lane:
        self._requests += 1
        return Lane("caller", name, str(self._requests))

    def put(self, us: int, job_id: str, fire: int) -> None:
        tail = record_tail("t", max_attempts=3)
        job = NewJob(job_id=JobId(job_id), queue=QueueName("q"), at_ms=fire, delay_ms=0, tail=tail, body=b"\x01")
        sent = calls.enqueue(KEYS, [job], now_ms=us // 1000, lane=self._lane("enqueue"), now=str(us))
        answers = read_enqueue(sent, self._shard.run(sent.call))
        assert answers is not None and not answers[0].existed

    def take(self, us: int, worker: int, limit: int) -> list[str]:
        while True:
            call = calls.claim(
                KEYS, day=self._days[worker], worker=f"worker-{worker}", lease_ms=10 * DAY_MS, limit=limit,
                lane=self._lane("claim"), now=str(us),
            )  # fmt: skip
            claimed = read_claim(self._shard.run(call))
            self._days[worker] = claimed.day or self._days[worker]
            if claimed.word != "moved":
                break
            us += 1
        self._tokens |= {
            job.decode(): raw[21:37] for job, raw in zip(claimed.jobs[::2], claimed.jobs[1::2], strict=True)
        }
        return [job.decode() for job in claimed.jobs[::2]]

    def end(self, us: int, ids: list[str]) -> None:
        held = [(job_id, self._tokens.pop(job_id)) for job_id in ids]
        reply = self._shard.run(complete(KEYS, held, lane=self._lane("complete"), now=str(us)))
        assert calls.read_letters(reply) == "d" * len(ids)

    def days(self) -> list[str]:
        days: Any = self._shard.client.zrange(KEYS.days, 0, -1)
        return [day.decode() for day in days]


class Walk:
    """Producers that add to a day and workers that empty it, in any order, around midnight."""

    def __init__(self, seed: int, real: Real) -> None:
        self.dice = random.Random(seed)
        self.model = Model()
        self.real: Real | None = real
        self.us = (NOW // DAY_MS + 1) * DAY_MS * 1000 - 50_000
        self.put_: set[str] = set()
        self.started: set[str] = set()
        self.held: list[str] = []
        self.number = 0

    def step(self) -> None:
        self.us += self.dice.choice((100, 100, 400, 1_000, 3_000))
        if self.dice.random() < 0.005:
            # On to just before the next midnight.
            self.us = (self.us // (DAY_MS * 1000) + 1) * DAY_MS * 1000 - 20_000
        what = self.dice.random()
        if what < 0.4 and len(self.put_) - len(self.started) < 8:
            self._put()
        elif what < 0.8:
            self._take(self.dice.randint(1, 3))
        elif self.held:
            self._end()

    def _put(self) -> None:
        self.number += 1
        job_id = f"job-{self.number}"
        fire = self.us // 1000 + self.dice.choice((-DAY_MS, -2, 0, 0, 0, 1, 5, 20))
        want = Wanted(id=job_id, at=fire, delay=0, digest="", window=None, keep=0, most=3)
        self.model.enqueue(self.us, [want])
        self.put_.add(job_id)
        if self.real is not None:
            self.real.put(self.us, job_id, fire)

    def _take(self, limit: int) -> None:
        worker = self.dice.randrange(3)
        ids = self.model.claim(self.us, worker=f"worker-{worker}", lease=10 * DAY_MS, limit=limit)
        assert self.started.isdisjoint(ids)
        self.started.update(ids)
        self.held += ids
        if self.real is not None:
            assert self.real.take(self.us, worker, limit) == ids, f"at step {self.number}"
            assert self.real.days() == sorted({day_of(fire) for fire, _ in self.model.scheduled()})

    def _end(self) -> None:
        ids, self.held = self.held[:2], self.held[2:]
        claims = [(job_id, self.model.jobs[job_id].token) for job_id in ids]
        assert self.model.settle(self.us, claims, most_dead=0) == "d" * len(ids)
        if self.real is not None:
            self.real.end(self.us, ids)


@pytest.mark.timeout(60 + STEPS // 2000)
def test_no_job_is_lost_when_a_day_empties_and_fills(fresh: RedisServer) -> None:
    with fresh.client() as client:
        walk = Walk(random.randrange(1 << 30), Real(Shard(client, fresh.kind)))
        for number in range(STEPS):
            if number == STEPS // REAL:
                walk.real = None
            walk.step()
    # Then time passes, and workers take what is left, the oldest day first.
    walk.us += 2 * DAY_MS * 1000
    for _ in range(len(walk.put_) - len(walk.started)):
        walk.us += 1000
        walk._take(1)
    assert walk.started == walk.put_
    assert walk.model.first_day() == ""


async def test_a_job_moved_while_it_is_claimed_runs_at_one_time_only(wheel: Wheel, log: Log) -> None:
    @wheel.task(keep=600)
    async def work() -> None:
        pass

    async with running(wheel, log, concurrency=20):
        answers, outcomes = [], []
        for round_ in range(15):
            soon = [await work.options(delay=0.01).enqueue() for _ in range(10)]
            later = timedelta(days=1 if round_ % 2 else 400)
            # Some are moved at once, some when they are just due, some when they run.
            outcomes += await asyncio.gather(
                *(wheel.reschedule(job.job_id, delay=later, queue="default") for job in soon)
            )
            answers += soon
        moved = {job.job_id for job, said in zip(answers, outcomes, strict=True) if said == "rescheduled"}
        await log.until(lambda: len(log.of("done")) == len(answers) - len(moved))
    assert log.starts().keys() == {job.job_id for job in answers} - moved
    assert set(log.starts().values()) <= {1}
    assert await wheel.count("default", JobState.SCHEDULED) == len(moved)
    first = min((await wheel.days("default")), key=lambda day: day.day, default=None)
    assert first is None or first.first_ms > answers[-1].fire_at_ms + DAY_MS // 2


def test_a_leap_second_makes_nothing_early(fresh: RedisServer) -> None:
    """Stepped: 23:59:59.9 comes twice. Smeared: the clock crawls. Time stands still, and nothing is before its time."""
    midnight = (NOW // DAY_MS + 1) * DAY_MS
    job = {"queue": QueueName("q"), "delay_ms": 0, "tail": record_tail("t", max_attempts=3), "body": b"\x01"}
    with fresh.client() as client:
        shard = Shard(client, fresh.kind)
        real = Real(shard)
        batch = [
            NewJob(job_id=JobId(name), at_ms=fire, **job)  # type: ignore[arg-type]
            for name, fire in (("before", midnight - 100), ("after", midnight), ("later", midnight + 500))
        ]
        sent = calls.enqueue(KEYS, batch, now_ms=NOW, lane=Lane("caller", "enqueue", "leap"), now=at(NOW))
        assert read_enqueue(sent, shard.run(sent.call)) is not None
        assert real.take((midnight - 50) * 1000, 0, 10) == ["before"]
        tokens = [int(shard.client.hget(KEYS.jobs, "before")[21:37])]  # type: ignore[index]
        # The second is repeated: a whole second back, then forward again in half the speed. An id that ended and comes
        # again in the repeated second still gets a larger token than it had.
        real.end((midnight - 40) * 1000, ["before"])
        real.put((midnight - 1_100) * 1000, "before", midnight - 2_000)
        assert real.take((midnight - 1_060) * 1000, 2, 10) == ["before"]
        tokens.append(int(shard.client.hget(KEYS.jobs, "before")[21:37]))  # type: ignore[index]
        for step in range(21):
            assert real.take((midnight - 1050 + step * 50) * 1000, step % 3, 10) == []
        assert real.take((midnight + 1) * 1000, 1, 10) == ["after"]
        assert real.take((midnight + 250) * 1000, 1, 10) == []
        assert real.take((midnight + 500) * 1000, 1, 10) == ["later"]
        tokens += [int(shard.client.hget(KEYS.jobs, name)[21:37]) for name in ("after", "later")]  # type: ignore[index]
    assert tokens == sorted(set(tokens))
    assert tokens[2] >= midnight * 1000
