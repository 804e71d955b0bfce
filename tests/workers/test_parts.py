"""A part of a worker that ends by a fault of its own ends the worker, loudly: its jobs go back, another one starts."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from tests.workers.harness import QUICK, Log, Running, eventually, one_kind
from tests.workers.processes import worker_process
from zwheel import JobState, Wheel
from zwheel.workers import Worker, WorkerSettings
from zwheel.workers.heartbeat import Heartbeat
from zwheel.workers.parts import PartEnded
from zwheel.workers.poller import Poller
from zwheel.workers.reaper import Reaper
from zwheel.workers.scheduler import Scheduler
from zwheel.workers.watch import Watch
from zwheel.workers.watchdog import Watchdog

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.mark.parametrize(
    ("part", "method", "name"),
    [
        (Reaper, "run", "reaper of default"),
        (Watch, "run", "watch over Redis"),
        (Scheduler, "run", "scheduler of default"),
    ],
    ids=lambda value: str(value).replace(" ", "-"),
)
async def test_a_part_that_fails_is_said_and_ends_the_worker_after_a_drain(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    part: type[Any], method: str, name: str,
) -> None:  # fmt: skip
    fails, go = asyncio.Event(), asyncio.Event()

    async def fail(_: object) -> None:
        await fails.wait()
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(part, method, fail)

    @wheel.task(name="held")
    async def held() -> None:
        await go.wait()

    worker = Running(Worker(wheel, WorkerSettings(**QUICK), observer=log), log)
    await worker.ready()
    answer = await held.options(keep=60).enqueue()
    await log.seen("start", answer.job_id)
    fails.set()

    async def said() -> list[str]:
        return [message for message in caplog.messages if f"its {name} failed" in message]

    await eventually(said, lambda lines: len(lines) == 1)
    go.set()
    async with asyncio.timeout(10):
        with pytest.raises(PartEnded):
            await worker.task
    assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE


@pytest.mark.parametrize(
    ("owner", "method", "name"),
    [
        (Heartbeat, "_beat", "heartbeat"),
        (Heartbeat, "watch", "watch over leases"),
        (Watchdog, "_ask_loop", "watchdog"),
        (Poller, "run", "poller of default"),
    ],
)
async def test_a_part_that_jobs_cannot_do_without_ends_the_worker_and_they_go_back_at_once(
    wheel: Wheel, log: Log, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    owner: type, method: str, name: str,
) -> None:  # fmt: skip
    @wheel.task(keep=60)
    async def hold() -> None:
        await asyncio.Event().wait()

    breaks = asyncio.Event()
    whole = getattr(owner, method)

    def fails() -> None:
        # The heartbeat itself would survive an Exception.
        raise SystemError("broken") if method != "_beat" else SystemExit("broken")

    async def waits(self: Any) -> None:
        """It works until it breaks."""
        running = asyncio.ensure_future(whole(self))
        broken = asyncio.ensure_future(breaks.wait())
        try:
            await asyncio.wait([running, broken], return_when=asyncio.FIRST_COMPLETED)
        finally:
            running.cancel()
            broken.cancel()
        if breaks.is_set():
            fails()

    def works(self: Any, *about: Any) -> Any:
        return fails() if breaks.is_set() else whole(self, *about)

    monkeypatch.setattr(owner, method, waits if asyncio.iscoroutinefunction(whole) else works)
    settings = WorkerSettings(lease_ms=600, reap_ms=100, drain_ms=30_000, concurrency=10)
    answer = await hold.enqueue()
    handle = Running(Worker(wheel, settings, observer=log), log)
    await handle.ready()
    await log.seen("start", answer.job_id)
    with caplog.at_level(logging.ERROR, "zwheel.worker"):
        breaks.set()
        async with asyncio.timeout(15):
            with pytest.raises(PartEnded, match=name):
                await handle.task
    assert [record for record in caplog.records if name in record.getMessage() and record.exc_info]
    job = await wheel.get(answer.job_id)
    assert job is not None
    assert (job.state, job.attempt) == (JobState.SCHEDULED, 0)


async def test_the_process_of_a_worker_whose_part_ended_says_so_and_fails(url: str, tmp_path: Path) -> None:
    async with worker_process(url, tmp_path / "stage", module="tests.workers.broken", wait=False) as worker:
        assert await worker.ended() == 1
    assert [line for line in worker.lines if "ERROR" in line and "its watch over Redis failed" in line]
