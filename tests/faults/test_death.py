"""Processes die at a named place, by SIGKILL: K-01 to K-14."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import pytest

from tests.faults.app import RETRY_S, open_bank
from tests.faults.witness import LEASE_MS, bury_all, found, in_state, lapsed, python, witness
from tests.servers import RedisServer
from tests.workers.harness import one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Reason, Wheel

pytestmark = [pytest.mark.anyio, one_kind]
KILLED = -signal.SIGKILL
APP = "tests.faults.app:wheel"
PRODUCE = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    print(wheel.enqueue("t", id="order-1", delay=60, keep=60, queue="default").existed)
"""
AGAIN = PRODUCE.replace("keep=60,", "keep=60, replace=True,")
BULK = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw") as wheel:
    jobs = (wheel.new_job("t", id=f"order-{n}", delay=3600, queue="default") for n in range(10_000))
    print(sum(not answer.existed for answer in wheel.enqueue_many(jobs, chunk=500)))
"""


async def test_a_producer_that_dies_before_it_sends_leaves_nothing(url: str, fresh: RedisServer) -> None:
    code, _ = await python(url, code=PRODUCE, ZWHEEL_FAILPOINTS="enqueue.before=kill")
    assert code == KILLED
    with fresh.client() as client:
        # The list of queues may have been written before; a job may not.
        assert [key for key in client.scan_iter() if key.startswith(b"{")] == []


async def test_a_producer_that_dies_before_it_hears_makes_one_job_with_its_successor(wheel: Wheel, url: str) -> None:
    code, _ = await python(url, code=PRODUCE, ZWHEEL_FAILPOINTS="enqueue.after=kill")
    assert code == KILLED
    first = await found(wheel, "order-1")
    code, said = await python(url, code=PRODUCE)
    assert (code, said.strip()) == (0, "True")
    assert await wheel.count("default", JobState.SCHEDULED) == 1
    again = await found(wheel, "order-1")
    assert (again.fire_at_ms, again.attempt) == (first.fire_at_ms, 0)


async def test_a_producer_that_dies_when_it_has_replaced_a_job_replaced_it_once(wheel: Wheel, url: str) -> None:
    await wheel.enqueue("t", id="order-1", keep=60)
    bury_all(url, 1)
    assert (await found(wheel, "order-1")).state is JobState.DEAD
    code, _ = await python(url, code=AGAIN, ZWHEEL_FAILPOINTS="enqueue.after=kill")
    assert code == KILLED
    first = await found(wheel, "order-1")
    assert (first.state, first.attempt) == (JobState.SCHEDULED, 0)
    code, said = await python(url, code=AGAIN)
    assert (code, said.strip()) == (0, "True")
    assert await found(wheel, "order-1") == first
    assert await wheel.count("default", JobState.DEAD) == 0


@pytest.mark.parametrize(("side", "stored"), [("before", 3500), ("after", 4000)])
async def test_a_bulk_that_is_cut_short_is_whole_chunks_and_a_repeat_completes_it(
    wheel: Wheel, url: str, side: str, stored: int
) -> None:
    code, _ = await python(url, code=BULK, ZWHEEL_FAILPOINTS=f"enqueue.{side}=kill@8")
    assert code == KILLED
    assert await wheel.count("default", JobState.SCHEDULED) == stored
    code, said = await python(url, code=BULK)
    assert (code, said.strip()) == (0, str(10_000 - stored))
    assert await wheel.count("default", JobState.SCHEDULED) == 10_000


async def test_a_worker_that_dies_before_it_claims_changes_nothing(wheel: Wheel, stage: Stage, url: str) -> None:
    async with witness(wheel) as near:
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        before = await found(wheel, answer.job_id)
        async with worker_process(url, stage.path, wait=False, failpoints="claim.before=kill") as doomed:
            assert await doomed.ended() == KILLED
        assert await found(wheel, answer.job_id) == before
        near.free()
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 1
    assert stage.actors == []


@pytest.mark.parametrize(
    ("place", "precise"), [("claim.after", False), ("claim.after", True), ("handler.before", False)]
)
async def test_a_job_whose_claim_nobody_used_comes_back_and_never_ran(
    wheel: Wheel, stage: Stage, url: str, place: str, precise: bool
) -> None:
    await wheel.set_precise("default", precise)
    async with witness(wheel) as near:
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        async with worker_process(url, stage.path, wait=False, failpoints=f"{place}=kill") as doomed:
            assert await doomed.ended() == KILLED
        left = await found(wheel, answer.job_id)
        assert (left.state, left.attempt) == (JobState.PROCESSING, 1)
        near.free()
        job = await wheel.wait(answer.job_id, timeout=15)
    # The claim that was lost counts; the reason is on record.
    assert (job.attempt, [failure.reason for failure in job.failures]) == (2, [Reason.LEASE_EXPIRED])
    assert len(near.runs) == 1
    assert near.came_back_in_time(left.lease_until_ms, near.runs[0])
    assert near.runs[0].token > (left.token or 0)
    assert stage.actors == []


@pytest.mark.parametrize("place", ["handler.after", "complete.before"])
async def test_a_job_that_ended_unreported_runs_once_more_and_has_one_effect(
    wheel: Wheel, stage: Stage, url: str, tmp_path: Path, place: str
) -> None:
    path = tmp_path / "bank.db"
    with closing(open_bank(path)) as bank:
        answer = await wheel.enqueue("pay", args=[str(path)], keep=60)
        async with worker_process(url, stage.path, wait=False, app=APP, failpoints=f"{place}=kill") as doomed:
            assert await doomed.ended() == KILLED
        (first,) = bank.execute("SELECT job, token, moved FROM moves")
        assert (first[0], first[2]) == (answer.job_id, 1)
        async with worker_process(url, stage.path, app=APP):
            assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 2
        (second,) = bank.execute("SELECT job, token, moved FROM moves")
    assert second[1] > first[1]
    assert second[2] == 1


async def test_a_job_reported_as_done_never_runs_again(wheel: Wheel, stage: Stage, url: str) -> None:
    answer = await wheel.enqueue("pass", args=["pass"], keep=60)
    async with worker_process(url, stage.path, wait=False, failpoints="complete.after=kill") as doomed:
        assert await doomed.ended() == KILLED
    assert (await found(wheel, answer.job_id)).state is JobState.DONE
    async with worker_process(url, stage.path):
        marker = await wheel.enqueue("pass", args=["pass"], keep=60)
        assert (await wheel.wait(marker.job_id, timeout=15)).attempt == 1
    assert [actor.job for actor in stage.actors] == [answer.job_id, marker.job_id]


async def test_a_retry_whose_answer_was_lost_is_on_the_wheel_once_at_its_time(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    answer = await wheel.enqueue("fail", args=["pass"], keep=60)
    async with worker_process(url, stage.path, wait=False, app=APP, failpoints="retry.after=kill") as doomed:
        assert await doomed.ended() == KILLED
    job = await found(wheel, answer.job_id)
    assert (job.state, job.attempt, len(job.failures)) == (JobState.SCHEDULED, 1, 1)
    assert 0 <= job.fire_at_ms - job.failures[0].at_ms - 1000 * RETRY_S < 2000
    counts = {state: await wheel.count("default", state) for state in JobState}
    assert {state: count for state, count in counts.items() if count} == {JobState.SCHEDULED: 1}
    assert sum(day.jobs for day in await wheel.days("default")) == 1


async def test_a_burial_whose_answer_was_lost_is_dead_once(wheel: Wheel, stage: Stage, url: str) -> None:
    answer = await wheel.enqueue("doom", args=["pass"], keep=60)
    async with worker_process(url, stage.path, wait=False, app=APP, failpoints="bury.after=kill") as doomed:
        assert await doomed.ended() == KILLED
    job = await found(wheel, answer.job_id)
    assert (job.state, job.reason, len(job.failures)) == (JobState.DEAD, Reason.DISCARDED, 1)
    counts = {state: await wheel.count("default", state) for state in JobState}
    assert {state: count for state, count in counts.items() if count} == {JobState.DEAD: 1}
    assert await wheel.days("default") == []


@pytest.mark.parametrize("side", ["before", "after"])
async def test_a_lease_ends_with_the_last_beat_that_arrived(wheel: Wheel, stage: Stage, url: str, side: str) -> None:
    async with witness(wheel) as near:
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        async with worker_process(url, stage.path, wait=False, failpoints=f"extend.{side}=kill@4") as doomed:
            held = await stage.nth(1, within=15)
            claimed = held.token // 1000 + LEASE_MS
            assert await doomed.ended() == KILLED
        left = await found(wheel, answer.job_id)
        assert left.lease_until_ms is not None
        # A beat that arrived has moved the end of the lease.
        assert left.lease_until_ms > claimed
        near.free()
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 2
    assert near.came_back_in_time(left.lease_until_ms, near.runs[0])


async def test_a_job_given_back_by_a_dying_worker_is_free_at_once_and_uncounted(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with witness(wheel) as near:
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        async with worker_process(url, stage.path, drain="50ms", failpoints="release.after=kill") as doomed:
            await stage.nth(1)
            doomed.signal(signal.SIGTERM)
            assert await doomed.ended() == KILLED
        job = await found(wheel, answer.job_id)
        assert (job.state, job.attempt, job.failures) == (JobState.SCHEDULED, 0, ())
        assert job.fire_at_ms == answer.fire_at_ms
        near.free()
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 1
    assert (len(stage.actors), len(near.runs)) == (1, 1)


@pytest.mark.parametrize("side", ["before", "after"])
async def test_another_reaper_takes_over_and_takes_nothing_twice(
    wheel: Wheel, stage: Stage, url: str, side: str
) -> None:
    # This worker beats and does not reap: only the worker that dies does, and then its successor.
    async with witness(wheel, reap_ms=600_000) as near:
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        # Its first claim takes nothing when it doubts the clock, as it may on a busy machine.
        for _ in range(10):
            async with worker_process(url, stage.path, wait=False, failpoints="claim.after=kill") as claimer:
                assert await claimer.ended() == KILLED
            if (await found(wheel, answer.job_id)).state is JobState.PROCESSING:
                break
        await lapsed(wheel, answer.job_id)
        # Paused, so that the dying worker cannot claim the job that it took back in its last moment.
        await wheel.pause("default")
        # With its first answer it learns how often the clock jumped, which no claim of a paused queue tells; with the next
        # one it takes. A worker that doubts the clock, as it may on a busy machine, takes nothing then either.
        left = JobState.PROCESSING if side == "before" else JobState.SCHEDULED
        state = None
        for _ in range(10):
            if state is left:
                break
            async with worker_process(url, stage.path, wait=False, failpoints=f"reap.{side}=kill@2") as doomed:
                assert await doomed.ended(30) == KILLED
            state = (await found(wheel, answer.job_id)).state
        assert state is left
        await wheel.resume("default")
        async with running(wheel, near.log, lease_ms=LEASE_MS, reap_ms=100):
            job = await in_state(wheel, answer.job_id, JobState.DONE)
        near.free()
    # Taken back once: one claim was lost, and one ran.
    assert (job.attempt, [failure.reason for failure in job.failures]) == (2, [Reason.LEASE_EXPIRED])
    assert len(near.runs) == 1
    assert sum(answer.job_id in about["back"] for about in near.log.of("reaped")) == (side == "before")
