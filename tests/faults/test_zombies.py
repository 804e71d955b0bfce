"""Processes that sleep for longer than a lease and wake up: Z-02 to Z-04, Z-07 to Z-09."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.faults.witness import BUSY_MS, LEASE_MS, POLL_MS, REAP_MS, found, in_state, python, server_ms, witness
from tests.workers.harness import Log, eventually, one_kind, running
from tests.workers.processes import Process, worker_process
from tests.workers.stage import Stage
from zwheel import JobState, Wheel, current_job
from zwheel.workers.alive import is_running

pytestmark = [pytest.mark.anyio, one_kind]


async def stopped(process: Process) -> None:
    """Wait until a process has stopped itself."""

    async def runs() -> bool:
        return is_running(process.pid)

    await eventually(runs, lambda running: not running, 15)


async def test_a_zombie_that_wakes_before_the_next_claim_is_refused(wheel: Wheel, stage: Stage, url: str) -> None:
    async with witness(wheel), worker_process(url, stage.path) as sleeper:
        answer = await wheel.enqueue("play", args=["held"], keep=60)
        old = await stage.nth(1)
        await wheel.pause("default")
        sleeper.signal(signal.SIGSTOP)
        # Taken back by the other worker, and claimed by nobody: the queue is paused.
        reaped = await in_state(wheel, answer.job_id, JobState.SCHEDULED)
        old.go()
        sleeper.signal(signal.SIGCONT)
        await sleeper.says(f"{answer.job_id}.*lease|lease.*{answer.job_id}")
        assert await found(wheel, answer.job_id) == reaped
        await wheel.resume("default")
        new = await stage.nth(2)
        new.go()
        assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 2
    assert new.token > old.token
    assert len(stage.actors) == 2


async def test_a_zombie_changes_nothing_of_the_job_that_took_the_place_of_its_own(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with witness(wheel), worker_process(url, stage.path) as sleeper:
        await wheel.enqueue("play", args=["held"], id="a", keep=60, retries=0)
        old = await stage.nth(1)
        await wheel.pause("default")
        sleeper.signal(signal.SIGSTOP)
        await in_state(wheel, "a", JobState.DEAD)
        assert (await wheel.enqueue("play", args=["held"], id="a", keep=60, replace=True)).replaced
        new = await found(wheel, "a")
        old.go()
        sleeper.signal(signal.SIGCONT)
        await sleeper.says("a.*lease|lease.*a")
        assert await found(wheel, "a") == new
        await wheel.resume("default")
        second = await stage.nth(2)
        second.go()
        assert (await wheel.wait("a", timeout=15)).attempt == 1
    assert second.token > old.token


async def test_a_zombie_that_wakes_after_its_successor_ended_changes_nothing(
    wheel: Wheel, stage: Stage, url: str
) -> None:
    async with witness(wheel) as near:
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        async with worker_process(url, stage.path, wait=False, failpoints="handler.after=stop") as sleeper:
            await stage.nth(1, within=15)
            await stopped(sleeper)
            near.free()
            job = await wheel.wait(answer.job_id, timeout=15)
            sleeper.signal(signal.SIGCONT)
            await sleeper.says(f"{answer.job_id}.*lease|lease.*{answer.job_id}")
            assert await found(wheel, answer.job_id) == job
    assert job.attempt == 2
    assert [run.token for run in near.runs] == [job.token]


async def test_a_zombie_cannot_end_a_new_job_of_the_same_id(wheel: Wheel, stage: Stage, url: str) -> None:
    async with witness(wheel) as near:
        await wheel.enqueue("pass", args=["pass"], id="order-1", keep=60)
        async with worker_process(url, stage.path, wait=False, failpoints="complete.before=stop") as sleeper:
            old = await stage.nth(1, within=15)
            await stopped(sleeper)
            near.free()
            ended = await wheel.wait("order-1", timeout=15)
            assert await wheel.purge("default", JobState.DONE) >= 1
            again = await wheel.enqueue("play", args=["held"], id="order-1", keep=60, queue="default")
            assert not again.existed
            held = await eventually(lambda: found(wheel, "order-1"), lambda job: job.state is JobState.DONE, 15)
            assert held.token is not None and ended.token is not None
            assert old.token < ended.token < held.token
            sleeper.signal(signal.SIGCONT)
            await sleeper.says("order-1.*lease|lease.*order-1")
            assert await found(wheel, "order-1") == held


async def test_a_stopped_redis_never_has_two_runs_at_a_time(own_server: MakeServer, log: Log) -> None:
    server = own_server(appendonly=True)
    gate = asyncio.Event()
    at_work: Counter[str] = Counter()
    most = 0
    async with Wheel(server.url, namespace="zw", give_up_s=15) as wheel:

        @wheel.task(keep=600)
        async def hold() -> None:
            nonlocal most
            job = current_job().id
            at_work[job] += 1
            most = max(most, at_work[job])
            try:
                await gate.wait()
            finally:
                at_work[job] -= 1

        settings: dict[str, Any] = {"lease_ms": LEASE_MS, "concurrency": 5}
        async with running(wheel, log, **settings), running(wheel, log, **settings):
            held = await wheel.enqueue_many(hold.job() for _ in range(6))
            await log.seen("start", count=6)
            server.freeze()
            # The fault itself: two leases of it.
            await asyncio.sleep(2 * LEASE_MS / 1000)
            server.thaw()
            gate.set()
            jobs = [await wheel.wait(answer.job_id, timeout=20) for answer in held]
    assert {job.state for job in jobs} == {JobState.DONE}
    assert {job.attempt for job in jobs} <= {1, 2}
    assert most == 1


PRODUCER = """
import sys
from zwheel import SyncWheel
with SyncWheel(sys.argv[1], namespace="zw", give_up_s=30) as wheel:
    for n in range(400):
        wheel.enqueue("t", id=f"late-{n}", queue="later", delay=3600)
