"""How the async client reaches Redis; `sync_drive` has the same for the blocking one. All else is written once, in wheel."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from zwheel import operations as ops
from zwheel.broker.store import Steps, Store
from zwheel.calls import NewJob, Session
from zwheel.client.connection import Client
from zwheel.client.registry import Registry
from zwheel.job import Durability, Enqueued
from zwheel.keys import check_task
from zwheel.operations.act import Progress

T = TypeVar("T")

#: How many chunks of one `enqueue_many` are under way at a time: one is stored while the next is encoded.
_CHUNKS_UNDER_WAY = 2
_CLIENTS = "clients by loop"
_wheels: weakref.WeakSet[Drive] = weakref.WeakSet()


def _after_fork() -> None:
    """A forked process has connections of its own, and leaves those of its parent alone."""
    for wheel in list(_wheels):
        while wheel._clients:
            wheel._clients.popitem()[1].abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class Drive(Registry):
    """Carries the steps of an operation to Redis, in the event loop of the caller."""

    @property
    def _clients(self) -> dict[asyncio.AbstractEventLoop, Client]:
        """What each event loop has. Threads may meet here first at the same time: the dict takes the first one's."""
        found: dict[asyncio.AbstractEventLoop, Client] = vars(self).setdefault(_CLIENTS, {})
        return found

    def _connections(self) -> Iterator[tuple[str, str]]:
        for loop, client in list(self._clients.items()):
            if not loop.is_closed():
                yield client.store.url, client.store.session.namespace

    def _connect(self) -> Client:
        loop = asyncio.get_running_loop()
        clients = self.__dict__.get(_CLIENTS)
        client: Client | None = None if clients is None else clients.get(loop)
        if client is None:
            for other in [other for other in list(self._clients) if other.is_closed()]:
                if (gone := self._clients.pop(other, None)) is not None:
                    gone.abandon()
            url, namespace = self.resolve()
            store = Store(url, self.session(namespace), timeout_s=self.timeout_s, give_up_s=self.give_up_s)
            store.recorder = self.recorder(store.session)
            clients = self._clients
            client = clients[loop] = Client(store, self.catalogue, lambda: clients.pop(loop, None))
            _wheels.add(self)
        return client

    async def _drive(self, steps: Callable[[Session], Steps[T]]) -> T:
        store = self._connect().store
        return await store.drive(steps(store.session))

    def _store(self, job: NewJob) -> Awaitable[Enqueued]:
        client = self._connect()
        durable = self.durable if job.durable is None else job.durable
        batcher = client.batcher(client.store.session.shard_of(job.queue, job.id, job.dedup), durable)
        return self._confirmed(batcher.submit(job), durable) if durable else batcher.submit(job)

    async def _confirmed(self, answer: Awaitable[Enqueued], durable: Durability) -> Enqueued:
        return ops.confirmed([await answer], durable)[0]

    async def learn(self, *tasks: str) -> None:
        """Read what workers publish of these tasks, so that `new_job` and `new_schedule` know it: queue, policy, signature.

        `enqueue` does so by itself. What was read lately is not read again. Raises: InvalidName, BrokerError.
        """
        await self._connect().learn([check_task(task) for task in tasks if task not in self.tasks])

    async def enqueue_many(
        self,
        jobs: Iterable[NewJob],
        *,
        chunk: int = 250,
        progress: Progress | None = None,
        durable: str | None = None,
    ) -> list[Enqueued]:
        """Store many jobs, `chunk` at a time (or 8 MiB); the jobs of one chunk and queue are stored all or none.

        When it raises, earlier chunks are stored. The same call again within an hour, with the same `chunk`, completes
        the rest and makes no job twice, also from another process, and also where jobs have ended and left nothing.
        durable: how safely those are to be stored that do not say it themselves; None: as the wheel is set.
        Raises: QueueFull, NotDurable, BrokerError.
        """
        client = self._connect()
        store = client.store
        bulk = ops.Bulk(jobs, chunk, self.durable if durable is None else Durability.of(durable))
        answers: list[Enqueued] = []
        under_way: deque[asyncio.Task[list[Enqueued]]] = deque()
        try:
            for part in bulk.chunks():
                if names := part.unsettled:
                    await client.learn(names)
                    part = part.of(self._settled(part.jobs))
                under_way.append(asyncio.create_task(store.drive(part.store(store.session, client.known))))
                await asyncio.sleep(0)
                if len(under_way) >= _CHUNKS_UNDER_WAY:
                    answers += await under_way.popleft()
                    if progress is not None:
                        progress(len(answers))
            while under_way:
                answers += await under_way.popleft()
                if progress is not None:
                    progress(len(answers))
        finally:
            for left in under_way:
                left.cancel()
            await asyncio.gather(*under_way, return_exceptions=True)
        if bulk.remembered:
            await store.drive(bulk.forget(store.session), give_up_s=0)
        return answers

    async def aclose(self) -> None:
        """Let what is under way in this event loop end, then close its connections."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()
