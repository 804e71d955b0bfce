"""Workers inside the test's own event loop, what they tell of themselves, and waiting for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest

from tests.servers import RedisServer
from zwheel import Wheel
from zwheel.keys import ShardKeys
from zwheel.workers import Worker, WorkerSettings

T = TypeVar("T")
#: How long anything may take that is waited for here: much longer than it does, on a machine that is busy.
WITHIN_S = 60.0
#: For tests in which the kind of server does not matter and time does.
one_kind = pytest.mark.parametrize("server_kind", ["valkey"], indirect=True, scope="session")
#: Short enough that a lost lease is noticed within a test; a heartbeat comes every 200 ms.
QUICK: dict[str, Any] = {"lease_ms": 600, "reap_ms": 100, "drain_ms": 3000, "concurrency": 10}


class Log:
    """An observer that remembers what it was told and lets a test wait for it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self._changed = asyncio.Event()

    def __call__(self, event: str, about: dict[str, Any]) -> None:
        self.events.append((event, about))
        self._changed.set()

    def of(self, event: str, job_id: str | None = None) -> list[dict[str, Any]]:
        """What was told about one kind of event, for all jobs or for one."""
        return [about for name, about in self.events if name == event and job_id in (None, about.get("job"))]

    def starts(self) -> Counter[str]:
        """How often each job started."""
        return Counter(about["job"] for about in self.of("start"))

    async def until(self, good: Callable[[], object], within: float = WITHIN_S) -> None:
        """Wait until `good` is true, looking after each event."""
        async with asyncio.timeout(within):
            while not good():
                self._changed.clear()
                await self._changed.wait()

    async def seen(
        self, event: str, job_id: str | None = None, *, count: int = 1, within: float = WITHIN_S
    ) -> dict[str, Any]:
        """Wait for the event to have happened `count` times, and give the last one."""
        await self.until(lambda: len(self.of(event, job_id)) >= count, within)
        return self.of(event, job_id)[count - 1]


async def eventually(probe: Callable[[], Awaitable[T]], good: Callable[[T], object], within: float = WITHIN_S) -> T:
    """Look at a state until it is good, and give it; fail with the last one seen."""
    deadline = time.monotonic() + within
    while True:
        state = await probe()
        if good(state):
            return state
        assert time.monotonic() < deadline, f"after {within} s it is still {state!r}"
        await asyncio.sleep(0.01)


async def published(server: RedisServer, count: int) -> None:
    """Wait until so many workers of the queue `default` told what they know."""
    workers = ShardKeys.of("zw", "default").workers
    with server.client() as client:

        async def look() -> int:
            return int(str(client.hlen(workers)))

        await eventually(look, lambda n: n == count)


def define_hold(where: Wheel, name: str, gate: asyncio.Event, order: list[str]) -> None:
    """Define the task `hold`: it waits for the gate, and says in `order` when it starts and when it is stopped."""

    @where.task(name="hold", keep=60)
    async def hold() -> None:
        order.append(f"{name} starts")
        try:
            await gate.wait()
        except asyncio.CancelledError:
            order.append(f"{name} is stopped")
            raise


class Running:
    """A worker that runs in this event loop."""

    def __init__(self, worker: Worker, log: Log) -> None:
        self.worker = worker
        self.log = log
        self.task = asyncio.create_task(worker.run())

    async def ready(self) -> None:
        """Wait until it claims; raise what ended it before."""
        waiting = asyncio.create_task(self.worker.ready.wait())
        await asyncio.wait({waiting, self.task}, timeout=WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            waiting.cancel()
            await self.task
        assert waiting.done(), "the worker did not get ready"

    async def stop(self, within: float = WITHIN_S) -> None:
        """Drain, and wait for its end."""
        self.worker.stop()
        async with asyncio.timeout(within):
            await self.task

    async def vanish(self) -> None:
        """End it as a crash would, as far as Redis can see: nothing is given back and nobody signs off."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task


@asynccontextmanager
async def running(
    wheel: Wheel, log: Log | None = None, *, wait: bool = True, **settings: Any
) -> AsyncIterator[Running]:
    """Run a worker while the block lasts; afterwards it gives back what still runs."""
    log = Log() if log is None else log
    handle = Running(Worker(wheel, WorkerSettings(**{**QUICK, **settings}), observer=log), log)
    try:
        if wait:
            await handle.ready()
        yield handle
    finally:
        handle.worker.abort()
        async with asyncio.timeout(WITHIN_S + 5):
            await asyncio.gather(handle.task, return_exceptions=True)
    if handle.task.done() and not handle.task.cancelled():
        handle.task.result()
