"""Races for a dedup key, and of cancel, pause and claim: D-01 to D-06, D-10, X-01 to X-04."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter

import pytest

from tests.faults.cancel_race import forbidden, race
from tests.faults.witness import found, witness
from tests.lua.batches import prepare
from tests.lua.shard import DIGEST, KEYS, NOW, Shard
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Retry, Wheel, calls, current_job
from zwheel.calls import Lane, NewJob
from zwheel.calls.scripts import NAMES
from zwheel.job import JobId, QueueName
from zwheel.record import record_tail
from zwheel.times import DAY_MS

pytestmark = [pytest.mark.anyio, one_kind]
PRODUCERS, ROUNDS = 64, 30


async def test_one_of_many_producers_takes_a_key(url: str, wheel: Wheel) -> None:
    others = [Wheel(url, namespace="zw") for _ in range(7)]
    for round_ in range(ROUNDS):
        answers = await asyncio.gather(
            *((wheel, *others)[n % 8].enqueue("t", dedup=f"key {round_}", delay=600) for n in range(PRODUCERS))
        )
        winners = [answer.job_id for answer in answers if not answer.existed]
        assert len(winners) == 1
        assert {answer.job_id for answer in answers} == set(winners)
    assert await wheel.count("default", JobState.SCHEDULED) == ROUNDS
    for other in others:
        await other.aclose()


async def test_a_duplicate_beside_the_end_of_its_holder_is_refused_or_runs(wheel: Wheel, log: Log) -> None:
    at_work: Counter[str] = Counter()
    most: Counter[str] = Counter()
    runs: list[str] = []

    @wheel.task(keep=600)
    async def work(key: str) -> None:
        at_work[key] += 1
        most[key] = max(most[key], at_work[key])
        await asyncio.sleep(0)
        runs.append(current_job().id)
        at_work[key] -= 1

    accepted: list[str] = []

    async def produce(key: str) -> None:
        for _ in range(25):
            answer = await work.options(dedup=key).enqueue(key)
            if not answer.existed:
                accepted.append(answer.job_id)

    async with running(wheel, log, concurrency=20):
        await asyncio.gather(*(produce(f"key {n % 4}") for n in range(16)))
        await log.until(lambda: len(runs) >= len(accepted))
    # Every job that was accepted ran, once; no two of a key lived at a time; keys were given back and taken again.
    assert Counter(runs) == Counter(accepted)
    assert len(accepted) > 8
    assert set(most.values()) == {1}


async def test_a_key_is_held_across_a_dead_worker_until_the_job_is_done(wheel: Wheel, stage: Stage, url: str) -> None:
    async with witness(wheel) as near:
        answer = await wheel.enqueue("play", args=["held"], dedup="one", keep=60)
        async with worker_process(url, stage.path, wait=False) as doomed:
            await stage.nth(1, within=15)
            doomed.signal(signal.SIGKILL)
            await doomed.ended()
        for state in (JobState.PROCESSING, JobState.SCHEDULED):
            await eventually(lambda: found(wheel, answer.job_id), lambda job, s=state: job.state is s)  # type: ignore[misc]
            again = await wheel.enqueue("play", args=["held"], dedup="one")
            assert (again.existed, again.job_id) == (True, answer.job_id)
        near.free()
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 2
        assert not (await wheel.enqueue("pass", args=["pass"], dedup="one", keep=60)).existed


def test_a_window_is_measured_by_the_server(fresh: RedisServer) -> None:
    """The producer's own idea of the time names buckets and nothing else: the server's clock opens and ends a window."""

    def enqueue(job_id: str, server_ms: int) -> bool:
        tail = record_tail("t", max_attempts=3, dedup=DIGEST)
        job = NewJob(
            job_id=JobId(job_id), queue=QueueName("q"), at_ms=NOW, delay_ms=0, tail=tail, body=b"\x01", dedup=DIGEST,
            window_ms=5_000,
        )  # fmt: skip
        lane = Lane("caller", job_id, "1")
        # This producer believes that it is a year later, or a year earlier.
        believed = NOW + random.choice((-365, 365)) * DAY_MS
        sent = calls.enqueue(KEYS, [job], now_ms=believed, lane=lane, now=str(server_ms * 1000))
        answers = calls.read_enqueue(sent, shard.run(sent.call))
        assert answers is not None
        return answers[0].existed

    with fresh.client() as client:
        shard = Shard(client, fresh.kind)
        assert not enqueue("first", NOW)
        call = calls.cancel(KEYS, ["other"], day="20300317", lane=Lane("caller", "x", "1"), now=str((NOW + 1) * 1000))
        shard.run(call)
        client.hdel(KEYS.jobs, "first")
        client.zrem(KEYS.wheel("20300317"), "first")
        assert enqueue("second", NOW + 4_999)
        assert not enqueue("third", NOW + 5_001)
        assert enqueue("fourth", NOW + 5_002)


@pytest.mark.parametrize("name", NAMES)
def test_all_keys_of_a_call_lie_in_one_slot(fresh: RedisServer, name: str) -> None:
    with fresh.client() as client:
        call = prepare(name, Shard(client, fresh.kind), 40)
    tags = {key[key.index("{") + 1 : key.index("}")] for key in call.keys}
    assert tags == {"zw:q:0"}
    assert all(key.startswith("{zw:q:0}:") for key in call.keys)


async def test_a_cancelled_job_never_starts_however_close_the_claim(url: str, fresh: RedisServer) -> None:
    met = await race(url, 1_000)
    assert not forbidden(met), met
    assert {answer for answer, _, _ in met} == {"cancelled", "cancel_requested", "too_late"}


async def test_nothing_comes_back_after_a_cancel(wheel: Wheel, log: Log) -> None:
    @wheel.task(keep=600, retries=50)
    async def flaky() -> None:
        raise Retry("again", delay=0.001)

    dice = random.Random(7)
    async with running(wheel, log, concurrency=50, lease_ms=600, reap_ms=50):
        jobs = [(await flaky.enqueue()).job_id for _ in range(40)]
        left = set(jobs)
        cancelled: dict[str, int] = {}
        while left:
            job_id = dice.choice(sorted(left))
            if await wheel.cancel(job_id, "default") in ("cancelled", "too_late"):
                left.discard(job_id)
                cancelled[job_id] = log.starts()[job_id]
        marker = await wheel.enqueue(flaky, id="marker")
        await log.seen("retried", marker.job_id, count=3)
    for job_id in jobs:
        job = await found(wheel, job_id)
        assert job.state in (JobState.CANCELLED, JobState.DEAD)
        assert job.attempt <= 51
        # An attempt that was under way when the answer came may have been noted since; none was begun after it.
        if job.state is JobState.CANCELLED:
            assert log.starts()[job_id] == job.attempt


async def test_after_a_pause_returned_nothing_is_claimed(wheel: Wheel, log: Log) -> None:
    @wheel.task(keep=600)
    async def work() -> None:
        pass

    async with running(wheel, log, concurrency=5, prefetch=0), running(wheel, log, concurrency=5, prefetch=0):
        for _ in range(5):
            await wheel.enqueue_many(work.job() for _ in range(200))
            await log.until(lambda: len(log.of("done")) > 0)
            await wheel.pause("default")
            info = await wheel.queue("default")
            claimed = info.processing + info.done
            # What was claimed before may end; nothing joins it.
            ended = await eventually(lambda: wheel.queue("default"), lambda now: now.processing == 0)
            assert ended.done == claimed
            await wheel.resume("default")
        await eventually(lambda: wheel.count("default", JobState.DONE), lambda count: count == 1000, 20)
    assert set(log.starts().values()) == {1}
