"""`--processes N`: children that die are replaced and their end is told; the supervisor's own end takes nothing with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest

from tests.workers.harness import eventually, one_kind
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Wheel

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


def lives(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def all_gone(pids: list[int], within: float = 10.0) -> None:
    async def living() -> list[int]:
        return [pid for pid in pids if lives(pid)]

    await eventually(living, lambda left: not left, within)


async def test_a_killed_child_is_reported_with_its_signal_and_replaced(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--processes", "2") as supervisor:
        await supervisor.ready(2)
        first, second = await supervisor.children(2)
        os.kill(first, signal.SIGKILL)
        (line,) = await supervisor.says(f"worker process {first} ended")
        assert "SIGKILL" in line
        third = (await supervisor.children(3))[2]
        await supervisor.ready(3)
        os.kill(third, signal.SIGSEGV)
        (line,) = await supervisor.says(f"worker process {third} ended")
        assert "SIGSEGV" in line
        await supervisor.ready(4)
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
        assert lives(second)
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.ended() == 0
        await all_gone(await supervisor.children(4))


async def test_sigterm_drains_every_child(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "-p", "2", "--concurrency", "1") as supervisor:
        await supervisor.ready(2)
        answers = [await wheel.enqueue("play", args=[f"held {n}"], keep=60) for n in range(2)]
        held = [await stage.nth(1), await stage.nth(2)]
        assert held[0].pid != held[1].pid
        supervisor.signal(signal.SIGTERM)
        await supervisor.says("draining", count=2)
        for actor in held:
            actor.go()
        assert await supervisor.ended() == 0
        await all_gone(await supervisor.children(2))
        for answer in answers:
            assert (await wheel.wait(answer.job_id, timeout=2)).state is JobState.DONE


async def test_a_second_sigterm_gives_the_jobs_of_every_child_back_at_once(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with worker_process(url, stage.path, "--processes=2", "--concurrency", "1", drain="60s") as supervisor:
        await supervisor.ready(2)
        answers = [await wheel.enqueue("play", args=[f"held {n}"], keep=60) for n in range(2)]
        await stage.nth(2)
        supervisor.signal(signal.SIGTERM)
        await supervisor.says("draining", count=2)
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.ended(within=8) == 0
        jobs = [await wheel.get(answer.job_id) for answer in answers]
    assert [(job.state, job.attempt) for job in jobs if job is not None] == [(JobState.SCHEDULED, 0)] * 2


async def test_the_children_of_a_killed_supervisor_drain(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--processes", "2", "--concurrency", "1") as supervisor:
        await supervisor.ready(2)
        pids = await supervisor.children(2)
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        held = await stage.nth(1)
        supervisor.signal(signal.SIGKILL)
        await supervisor.says("the supervisor is gone", count=2)
        held.go()
        assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
        await all_gone(pids)
        assert await wheel.workers() == []


async def test_sigterm_while_children_start_ends_everything(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--processes", "2", wait=False) as supervisor:
        pids = await supervisor.children(2)
        supervisor.signal(signal.SIGTERM)
        assert await supervisor.ended() == 0
        await all_gone(pids)


async def test_workers_in_processes_share_a_queue(wheel: Wheel, stage: Stage, url: str) -> None:
    async with worker_process(url, stage.path, "--processes", "2", "--concurrency", "3") as supervisor:
        await supervisor.ready(2)
        await wheel.enqueue_many(wheel.new_job("play", args=[f"held {n}"], keep=60) for n in range(6))
        actors = [await stage.nth(n) for n in range(1, 7)]
        assert {actor.pid for actor in actors} == set(await supervisor.children(2))
        for actor in actors:
            actor.go()
        await asyncio.gather(*(actor.gone() for actor in actors))
