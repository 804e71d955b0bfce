"""Redis is silent for most of a lease: what was stopped goes back unharmed, what ended is settled, nothing is taken from others."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.conftest import MakeServer
from tests.proxy import Proxy
from tests.servers import RedisServer
from tests.workers.harness import Log, define_hold, eventually, one_kind, running
from tests.workers.processes import worker_process
from tests.workers.stage import Stage
from zwheel import Job, JobState, Reason, Retry, Wheel

pytestmark = [pytest.mark.anyio, one_kind]
STOPPED = "it is stopped, since others may have it soon"


@pytest.fixture
async def stage(tmp_path_factory: pytest.TempPathFactory, anyio_backend: str) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("s") / "stage") as made:
        yield made


@pytest.fixture
def server(own_server: MakeServer) -> RedisServer:
    """A server that may be stopped."""
    return own_server()


@pytest.fixture
async def near(server: RedisServer, anyio_backend: str) -> AsyncIterator[Wheel]:
    """A wheel on the server that may be stopped."""
    async with Wheel(server.url, namespace="zw", give_up_s=15.0) as made:
        yield made


def _job(wheel: Wheel, job_id: str) -> Callable[[], Awaitable[Job | None]]:
    return lambda: wheel.get(job_id, "default")


@pytest.mark.parametrize("task", ["play", "unready", "isolated"])
async def test_what_is_stopped_in_the_silence_goes_back_unharmed_when_redis_answers(
    server: RedisServer, near: Wheel, stage: Stage, task: str
) -> None:
    async with worker_process(server.url, stage.path) as worker:
        answer = await near.enqueue(task, args=["x"], keep=60, retries=0)
        first = await stage.nth(1)
        server.freeze()
        try:
            await worker.says(f"job {answer.job_id}: .*{STOPPED}")
            await first.gone()
        finally:
            server.thaw()
        second = await stage.nth(2)
        assert (first.attempt, second.attempt) == (1, 1)
        second.go()
        job = await near.wait(answer.job_id, timeout=15)
        assert (job.state, job.attempt, job.failures) == (JobState.DONE, 1, ())
        assert [line for line in worker.lines if "took back" in line] == []


async def test_a_function_in_a_thread_is_kept_through_the_silence_and_settled_as_it_ended(
    server: RedisServer, near: Wheel, log: Log
) -> None:
    gates = {fate: threading.Event() for fate in ("well", "badly", "later")}
    never = asyncio.Event()
    order: list[str] = []

    @near.task(keep=60, retries=1)
    def in_a_thread(fate: str) -> None:
        gates[fate].wait(20)
        if fate == "badly":
            raise Retry(fate, delay=3600)

    # What is stopped shows that the silence was long enough.
    define_hold(near, "near", never, order)
    async with running(near, log):
        ids = {fate: (await in_a_thread.enqueue(fate)).job_id for fate in gates}
        await near.enqueue("hold")
        await log.seen("start", count=4)
        server.freeze()
        try:
            await log.seen("released")
            for fate in ("well", "badly"):
                gates[fate].set()
            await log.seen("done", ids["well"])
            await log.seen("retried", ids["badly"])
        finally:
            server.thaw()
        done = await near.wait(ids["well"], timeout=15)
        assert (done.state, done.attempt) == (JobState.DONE, 1)
        failed = await eventually(_job(near, ids["badly"]), lambda job: job and job.state is JobState.SCHEDULED)
        assert failed is not None
        assert [(failure.reason, failure.message) for failure in failed.failures] == [(Reason.ERROR, "badly")]
        # The job that still runs is renewed: no worker starts it a second time.
        held = await near.get(ids["later"])
        assert held is not None and held.lease_until_ms is not None
        until = held.lease_until_ms + 600
        await eventually(_job(near, ids["later"]), lambda job: job and (job.lease_until_ms or 0) > until)
        gates["later"].set()
        assert (await near.wait(ids["later"], timeout=15)).attempt == 1
    assert {job_id: log.starts()[job_id] for job_id in ids.values()} == dict.fromkeys(ids.values(), 1)
    assert order[:2] == ["near starts", "near is stopped"]
    assert log.of("reaped") == []


async def test_one_that_ends_well_although_it_is_stopped_is_done(server: RedisServer, near: Wheel, log: Log) -> None:
    @near.task(keep=60)
    async def tidy() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(0)

    async with running(near, log):
        answer = await tidy.enqueue()
        await log.seen("start", answer.job_id)
        server.freeze()
        try:
            await log.seen("done", answer.job_id)
        finally:
            server.thaw()
        assert (await near.wait(answer.job_id, timeout=15)).attempt == 1
    assert log.starts() == {answer.job_id: 1}


async def test_what_was_stopped_here_and_runs_elsewhere_is_left_to_the_other(
    fresh: RedisServer, wheel: Wheel, log: Log
) -> None:
    order: list[str] = []
    gate = asyncio.Event()
    define_hold(wheel, "near", gate, order)
    other = Log()
    with Proxy(fresh.socket) as proxy:
        async with Wheel(proxy.url, namespace="zw", give_up_s=10, timeout_s=5) as far:
            define_hold(far, "far", gate, order)

            async def released() -> int:
                return proxy.passed["release"]

            async with running(far, log):
                answer = await wheel.enqueue("hold", keep=60)
                await log.seen("start", answer.job_id)
                async with running(wheel, other):
                    proxy.freeze()
                    await other.seen("start", answer.job_id)
                    proxy.thaw()
                    await eventually(released, bool)
                    gate.set()
                    assert (await wheel.wait(answer.job_id, timeout=15)).attempt == 2
    assert order == ["far starts", "far is stopped", "near starts"]
    assert other.starts() == {answer.job_id: 1}
    assert log.starts() == {answer.job_id: 1}


async def test_a_worker_that_drains_in_the_silence_ends_in_time(server: RedisServer, stage: Stage, near: Wheel) -> None:
    async with worker_process(server.url, stage.path, drain="1s") as worker:
        await near.enqueue("play", args=["x"], keep=60)
        await stage.nth(1)
        server.freeze()
        try:
            await worker.says(STOPPED)
            worker.child.terminate()
            await worker.ended(within=15)
        finally:
            server.thaw()
