"""arq: keeps no results; max_jobs 100 in place of 10 and queue_read_limit 2,000, since it looks for jobs twice a second; the job
key is deleted after the run; no call for many. poll_delay stays at its default of 0.5 s, which delayed jobs feel."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from arq import create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

from .harness import CONCURRENCY, PAYLOAD, Adapter, marks


async def _noop(context: dict[str, Any], text: str) -> None:
    marks.ran()


async def _late(context: dict[str, Any], due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """arq by `enqueue_job` and its worker."""

    has_bulk = False

    async def open(self) -> None:
        self._pool = await create_pool(RedisSettings.from_dsn(self.url))

    async def close(self) -> None:
        await self._pool.aclose()

    async def one(self, jobs: int) -> None:
        enqueue = self._pool.enqueue_job
        for _ in range(jobs):
            await enqueue("noop", PAYLOAD)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            await self._pool.enqueue_job("late", due, _defer_until=datetime.fromtimestamp(due / 1000, UTC))

    def work(self) -> None:
        Worker(
            [func(_noop, name="noop"), func(_late, name="late")], redis_settings=RedisSettings.from_dsn(self.url),
            max_jobs=CONCURRENCY, queue_read_limit=2000, keep_result=0, log_results=False,
        ).run()  # fmt: skip
