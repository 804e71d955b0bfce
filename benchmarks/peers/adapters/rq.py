"""RQ: SimpleWorker, which runs jobs in its own process, since the default worker forks for each; results off. A started job
stays in a registry until it has run. Delayed jobs have whole seconds and a scheduler process that looks once a second."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import UTC, datetime

from redis import Redis
from rq import Queue, SimpleWorker

from .harness import PAYLOAD, Adapter, Spec, batches, marks


def noop(text: str) -> None:
    marks.ran()


def late(due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """RQ by `enqueue`, `enqueue_many` and a worker with its scheduler."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._redis = Redis.from_url(spec.url)
        self._queue = Queue("bench", connection=self._redis)

    async def one(self, jobs: int) -> None:
        enqueue = self._queue.enqueue
        for _ in range(jobs):
            enqueue(noop, PAYLOAD, result_ttl=0)

    async def bulk(self, jobs: int) -> None:
        prepare = Queue.prepare_data
        for size in batches(jobs):
            self._queue.enqueue_many([prepare(noop, (PAYLOAD,), result_ttl=0) for _ in range(size)])

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            self._queue.enqueue_at(datetime.fromtimestamp(due / 1000, UTC), late, due, result_ttl=0)

    def work(self) -> None:
        logging.getLogger("rq").setLevel(logging.ERROR)
        SimpleWorker([self._queue], connection=self._redis).work(with_scheduler=True, logging_level="ERROR")
