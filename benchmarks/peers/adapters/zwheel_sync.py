"""zwheel by its blocking client: what peers whose clients block are measured beside, where they enqueue."""

from __future__ import annotations

from zwheel import SyncWheel

from .harness import PAYLOAD, Adapter, Spec, batches

_QUEUE = "bench"


async def _noop(text: str) -> None:
    """Never run: only its name and signature are used."""


class Peer(Adapter):
    """zwheel by its blocking client."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self._wheel = SyncWheel(spec.url, namespace="zw")
        self._noop = self._wheel.task(name="noop", queue=_QUEUE)(_noop)

    async def close(self) -> None:
        self._wheel.close()

    async def one(self, jobs: int) -> None:
        enqueue = self._noop.enqueue
        for _ in range(jobs):
            enqueue(PAYLOAD)

    async def bulk(self, jobs: int) -> None:
        job = self._noop.job
        for size in batches(jobs):
            self._wheel.enqueue_many(job(PAYLOAD) for _ in range(size))
