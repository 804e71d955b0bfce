"""SAQ over Redis: a job stays in the active list until it has run; results off (ttl -1); concurrency 100 in place of 10; no call
for many that does not wait. Delayed jobs have whole seconds, rounded up here, and are looked for once a second, its default."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from saq import Job, Queue, Worker

from .harness import CONCURRENCY, PAYLOAD, Adapter, marks


async def noop(context: dict[str, Any], *, text: str) -> None:
    marks.ran()


async def late(context: dict[str, Any], *, due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """SAQ by `enqueue` and its worker."""

    has_bulk = False

    async def open(self) -> None:
        self._queue = Queue.from_url(self.url, name="bench")
        await self._queue.connect()

    async def close(self) -> None:
        await self._queue.disconnect()

    async def one(self, jobs: int) -> None:
        enqueue = self._queue.enqueue
        for _ in range(jobs):
            await enqueue("noop", text=PAYLOAD, ttl=-1)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            await self._queue.enqueue(Job("late", kwargs={"due_ms": due}, scheduled=-(-due // 1000), ttl=-1))

    def work(self) -> None:
        logging.getLogger("saq").setLevel(logging.ERROR)

        async def run() -> None:
            await self.open()
            await Worker(self._queue, [noop, late], concurrency=CONCURRENCY).start()

        asyncio.run(run())
