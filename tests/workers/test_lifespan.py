"""What an application does when a worker process starts and ends: its hooks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import anyio
import pytest

from tests.workers.harness import Log, eventually, one_kind, running
from zwheel import HookFailed, Wheel
from zwheel.workers import Worker, WorkerSettings
from zwheel.workers import lifespan as lifespan_module

pytestmark = [pytest.mark.anyio, one_kind]
WITHIN_S = 30.0


@pytest.fixture
def said() -> list[str]:
    return []


def worker_of(wheel: Wheel) -> Worker:
    return Worker(wheel, WorkerSettings(burst=True, lease_ms=3_000, drain_ms=1_000))


async def runs(wheel: Wheel) -> None:
    async with asyncio.timeout(WITHIN_S):
        await worker_of(wheel).run()


async def test_hooks_run_before_the_first_job_and_after_the_last_in_their_order(wheel: Wheel, said: list[str]) -> None:
    @wheel.on_startup
    def first() -> None:
        said.append("first")

    @wheel.on_shutdown
    async def last() -> None:
        said.append("last")

    @wheel.lifespan
    async def pool() -> AsyncIterator[None]:
        said.append("pool opens")
        # A task group has to be left by the task that entered it.
        async with anyio.create_task_group():
            yield
        said.append("pool closes")

    @wheel.lifespan
    def model() -> Iterator[None]:
        said.append("model opens")
        yield
        said.append("model closes")

    @wheel.lifespan
    @asynccontextmanager
    async def made() -> AsyncIterator[None]:
        said.append("made")
        yield
        said.append("unmade")

    @wheel.on_startup
    async def ready() -> None:
        said.append("ready")

    @wheel.task(name="job")
    async def job() -> None:
        await asyncio.sleep(0.05)
        said.append("job")

    await wheel.enqueue("job")
    await runs(wheel)
    assert said == [
        "first", "pool opens", "model opens", "made", "ready", "job", "unmade", "model closes", "pool closes", "last"
    ]  # fmt: skip


async def test_a_start_that_fails_claims_nothing_and_closes_what_is_open(
    wheel: Wheel, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.lifespan
    async def pool() -> AsyncIterator[None]:
        yield
        said.append("closed")

    @wheel.on_startup
    async def broken() -> None:
        raise OSError("no database")

    @wheel.on_startup
    async def never() -> None:
        said.append("never")

    job = await wheel.enqueue("anything")
    with pytest.raises(HookFailed, match=r"broken.*claims no job: OSError: no database"):
        await runs(wheel)
    assert said == ["closed"]
    assert any(record.exc_info for record in caplog.records)
    left = await wheel.get(job.job_id)
    assert left is not None
    assert left.attempt == 0


async def test_an_end_that_fails_is_said_and_the_others_run(
    wheel: Wheel, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    @wheel.on_shutdown
    def first() -> None:
        said.append("first")

    @wheel.lifespan
    async def pool() -> AsyncIterator[None]:
        yield
        raise OSError("it hung up")

    await runs(wheel)
    assert said == ["first"]
    assert any("pool" in record.getMessage() and record.exc_info for record in caplog.records)


async def test_an_end_that_takes_too_long_is_cut_short(
    wheel: Wheel, said: list[str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lifespan_module, "LONGEST_S", 0.3)

    @wheel.on_shutdown
    def before() -> None:
        said.append("before")

    @wheel.on_shutdown
    async def slow() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            said.append("cut")

    await runs(wheel)
    assert said == ["cut", "before"]
    assert any("did not end within" in record.getMessage() for record in caplog.records)


async def test_a_stop_during_the_start_ends_it(wheel: Wheel, said: list[str]) -> None:
    @wheel.on_startup
    async def slow() -> None:
        said.append("slow")
        try:
            await asyncio.sleep(60)
        finally:
            said.append("stopped")

    worker = worker_of(wheel)
    task = asyncio.create_task(worker.run())
    await eventually(lambda: asyncio.sleep(0, said), bool)
    worker.stop()
    async with asyncio.timeout(WITHIN_S):
        await task
    assert (said, worker.ready.is_set()) == (["slow", "stopped"], False)


async def test_jobs_do_not_see_the_context_of_hooks_and_a_worker_without_hooks_needs_none(
    wheel: Wheel, log: Log
) -> None:
    colour: ContextVar[str] = ContextVar("colour", default="none")
    seen: list[str] = []

    @wheel.on_startup
    async def paint() -> None:
        colour.set("red")

    @wheel.task(name="look")
    async def look() -> None:
        seen.append(colour.get())

    async with running(wheel, log):
        job = await wheel.enqueue("look")
        await log.seen("done", job.job_id)
    assert seen == ["none"]
