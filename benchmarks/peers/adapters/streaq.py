"""streaq: acknowledges after the run; results off (ttl 0); concurrency 100 in place of 16, prefetch as much; uvloop, as its
documentation advises. It looks for delayed jobs every 0.5 s."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from streaq import Worker

from .harness import CONCURRENCY, PAYLOAD, Adapter, Spec, batches, marks


class Peer(Adapter):
    """streaq by `enqueue`, `enqueue_many` and its worker."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._worker = Worker(spec.url, queue_name="bench", concurrency=CONCURRENCY, anyio_kwargs={"use_uvloop": True})

        @self._worker.task(name="noop", ttl=0, silent=True)
        async def noop(text: str) -> None:
            marks.ran()

        @self._worker.task(name="late", ttl=0, silent=True)
        async def late(due_ms: int) -> None:
            marks.late(due_ms)

        self._noop, self._late = noop, late

    async def open(self) -> None:
        await self._worker.__aenter__()

    async def close(self) -> None:
        await self._worker.__aexit__(None, None, None)

    async def one(self, jobs: int) -> None:
        enqueue = self._noop.enqueue
        for _ in range(jobs):
            await enqueue(PAYLOAD)

    async def bulk(self, jobs: int) -> None:
        enqueue = self._noop.enqueue
        for size in batches(jobs):
            await self._worker.enqueue_many([enqueue(PAYLOAD) for _ in range(size)])

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            await self._late.enqueue(due).start(schedule=datetime.fromtimestamp(due / 1000, UTC))

    def work(self) -> None:
        logging.basicConfig(level=logging.ERROR)
        self._worker.run_sync()
