"""What a Wheel has in one event loop: its connections, and the jobs that wait there to be stored together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from typing import Any

from zwheel import operations as ops
from zwheel.broker.store import Store
from zwheel.calls import BATCH_LIMIT, NewJob
from zwheel.errors import PayloadTooLarge, QueueFull
from zwheel.job import Durability, Enqueued
from zwheel.published.catalogue import Catalogue

#: How many bytes of single enqueues are gathered for one call: a script that stores so much takes a few ms.
_BATCH_BYTES = 1024 * 1024


class Batcher:
    """Gathers the single enqueues of one shard: what arrives while a round trip is under way goes into the next."""

    __slots__ = ("_busy", "_client", "_durable", "_idle", "_waiting")

    def __init__(self, client: Client, durable: Durability | None) -> None:
        self._client = client
        self._durable = durable
        self._busy = False
        #: Told when no enqueue is under way any more; None: nobody waits for that.
        self._idle: asyncio.Future[None] | None = None
        self._waiting: deque[tuple[NewJob, asyncio.Future[Enqueued]]] = deque()

    def submit(self, job: NewJob) -> Awaitable[Enqueued]:
        """Store one job now, or with the next round trip. Not a coroutine: there may be a thousand that wait."""
        if not self._busy:
            self._busy = True
            return self._first(job)
        future: asyncio.Future[Enqueued] = self._client.loop.create_future()
        self._waiting.append((job, future))
        return future

    async def _first(self, job: NewJob) -> Enqueued:
        try:
            return (await self._client.store_batch([job], self._durable))[0]
        finally:
            self._next()

    def _next(self) -> None:
        if self._waiting:
            self._client.spawn(self._flush())
        else:
            self._busy = False
            if self._idle is not None:
                self._idle.set_result(None)
                self._idle = None

    async def until_idle(self) -> None:
        """Wait until no enqueue is under way."""
        while self._busy:
            self._idle = self._idle or self._client.loop.create_future()
            await asyncio.shield(self._idle)

    async def _flush(self) -> None:
        try:
            waiting, batch, jobs, size = self._waiting, [], [], 0
            for _ in range(min(BATCH_LIMIT // 2, len(waiting))):
                one = waiting.popleft()
                # A caller that was cancelled meanwhile wants its job no more.
                if not one[1].done():
                    batch.append(one)
                    jobs.append(one[0])
                    if (size := size + len(one[0].body)) >= _BATCH_BYTES:
                        break
            if not batch:
                return
            try:
                answers = await self._client.store_batch(jobs, self._durable)
            except (QueueFull, PayloadTooLarge) as refusal:
                await self._one_by_one(batch, refusal)
            except BaseException as error:
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error if isinstance(error, Exception) else asyncio.CancelledError())
                if not isinstance(error, Exception):
                    raise
            else:
                for (_, future), answer in zip(batch, answers, strict=True):
                    if not future.done():
                        future.set_result(answer)
        finally:
            self._next()

    async def _one_by_one(
        self, batch: list[tuple[NewJob, asyncio.Future[Enqueued]]], refusal: QueueFull | PayloadTooLarge
    ) -> None:
        """Store each job of a refused batch alone: only callers whose own job is refused get the refusal."""
        for job, future in batch:
            answer: Enqueued | Exception = refusal
            if len(batch) > 1 and not future.done():
                try:
                    answer = (await self._client.store_batch([job], self._durable))[0]
                except Exception as error:
                    answer = error
            if future.done():
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)


class Client:
    """What a wheel has in one event loop: connections, a session, and the enqueues that it gathers."""

    __slots__ = (
        "_background",
        "_batchers",
        "_catalogue",
        "_end",
        "_forget",
        "_learners",
        "_learning",
        "known",
        "loop",
        "store",
    )

    def __init__(self, store: Store, catalogue: Catalogue, forget: Callable[[], object]) -> None:
        self.loop = asyncio.get_running_loop()
        self.store = store
        self._catalogue = catalogue
        #: Reads of published tasks that are under way, by the task's name, and how many callers wait for them.
        self._learning: dict[str, asyncio.Task[None]] = {}
        self._learners = 0
        self._forget = forget
        #: Queues that are on the list of queues.
        self.known: set[str] = set()
        self._batchers: dict[str, Batcher] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._end = self._until_the_loop_ends()
        # Begun here, the generator is ended by the loop's own end: asyncio.run closes what nobody closed.
        with suppress(StopIteration):
            self._end.__anext__().__await__().send(None)

    async def _until_the_loop_ends(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            self._forget()
            await self.store.aclose()

    def batcher(self, shard: str, durable: Durability | None = None) -> Batcher:
        """What gathers the single enqueues of a shard, those with something to confirm apart: they take long."""
        name = f"{shard}, {durable}" if durable else shard
        batcher = self._batchers.get(name)
        if batcher is None:
            batcher = self._batchers[name] = Batcher(self, durable)
        return batcher

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something in the background and keep hold of it until it ends."""
        task = self.loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def learn(self, names: Iterable[str]) -> None:
        """Read what workers publish of these tasks, if that is not known, or was read long ago."""
        first, meanwhile = self._catalogue.due(names)
        if first:
            self._learners += 1
            try:
                reading = {self._learning.get(name) or self._read(first) for name in first}
                await asyncio.gather(*map(asyncio.shield, reading))
            finally:
                self._learners -= 1
        elif meanwhile and not any(name in self._learning for name in meanwhile):
            self._read(meanwhile)

    def _read(self, names: Sequence[str]) -> asyncio.Task[None]:
        """Begin to read; calls that ask for the same names meanwhile wait for the same answer."""
        reading = self.loop.create_task(self._learn(names))
        self._learning.update(dict.fromkeys(names, reading))

        def end(_: asyncio.Task[None]) -> None:
            for name in names:
                self._learning.pop(name, None)
            if not reading.cancelled():
                reading.exception()

        reading.add_done_callback(end)
        return reading

    async def _learn(self, names: Sequence[str]) -> None:
        found, others = await self.store.drive(ops.learn(self.store.session, names))
        self._catalogue.learn(names, found, others)

    def store_batch(self, batch: Sequence[NewJob], durable: Durability | None) -> Coroutine[Any, Any, list[Enqueued]]:
        """Store up to 1000 jobs of one queue in one call, all or none."""
        return self.store.drive(ops.enqueue_batch(self.store.session, batch, self.known, None, durable))

    async def aclose(self) -> None:
        """Let what is under way end, then close every connection."""
        while self._learning or self._learners:
            # A caller that waited for a published task submits its job in the same step in which it wakes.
            await asyncio.gather(*self._learning.values(), return_exceptions=True)
            await asyncio.sleep(0)
        for batcher in list(self._batchers.values()):
            await batcher.until_idle()
        await self._end.aclose()

    def abandon(self) -> None:
        """Let go of connections whose loop is gone, or is another process's."""
        self.store.abandon()