"""


async def test_a_suspended_machine_wakes_up_to_nothing(wheel: Wheel, stage: Stage, url: str) -> None:
    async with (
        witness(wheel) as near,
        worker_process(url, stage.path) as first,
        worker_process(url, stage.path) as second,
    ):
        answers = [await wheel.enqueue("play", args=["held"], keep=60) for _ in range(4)]
        old = [await stage.nth(number) for number in range(1, 5)]
        producer = asyncio.create_task(python(url, code=PRODUCER))
        await eventually(lambda: wheel.count("later", JobState.SCHEDULED), lambda count: count > 20)
        pids = [pid for pid in children_of(os.getpid()) if pid not in (first.pid, second.pid) and is_producer(pid)]
        assert len(pids) == 1
        for pid in (first.pid, second.pid, *pids):
            os.kill(pid, signal.SIGSTOP)
        near.free()
        jobs = [await wheel.wait(answer.job_id, timeout=20) for answer in answers]
        assert {job.attempt for job in jobs} == {2}
        for pid in (first.pid, second.pid, *pids):
            os.kill(pid, signal.SIGCONT)
        for actor in old:
            # Nobody tells them to go: they end because their leases are lost.
            await actor.gone(within=15)
        assert [await found(wheel, answer.job_id) for answer in answers] == jobs
        assert (await producer)[0] == 0
        assert await wheel.count("later", JobState.SCHEDULED) == 400
    assert Counter(run.id for run in near.runs) == Counter(answer.job_id for answer in answers)


def children_of(pid: int) -> list[int]:
    """The child processes of this one."""
    return [
        int(word) for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()
    ]


def is_producer(pid: int) -> bool:
    """Whether a process runs the piece of code above."""
    return b"late-" in Path(f"/proc/{pid}/cmdline").read_bytes()


LONG_MS = 4_000


async def test_nobody_waits_for_a_stopped_reaper(wheel: Wheel, stage: Stage, url: str) -> None:
    # A long lease: on a busy machine too it keeps the job that takes its room. But it is the grace that others give once
    # an answer was slow for them, 0.1 s here: the longest lease in use.
    async with witness(wheel, reap_ms=600_000, lease_ms=LONG_MS) as near:
        answer = await wheel.enqueue("pass", args=["pass"], keep=60)
        async with worker_process(url, stage.path, wait=False, failpoints="claim.after=kill") as claimer:
            assert await claimer.ended() == -signal.SIGKILL
        async with worker_process(url, stage.path, wait=False, failpoints="reap.before=stop") as sleeper:
            await stopped(sleeper)
            began = await server_ms(wheel)
            async with running(wheel, near.log, lease_ms=LEASE_MS, reap_ms=REAP_MS):
                job = await wheel.wait(answer.job_id, timeout=25)
    assert job.attempt == 2
    assert [run.token for run in near.runs] == [job.token]
    # That grace at the most, then as after any death: the wake-up token may have gone to the stopped worker.
    assert near.runs[0].token // 1000 <= began + LONG_MS + LEASE_MS + REAP_MS + POLL_MS + BUSY_MS


async def test_nobody_waits_for_a_stopped_timekeeper(wheel: Wheel, stage: Stage, url: str) -> None:
    # It is stopped with the role in its hands: it has asked, and has not read the answer.
    async with worker_process(url, stage.path, wait=False, failpoints="claim.after=stop") as sleeper:
        await stopped(sleeper)
        async with witness(wheel) as near:
            near.free()
            answer = await wheel.enqueue("pass", args=["pass"], delay=0.5, keep=60)
            job = await wheel.wait(answer.job_id, timeout=15)
    assert job.attempt == 1
    lateness = near.runs[0].token // 1000 - answer.fire_at_ms
    assert 0 <= lateness <= POLL_MS + BUSY_MS
