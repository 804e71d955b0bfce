"""zwheel: its defaults. Settles after the run, in batches; asyncio's own loop; a concurrency of 100 and a prefetch of 200."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from zwheel import Wheel
from zwheel.workers import WorkerSettings
from zwheel.workers.process import serve

from .harness import PAYLOAD, Adapter, Spec, batches, marks

_QUEUE = "bench"


async def _noop(text: str) -> None:
    marks.ran()


async def _late(due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """zwheel by its async client and its worker."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._wheel = Wheel(spec.url, namespace="zw")
        self._noop = self._wheel.task(name="noop", queue=_QUEUE)(_noop)
        self._late = self._wheel.task(name="late", queue=_QUEUE)(_late)

    async def close(self) -> None:
        await self._wheel.aclose()

    async def one(self, jobs: int) -> None:
        enqueue = self._noop.enqueue
        for _ in range(jobs):
            await enqueue(PAYLOAD)

    async def bulk(self, jobs: int) -> None:
        job = self._noop.job
        for size in batches(jobs):
            await self._wheel.enqueue_many(job(PAYLOAD) for _ in range(size))

    async def at(self, dues: Sequence[int]) -> None:
        await self._wheel.enqueue_many(
            self._wheel.new_job("late", args=[due], queue=_QUEUE, at=datetime.fromtimestamp(due / 1000, UTC))
            for due in dues
        )

    def work(self) -> None:
        logging.basicConfig(level=logging.ERROR)
        serve(self._wheel, WorkerSettings(queues=(_QUEUE,)))
