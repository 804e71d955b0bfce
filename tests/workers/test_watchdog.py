"""The watchdog: who blocks the event loop is said, and a worker that is of no more use is replaced, its jobs unharmed."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import Job, JobState, Reason, Wheel
from zwheel.workers.watchdog import dump_after_s

pytestmark = [pytest.mark.anyio, one_kind]
IMPATIENT = "tests.workers.impatient"


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


async def _found(wheel: Wheel, job_id: str) -> Job:
    job = await wheel.get(job_id, "default")
    assert job is not None
    return job


async def test_a_worker_whose_loop_stays_blocked_is_replaced_and_its_other_jobs_are_unharmed(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, module=IMPATIENT) as worker:
        held = await wheel.enqueue("play", args=["suspended"], keep=60)
        thread = await wheel.enqueue("thread", args=["in a thread"], keep=60)
        await stage.nth(2)
        in_thread = next(actor for actor in stage.actors if actor.job == thread.job_id)
        blocking = await wheel.enqueue("block", args=["blocks"], keep=60)
        await stage.nth(3)
        await worker.says(f"task block, job {blocking.job_id}, blocks the event loop for more than")
        await worker.says(f"task block, job {blocking.job_id}, has blocked the event loop for .* to be replaced")
        # It says where: from the task's own code on, and no further up.
        await worker.says(r"\| .*in play_blocking", count=2)
        where = [line for line in worker.lines if line.lstrip().startswith("| ")]
        assert "in block" in where[0]
        # The thread may end meanwhile, and that is told although the loop cannot hear of it.
        in_thread.go()
        assert await worker.ended() == 1
        unharmed = await _found(wheel, held.job_id)
        assert (unharmed.state, unharmed.attempt, unharmed.failures) == (JobState.SCHEDULED, 0, ())
        done = await _found(wheel, thread.job_id)
        assert (done.state, done.attempt) == (JobState.DONE, 1)
        # The job that blocked the loop is left to its lease: its attempt counts.
        left = await _found(wheel, blocking.job_id)
        assert (left.state, left.attempt) == (JobState.PROCESSING, 1)
    assert len([line for line in worker.lines if "for more than" in line]) == 1


async def test_what_waits_behind_a_stuck_worker_runs_in_the_next_one(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--concurrency", "1", module=IMPATIENT) as worker:
        await wheel.enqueue("block", args=["blocks"], keep=60, timeout=0.1, retries=0)
        await stage.nth(1)
        waiting = [await wheel.enqueue("quick", keep=60) for _ in range(3)]
        assert await worker.ended() == 1
        async with worker_process(url, stage.path):
            for answer in waiting:
                assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1


@pytest.mark.slow
async def test_a_task_that_holds_the_gil_past_its_timeout_is_renewed_no_more_and_its_worker_is_replaced(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path) as worker:
        answer = await wheel.enqueue("clutch", args=["holds"], timeout=0.3, retries=0)
        held = await stage.nth(1)
        assert held.pid == worker.pid
        async with running(wheel, Log()):
            dead = await eventually(lambda: _found(wheel, answer.job_id), lambda job: job.state is JobState.DEAD)
            assert (dead.reason, dead.attempt) == (Reason.LEASE_EXPIRED, 1)
        assert await worker.ended(within=20) == -signal.SIGKILL
        # Where it stood was written before, by a thread that needs no GIL.
        assert [line for line in worker.lines if "in clutch" in line], worker.lines
        assert [line for line in worker.lines if "a task holds the GIL" in line and answer.job_id in line]


async def test_a_worker_that_was_stopped_for_long_goes_on_and_writes_no_stacks(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    """What would write them after the stop would read what running threads change, and could crash the process."""
    async with worker_process(url, stage.path, lease="600ms") as worker:
        worker.signal(signal.SIGSTOP)
        # Longer than Python may be silent before stacks are written.
        await asyncio.sleep(dump_after_s(600) + 1.0)
        worker.signal(signal.SIGCONT)
        answer = await wheel.enqueue("quick", keep=60)
        assert (await wheel.wait(answer.job_id, timeout=20)).state is JobState.DONE
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    assert not [line for line in worker.lines if "hread 0x" in line]


async def test_a_history_tells_of_a_block_from_its_beginning_although_the_process_was_stopped_meanwhile(
    wheel: Wheel, stage: Stage, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZWHEEL_HISTORY", str(tmp_path))
    async with worker_process(url, stage.path, lease="2s", module=IMPATIENT) as worker:
        answer = await wheel.enqueue("block", args=["blocks"], keep=60)
        blocked = await stage.nth(1)
        await worker.says("task block, job .* blocks the event loop for more than")
        worker.signal(signal.SIGSTOP)
        stopped_us = time.time_ns() // 1000
        # The fault itself: the watchdog has missed four looks.
        await asyncio.sleep(1.5)
        worker.signal(signal.SIGCONT)
        blocked.go()
        await wheel.wait(answer.job_id, timeout=20)
    assert min(_stalls_us(tmp_path)) < stopped_us - 500_000


def _stalls_us(directory: Path) -> list[int]:
    """When the stalls of a history began."""
    lines = [json.loads(line) for path in directory.iterdir() for line in path.read_text().splitlines()]
    return [line["args"]["window"][0] for line in lines if line["op"] == "stall"]


async def test_a_short_block_is_said_once_for_each_task_and_changes_nothing(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, lease="30s", module=IMPATIENT) as worker:
        for number in (1, 2):
            answer = await wheel.enqueue("block", args=["blocks"], keep=60)
            blocked = await stage.nth(number)
            if number == 1:
                await worker.says("task block, job .* blocks the event loop")
            else:
                # The fault itself.
                await asyncio.sleep(1.5)
            blocked.go()
            assert (await wheel.wait(answer.job_id, timeout=10)).attempt == 1
    assert len([line for line in worker.lines if "blocks the event loop" in line]) == 1
