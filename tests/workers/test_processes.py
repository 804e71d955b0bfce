"""Worker processes that are killed, frozen and told to stop. Real signals, one kind of server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator

import pytest

from tests.workers.harness import eventually, one_kind
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Reason, Wheel, WorkerState
from zwheel.broker.store import Store
from zwheel.calls import Session, extend, read_letters
from zwheel.keys import ShardKeys

pytestmark = [pytest.mark.anyio, one_kind]
LEASE_S, REAP_S = 0.6, 0.1


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


async def test_a_job_of_a_killed_worker_is_started_again_in_time_with_a_larger_token(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path) as first, worker_process(url, stage.path, wait=False) as second:
        await second.ready()
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        held = await stage.nth(1)
        victim = first if held.pid == first.pid else second
        victim.signal(signal.SIGKILL)
        await held.gone()
        died = time.monotonic()
        again = await stage.nth(2, within=LEASE_S + REAP_S + 1)
        assert time.monotonic() - died < LEASE_S + REAP_S + 1
        assert again.pid != held.pid
        assert (again.job, again.attempt) == (held.job, 2)
        assert again.token > held.token
        again.go()
        job = await wheel.wait(answer.job_id, timeout=10)
    assert (job.state, job.attempt) == (JobState.DONE, 2)
    assert [f.reason for f in job.failures] == [Reason.LEASE_EXPIRED]


async def test_a_killed_worker_is_listed_as_silent_and_then_as_dead(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, lease="4s") as worker:
        (before,) = await eventually(wheel.workers, bool)
        assert before.state is WorkerState.ALIVE
        worker.signal(signal.SIGKILL)
        await worker.ended()

        async def state() -> WorkerState:
            (info,) = await wheel.workers()
            assert info.alive == (info.state is WorkerState.ALIVE)
            return info.state

        for word in (WorkerState.SILENT, WorkerState.DEAD):
            await eventually(state, word.__eq__)


async def test_a_frozen_worker_that_wakes_up_changes_nothing_and_stops_its_job(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path) as first, worker_process(url, stage.path, wait=False) as second:
        await second.ready()
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        old = await stage.nth(1)
        frozen = first if old.pid == first.pid else second
        frozen.signal(signal.SIGSTOP)
        new = await stage.nth(2, within=3 * LEASE_S + 2)
        assert new.token > old.token
        before = await wheel.get(answer.job_id)
        assert before is not None
        # The zombie's job ends well in the very moment in which it wakes up.
        old.go()
        frozen.signal(signal.SIGCONT)
        await old.gone()
        await frozen.says(f"{answer.job_id}.*lease|lease.*{answer.job_id}")
        now = await wheel.get(answer.job_id)
        assert now is not None
        assert (now.state, now.token, now.worker) == (JobState.PROCESSING, new.token, before.worker)
        new.go()
        job = await wheel.wait(answer.job_id, timeout=10)
        assert (job.state, job.token) == (JobState.DONE, new.token)
        # And it serves again.
        marker = await wheel.enqueue("pass", args=["pass"], keep=60)
        assert (await wheel.wait(marker.job_id, timeout=10)).state is JobState.DONE
    assert len([actor for actor in stage.actors if actor.job == answer.job_id]) == 2


async def test_a_zombies_heartbeat_cancels_its_job(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path) as first, worker_process(url, stage.path, wait=False) as second:
        await second.ready()
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        old = await stage.nth(1)
        frozen = first if old.pid == first.pid else second
        frozen.signal(signal.SIGSTOP)
        new = await stage.nth(2, within=3 * LEASE_S + 2)
        frozen.signal(signal.SIGCONT)
        # Nobody told it to go: it ends because its lease is lost.
        await old.gone(within=LEASE_S + 1)
        new.go()
        assert (await wheel.wait(answer.job_id, timeout=10)).token == new.token


async def test_a_task_that_blocks_the_event_loop_for_three_leases_is_not_run_twice(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path), worker_process(url, stage.path, wait=False) as second:
        await second.ready()
        answer = await wheel.enqueue("block", args=["blocks"], keep=60)
        blocked = await stage.nth(1)
        job = await wheel.get(answer.job_id)
        assert job is not None and job.lease_until_ms is not None
        until = job.lease_until_ms + int(2000 * LEASE_S)
        await eventually(
            lambda: wheel.get(answer.job_id), lambda now: now is not None and (now.lease_until_ms or 0) > until
        )
        blocked.go()
        assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
    assert len(stage.actors) == 1


@pytest.mark.slow
async def test_a_job_that_kills_its_worker_each_time_is_dead_after_its_attempts(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, "--processes", "2") as supervisor:
        await supervisor.ready(2)
        answer = await wheel.enqueue("kill", retries=2)
        other = await wheel.enqueue("pass", args=["pass"], keep=60)
        job = await wheel.wait(answer.job_id, timeout=20)
        assert (await wheel.wait(other.job_id, timeout=10)).state is JobState.DONE
        await supervisor.says("SIGKILL", count=3)
        await supervisor.says(rf"ERROR .*job {job.id} \(kill\): dead after 3 attempts: lease_expired")
    assert (job.state, job.attempt, job.reason) == (JobState.DEAD, 3, Reason.LEASE_EXPIRED)
    assert [f.reason for f in job.failures] == [Reason.LEASE_EXPIRED] * 3


async def test_sigterm_lets_jobs_end_and_claims_no_more(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path) as worker:
        answer = await wheel.enqueue("play", args=["ends"], keep=60)
        held = await stage.nth(1)
        worker.signal(signal.SIGTERM)
        await worker.says("draining")
        late = await wheel.enqueue("pass", args=["late"], keep=60)
        held.go()
        assert await worker.ended() == 0
        assert (await wheel.wait(answer.job_id, timeout=1)).state is JobState.DONE
        waiting = await wheel.get(late.job_id)
        assert waiting is not None
        assert (waiting.state, waiting.attempt) == (JobState.SCHEDULED, 0)
        assert await wheel.workers() == []
    assert len(stage.actors) == 1


@pytest.mark.parametrize("task", ["play", "unready", "isolated"])
async def test_what_does_not_end_within_the_drain_goes_back_uncounted(
    wheel: Wheel, stage: Stage, url: str, task: str
) -> None:
    async with worker_process(url, stage.path, drain="200ms") as worker:
        answer = await wheel.enqueue(task, args=["held"], keep=60)
        held = await stage.nth(1)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
        await held.gone()
        job = await wheel.get(answer.job_id)
    assert job is not None
    assert (job.state, job.attempt, job.failures) == (JobState.SCHEDULED, 0, ())
    assert job.fire_at_ms == answer.fire_at_ms


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("task", ["thread", "stubborn"])
async def test_a_thread_that_cannot_be_stopped_ends_with_the_process_before_its_job_may_start_again(
    wheel: Wheel, stage: Stage, url: str, task: str, signals: int
) -> None:
    async with worker_process(url, stage.path, drain="200ms" if signals == 1 else "60s") as worker:
        answer = await wheel.enqueue(task, args=["held"], keep=60)
        held = await stage.nth(1)
        worker.signal(signal.SIGTERM)
        await worker.says("draining")
        if signals == 2:
            worker.signal(signal.SIGTERM)
        assert await worker.ended(within=10) == 1
        await held.gone()
        gone_ms = time.time() * 1000
        job = await wheel.get(answer.job_id)
        await worker.says(f"giving back what still runs: 1 job: {answer.job_id}")
    assert job is not None
    assert (job.state, job.attempt, job.failures) == (JobState.SCHEDULED, 0, ())
    assert job.fire_at_ms > gone_ms


async def test_a_second_sigterm_gives_back_at_once(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--concurrency", "2", drain="60s") as worker:
        answers = [await wheel.enqueue("play", args=[f"held {n}"], keep=60) for n in range(4)]
        await stage.nth(2)
        worker.signal(signal.SIGTERM)
        await worker.says("draining")
        worker.signal(signal.SIGTERM)
        began = time.monotonic()
        assert await worker.ended(within=5) == 0
        assert time.monotonic() - began < 4
        jobs = [await wheel.get(answer.job_id) for answer in answers]
    assert [(job.state, job.attempt) for job in jobs if job is not None] == [(JobState.SCHEDULED, 0)] * 4


async def test_sigint_drains_too(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path) as worker:
        await wheel.enqueue("play", args=["held"], keep=60)
        held = await stage.nth(1)
        worker.signal(signal.SIGINT)
        await worker.says("draining")
        held.go()
        assert await worker.ended() == 0


async def test_an_isolated_task_runs_elsewhere_and_may_take_its_process_down(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path) as worker:
        answer = await wheel.enqueue("isolated", args=["apart"], keep=60)
        apart = await stage.nth(1)
        assert apart.pid != worker.pid
        assert apart.job == answer.job_id
        apart.go()
        assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
        last = ""
        for fate in ("exit", "kill", "raise"):
            fatal = await wheel.enqueue("isolated", args=["dies", fate], retries=1)
            job = await wheel.wait(fatal.job_id, timeout=20)
            assert (job.state, job.attempt, job.reason) == (JobState.DEAD, 2, Reason.ERROR), fate
            last = job.failures[-1].message
        assert "dies of" in last
        again = await wheel.enqueue("pass", args=["pass"], keep=60)
        assert (await wheel.wait(again.job_id, timeout=10)).state is JobState.DONE


async def test_an_isolated_task_is_killed_at_its_timeout(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path):
        warm = await wheel.enqueue("isolated", args=["warm"], keep=60)
        (await stage.nth(1)).go()
        await wheel.wait(warm.job_id, timeout=10)
        # Its process is there by now: the time is the task's own.
        answer = await wheel.enqueue("isolated", args=["apart"], timeout=0.8, retries=0)
        apart = await stage.nth(2)
        await apart.gone(within=5)
        assert (await wheel.wait(answer.job_id, timeout=10)).reason == Reason.TIMEOUT


async def test_a_token_of_a_dead_worker_renews_nothing(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path):
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        held = await stage.nth(1)
        store = Store(url, Session("zw"))
        forged = f"{held.token - 1:016d}".encode()
        call = extend(ShardKeys.of("zw", "default"), [(answer.job_id, forged)], lease_ms=60_000)
        (reply,) = await store.send([call])
        assert read_letters(reply) == "f"
        await store.aclose()
        held.go()
        assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE


async def test_workers_started_and_stopped_at_will_lose_and_double_nothing(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    answers = await wheel.enqueue_many(
        wheel.new_job("pass", args=[f"pass {n}"], delay=0.02 * n, keep=60) for n in range(100)
    )
    async with worker_process(url, stage.path) as first:
        await stage.nth(20)
        async with worker_process(url, stage.path) as second:
            first.signal(signal.SIGTERM)
            assert await first.ended() == 0
            for answer in answers:
                assert (await wheel.wait(answer.job_id, timeout=20)).attempt == 1
            second.signal(signal.SIGTERM)
            assert await second.ended() == 0
    await asyncio.sleep(0)
    assert len(stage.actors) == 100
    assert len({actor.job for actor in stage.actors}) == 100
