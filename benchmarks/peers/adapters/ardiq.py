"""ardiq: acknowledges after the run, as its documentation says; results for 1 ms; concurrency 100 and a prefetch of 200; all else
its defaults. Its loop and its connections are in Rust."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from ardiq import Ardiq

from .harness import CONCURRENCY, PAYLOAD, Adapter, Spec, batches, marks


class Peer(Adapter):
    """ardiq by `enqueue`, `enqueue_many` and its worker."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._app = Ardiq(
            spec.url, queue_name="bench", concurrency=CONCURRENCY, prefetch=2 * CONCURRENCY, result_ttl_ms=1
        )

        @self._app.task(name="noop")
        async def noop(text: str) -> None:
            marks.ran()

        @self._app.task(name="late")
        async def late(due_ms: int) -> None:
            marks.late(due_ms)

        self._noop, self._late = noop, late

    async def one(self, jobs: int) -> None:
        enqueue = self._noop.enqueue
        for _ in range(jobs):
            await enqueue(PAYLOAD)

    async def bulk(self, jobs: int) -> None:
        prepare = self._noop.prepare
        for size in batches(jobs):
            await self._app.enqueue_many(prepare(PAYLOAD) for _ in range(size))

    async def at(self, dues: Sequence[int]) -> None:
        await self._app.enqueue_many(self._late.options(schedule_ms=due).prepare(due) for due in dues)

    def work(self) -> None:
        logging.basicConfig(level=logging.ERROR)
        asyncio.run(self._app.run())
