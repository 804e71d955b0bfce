"""taskiq over taskiq-redis: RedisStreamBroker, acknowledges after the run; no result backend; 100 tasks at a time, its default;
uvloop, as its command line does. No call for many. Delayed jobs need its scheduler, here beside the receiver, which looks at
its schedules once a second (by default it reads them once a minute)."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import uvloop
from taskiq import TaskiqScheduler
from taskiq.api import run_receiver_task, run_scheduler_task
from taskiq_redis import ListRedisScheduleSource, RedisStreamBroker

from .harness import CONCURRENCY, PAYLOAD, Adapter, Spec, marks


class Peer(Adapter):
    """taskiq by `kiq`, `schedule_by_time`, a receiver and a scheduler."""

    has_bulk = False

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._broker = RedisStreamBroker(spec.url, queue_name="bench")
        self._source = ListRedisScheduleSource(spec.url)

        @self._broker.task(task_name="noop")
        async def noop(text: str) -> None:
            marks.ran()

        @self._broker.task(task_name="late")
        async def late(due_ms: int) -> None:
            marks.late(due_ms)

        self._noop, self._late = noop, late

    async def open(self) -> None:
        await self._broker.startup()
        await self._source.startup()

    async def close(self) -> None:
        await self._source.shutdown()
        await self._broker.shutdown()

    async def one(self, jobs: int) -> None:
        kiq = self._noop.kiq
        for _ in range(jobs):
            await kiq(PAYLOAD)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            await self._late.schedule_by_time(self._source, datetime.fromtimestamp(due / 1000, UTC), due)

    def work(self) -> None:
        logging.basicConfig(level=logging.ERROR)

        async def run() -> None:
            second = timedelta(seconds=1)
            scheduler = TaskiqScheduler(self._broker, [self._source])
            await asyncio.gather(
                run_receiver_task(self._broker, max_async_tasks=CONCURRENCY, run_startup=True),
                run_scheduler_task(scheduler, interval=second, loop_interval=second),
            )

        uvloop.run(run())
