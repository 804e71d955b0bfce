"""dramatiq over Redis: acknowledges after the run; all default middleware; plain functions in 8 threads, its default; a prefetch
of 200 in place of 16, with which its consumer sleeps most of the time. No call for many. Delayed jobs are held by the worker."""

# mypy: disable-error-code="import-not-found, untyped-decorator"
from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Sequence

os.environ.setdefault("dramatiq_queue_prefetch", "200")

import dramatiq
import redis
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from .harness import PAYLOAD, Adapter, Spec, marks


class Peer(Adapter):
    """dramatiq by `send` and a Worker."""

    has_bulk = False

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        logging.basicConfig(level=logging.ERROR)
        self._broker = RedisBroker(client=redis.Redis.from_url(spec.url))
        dramatiq.set_broker(self._broker)

        @dramatiq.actor(queue_name="bench")
        def noop(text: str) -> None:
            marks.ran()

        @dramatiq.actor(queue_name="bench")
        def late(due_ms: int) -> None:
            marks.late(due_ms)

        self._noop, self._late = noop, late

    async def one(self, jobs: int) -> None:
        send = self._noop.send
        for _ in range(jobs):
            send(PAYLOAD)

    async def at(self, dues: Sequence[int]) -> None:
        for due in dues:
            self._late.send_with_options(args=(due,), delay=due - int(time.time() * 1000))

    def work(self) -> None:
        worker = Worker(self._broker, worker_threads=8)
        worker.start()
        signal.sigwait({signal.SIGTERM})
        worker.stop()
