"""docket (pydocket): acknowledges after the run; keeps no results (execution_ttl 0); concurrency 100 in place of 10, and
5 ms between its looks in place of 250, since it sleeps so long whenever all slots are taken. It looks for delayed jobs every
250 ms, its default. Its pool may have 400 connections: 100, redis-py's limit, are too few for it."""

# mypy: disable-error-code="import-not-found"
from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from docket import Docket, Worker

from .harness import CONCURRENCY, PAYLOAD, Adapter, batches, marks


async def noop(text: str) -> None:
    marks.ran()


async def late(due_ms: int) -> None:
    marks.late(due_ms)


class Peer(Adapter):
    """docket by `add`, `add_many` and its worker."""

    async def open(self) -> None:
        self._docket = Docket("bench", f"{self.url}?max_connections={4 * CONCURRENCY}", execution_ttl=timedelta(0))
        self._docket.register(noop)
        self._docket.register(late)
        await self._docket.__aenter__()

    async def close(self) -> None:
        await self._docket.__aexit__(None, None, None)

    async def one(self, jobs: int) -> None:
        add = self._docket.add
        for _ in range(jobs):
            await add(noop)(PAYLOAD)

    async def bulk(self, jobs: int) -> None:
        call = self._docket.call
        for size in batches(jobs):
            await self._docket.add_many([call(noop)(PAYLOAD) for _ in range(size)])

    async def at(self, dues: Sequence[int]) -> None:
        when = [(datetime.fromtimestamp(due / 1000, UTC), due) for due in dues]
        await self._docket.add_many([self._docket.call(late, when=at)(due) for at, due in when])

    def work(self) -> None:
        logging.basicConfig(level=logging.ERROR)

        async def run() -> None:
            await self.open()
            async with Worker(
                self._docket, concurrency=CONCURRENCY, minimum_check_interval=timedelta(milliseconds=5)
            ) as worker:
                await worker.run_forever()

        asyncio.run(run())
