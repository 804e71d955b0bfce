"""A job that kills its process again and again does not take those along that ran beside it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.workers.harness import one_kind
from tests.workers.processes import worker_process
from zwheel import Job, JobState, Reason, Wheel

pytestmark = [pytest.mark.anyio, one_kind]


async def _wait(wheel: Wheel, ids: list[str]) -> list[Job]:
    return [await wheel.wait(job_id, "default", timeout=45) for job_id in ids]


@asynccontextmanager
async def _kept(url: str, stage: Path, processes: int) -> AsyncIterator[None]:
    """Worker processes, each started again as often as it dies."""

    async def keep() -> None:
        while True:
            async with worker_process(url, stage, wait=False) as worker:
                await worker.child.wait()

    keepers = [asyncio.create_task(keep()) for _ in range(processes)]
    try:
        yield
    finally:
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(*keepers, return_exceptions=True)


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "retries"), [(1, 2), (3, 10)])
async def test_only_the_attempts_of_the_job_that_kills_its_process_run_out(
    wheel: Wheel, url: str, tmp_path: Path, processes: int, retries: int
) -> None:
    # All are due at once, and the innocent ones take longer than the culprit leaves them.
    poison = wheel.new_job("poison", args=[0.2], id="poison", retries=4)
    innocent = [wheel.new_job("nap", args=[0.4], id=f"innocent-{n}", retries=retries, keep=600) for n in range(8)]
    await wheel.enqueue_many([poison, *innocent])
    async with _kept(url, tmp_path / "stage", processes):
        jobs = await _wait(wheel, [str(job.id) for job in innocent])
        dead = await wheel.wait("poison", "default", timeout=45)
    assert Counter(job.state for job in jobs) == {JobState.DONE: 8}
    assert (dead.state, dead.reason, dead.attempt) == (JobState.DEAD, Reason.LEASE_EXPIRED, 5)


@pytest.mark.slow
async def test_two_jobs_that_kill_their_processes_die_and_nobody_else(wheel: Wheel, url: str, tmp_path: Path) -> None:
    poison = [wheel.new_job("poison", args=[0.1], id=f"poison-{n}", retries=4) for n in range(2)]
    innocent = [wheel.new_job("nap", args=[0.3], id=f"innocent-{n}", retries=4, keep=600) for n in range(6)]
    await wheel.enqueue_many([*poison, *innocent])
    async with _kept(url, tmp_path / "stage", 2):
        jobs = await _wait(wheel, [str(job.id) for job in innocent])
        dead = await _wait(wheel, [str(job.id) for job in poison])
    assert {job.state for job in jobs} == {JobState.DONE}
    assert {job.state for job in dead} == {JobState.DEAD}
