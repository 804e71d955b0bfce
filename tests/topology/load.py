"""A producer, a blocking producer and a worker under load while a server fails, and the history of it, checked."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.servers import RedisServer
from tests.workers.harness import Log, eventually, running
from zwheel import JobState, SyncWheel, Wheel
from zwheel.broker.store import SyncStore
from zwheel.calls import Session
from zwheel.history import History
from zwheel.verify import Bounds, Report, check, read, take_snapshot

#: How long Redis may be away for a call, seconds: a failover takes a few.
GIVE_UP_S = 90.0


def kill(server: RedisServer) -> float:
    """Kill a server; gives the moment from which on it is dead."""
    server.kill()
    return time.monotonic()


class Load:
    """Jobs of several queues, enqueued one by one as fast as every 10 ms, and a worker that runs them."""

    def __init__(self, url: str, directory: Path, queues: Sequence[str] = ("default",)) -> None:
        self.directory = directory
        self.queues = queues
        self.url = url
        self.wheel = Wheel(url, namespace="zw", give_up_s=GIVE_UP_S, history=directory)
        self.sync = SyncWheel(url, namespace="zw", give_up_s=GIVE_UP_S, history=directory)
        #: When each job was enqueued, and when it first started, by its number, monotonic seconds.
        self.asked: dict[int, float] = {}
        self.started: dict[int, float] = {}
        self.starts: Counter[int] = Counter()
        #: When confirmed writes may have been lost, monotonic seconds.
        self.window = (0.0, 0.0)
        self.log = Log()
        self._stop = asyncio.Event()
        self._producers: list[asyncio.Task[None]] = []

    async def run(self, disturb: Callable[[], float | None], *, loses: str = "", waiting: int = 0) -> float:
        """Disturb the servers under load; gives the seconds to the first start of a later job of the first queue.

        disturb: called in a thread; gives the moment from which on to count, else that of its call counts. waiting: how many jobs are to be left. loses: the kind of fault in which confirmed writes may be lost, for the history.
        """

        @self.wheel.task(name="work", keep=600, retries=3)
        async def work(number: int) -> None:
            self.started.setdefault(number, time.monotonic())
            self.starts[number] += 1

        async with self.wheel, running(self.wheel, self.log, queues=self.queues, lease_ms=3000, reap_ms=300):
            with self.sync:
                self._producers = [
                    asyncio.create_task(self._produce(0, self._one)), asyncio.create_task(self._produce(1, self._blocking))
                ]  # fmt: skip
                await self._until(lambda: len(self.started) > 50)
                since, start = time.time_ns() // 1000, time.monotonic()
                began = await asyncio.to_thread(disturb) or start
                await self._until(lambda: self._after(began))
                self._note(loses, since)
                self.window = start - 1, time.monotonic()
                seen = len(self.started)
                await self._until(lambda: len(self.started) > seen + 50)
                self._stop.set()
                await asyncio.gather(*self._producers)
            await self._drained(waiting)
        return min(self._after(began)) - began

    async def _produce(self, start: int, enqueue: Callable[[int, str], object]) -> None:
        number = start
        while not self._stop.is_set():
            queue = self._queue(number)
            self.asked[number] = time.monotonic()
            result = enqueue(number, queue)
            if asyncio.iscoroutine(result):
                await result
            number += 2
            await asyncio.sleep(0.01)

    async def _one(self, number: int, queue: str) -> None:
        await self.wheel.enqueue("work", args=[number], queue=queue, keep=600, retries=3)

    async def _blocking(self, number: int, queue: str) -> None:
        await asyncio.to_thread(self.sync.enqueue, "work", args=[number], queue=queue, keep=600, retries=3)

    async def _until(self, good: Callable[[], object]) -> None:
        async def look() -> object:
            for producer in self._producers:
                if producer.done():
                    producer.result()
            return good()

        await eventually(look, bool, within=60)

    def _after(self, began: float) -> list[float]:
        return [
            at for number, at in self.started.items()
            if self.asked[number] > began and self._queue(number) == self.queues[0]
        ]  # fmt: skip

    def _queue(self, number: int) -> str:
        return self.queues[(number // 2) % len(self.queues)]

    def lost(self) -> list[int]:
        """The jobs that never started. They must all be of the window of the fault."""
        missing = [number for number in self.asked if number not in self.started]
        assert all(self.window[0] <= self.asked[number] <= self.window[1] for number in missing), missing
        return missing

    async def _drained(self, waiting: int) -> None:
        async def left() -> int:
            going_on = (JobState.SCHEDULED, JobState.PROCESSING)
            return sum([await self.wheel.count(queue, state) for queue in self.queues for state in going_on])

        await eventually(left, lambda count: count == waiting, within=60)

    def _note(self, kind: str, since_us: int) -> None:
        until_us = time.time_ns() // 1000
        kind = kind or "redis_kill"
        History(self.directory).write(
            [
                {
                    "seq": 1, "proc": "test", "op": "fault", "phase": "ok", "est_us": until_us,
                    "wall_ns": time.time_ns(), "mono_ns": time.monotonic_ns(),
                    "args": {"kind": kind, "window": [since_us - 1_000_000, until_us]},
                }
            ]
        )  # fmt: skip

    def report(self, *, drained: bool = True) -> Report:
        """Take the snapshot and check the whole history."""
        store = SyncStore(self.url, Session("zw"), give_up_s=GIVE_UP_S)
        try:
            History(self.directory).write(list(take_snapshot(store)))
        finally:
            store.close()
        return check(read([self.directory]), Bounds(lease_ms=3000, reap_ms=300, drained=drained))


async def command(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command of zwheel."""
    return await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", "zwheel.cli", *words],
        env={**os.environ, "ZWHEEL_URL": url}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
