"""A part of a worker that fails does not leave a worker behind that only looks alive."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.workers.harness import QUICK, Log, Running, eventually, one_kind
from zwheel import JobState, Wheel
from zwheel.workers import Worker, WorkerSettings
from zwheel.workers.heartbeat import Heartbeat
from zwheel.workers.reaper import Reaper
from zwheel.workers.scheduler import Scheduler
from zwheel.workers.watch import Watch

pytestmark = [pytest.mark.anyio, one_kind]
PARTS = [
    (Reaper, "run", "reaper"),
    (Heartbeat, "watch", "watch over leases"),
    (Watch, "run", "watch over Redis"),
    (Scheduler, "run", "scheduler of default"),
]


@pytest.mark.parametrize(("part", "method", "name"), PARTS, ids=lambda value: str(value).replace(" ", "-"))
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
        with pytest.raises(ZeroDivisionError):
            await worker.task
    assert (await wheel.wait(answer.job_id, timeout=10)).state is JobState.DONE
