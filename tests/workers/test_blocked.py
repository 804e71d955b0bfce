"""A task blocks the event loop of its worker, for leases: ended jobs are settled, waiting jobs run elsewhere, all once."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import Job, JobState, Reason, Wheel

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


async def _ended(wheel: Wheel, job_id: str, state: JobState) -> Job:
    found = await eventually(lambda: wheel.get(job_id, "default"), lambda job: job is not None and job.state is state)
    assert found is not None
    return found


async def test_what_ended_before_the_loop_was_blocked_is_settled_while_it_is_and_runs_once(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    # All in one claim, in this order: the quick jobs end in the turn of the loop in which the last job blocks it.
    jobs = [
        wheel.new_job("quick", args=[fate], keep=60, delay=0.001 * n) for n, fate in enumerate(("", "fail", "discard"))
    ]
    jobs.append(wheel.new_job("block", args=["blocks"], keep=60, delay=0.1))
    await wheel.enqueue_many(jobs)
    await asyncio.sleep(0.15)
    async with worker_process(url, stage.path):
        blocked = await stage.nth(1)
        async with worker_process(url, stage.path):
            done, failed, dead = (str(job.id) for job in jobs[:3])
            assert (await _ended(wheel, done, JobState.DONE)).attempt == 1
            assert (await _ended(wheel, dead, JobState.DEAD)).attempt == 1
            retried = await _ended(wheel, failed, JobState.SCHEDULED)
            assert (retried.attempt, [failure.reason for failure in retried.failures]) == (1, [Reason.ERROR])
            blocked.go()
            assert (await wheel.wait(str(jobs[3].id), "default", timeout=10)).attempt == 1


async def test_what_waits_behind_a_blocked_loop_runs_elsewhere_and_what_ends_in_a_thread_is_settled(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, "--concurrency", "3") as first:
        thread = await wheel.enqueue("thread", args=["in a thread"], keep=60)
        in_thread = await stage.nth(1)
        await wheel.enqueue_many(
            [
                wheel.new_job("block", args=["blocks"], id="a", keep=60, timeout=0.2, retries=0),
                *(wheel.new_job("quick", id=f"b{n}", keep=60) for n in range(5)),
            ]
        )
        blocked = await stage.nth(2)
        async with worker_process(url, stage.path):
            in_thread.go()
            for job_id in (thread.job_id, *(f"b{n}" for n in range(5))):
                job = await _ended(wheel, job_id, JobState.DONE)
                # Given back unharmed, or ended where it was: no lease ran out.
                assert (job.attempt, job.failures) == (1, ())
            dead = await _ended(wheel, "a", JobState.DEAD)
            assert (dead.reason, dead.attempt) == (Reason.TIMEOUT, 1)
            blocked.go()
            # The loop that turns again has nothing to say about what was settled beside it, and serves on.
            await first.says(r"job a \(block\): it ended after its outcome was settled")
        marker = await wheel.enqueue("quick", keep=60)
        assert (await wheel.wait(marker.job_id, timeout=10)).attempt == 1
        assert [line for line in first.lines if "lease" in line] == []
    assert len(stage.actors) == 2


async def test_an_answer_to_a_claim_that_arrives_leases_later_starts_nothing_that_runs_elsewhere(
    wheel: Wheel, fresh: RedisServer
) -> None:
    order: list[str] = []

    def define(where: Wheel, name: str) -> None:
        for task, queue in (("one", "default"), ("two", "other")):

            @where.task(name=task, queue=queue, keep=60)
            async def note(text: str) -> None:
                order.append(name)

    define(wheel, "near")
    with Proxy(fresh.socket) as proxy:
        async with Wheel(proxy.url, namespace="zw") as far:
            define(far, "far")
            log, near = Log(), Log()
            queues = ("default", "other")
            async with running(far, log, queues=queues):
                # No answer but that to the claim is so large.
                proxy.mute_at(3000)
                long = os.urandom(500).hex()
                await wheel.enqueue_many(wheel.new_job("one", id=f"{n}", keep=60, args=[long]) for n in range(10))
                await eventually(lambda: wheel.count("default", JobState.PROCESSING), bool)
                async with running(wheel, near, queues=queues):
                    await near.seen("done", count=10)
                    proxy.unmute()
                    marker = await wheel.enqueue("one", keep=60, args=["short"])
                    assert (await wheel.wait(marker.job_id, timeout=10)).state is JobState.DONE
    starts = Counter({f"{n}": 1 for n in range(10)})
    assert {job: count for job, count in near.starts().items() if job in starts} == starts
    assert set(log.starts()) <= {marker.job_id}
