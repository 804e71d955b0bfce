"""How the blocking client reaches Redis; `drive` has the same for the async one."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from zwheel import operations as ops
from zwheel.broker.store import Steps, SyncStore
from zwheel.calls import NewJob, Session
from zwheel.client.registry import Registry
from zwheel.job import Durability, Enqueued
from zwheel.keys import check_task
from zwheel.operations.act import Progress

T = TypeVar("T")
#: What workers publish of a task is read again after so long, seconds: between two calls, since nothing runs beside them.
_OLDEST_S = 300.0
_wheels: weakref.WeakSet[SyncDrive] = weakref.WeakSet()


def _after_fork() -> None:
    """Give each wheel a lock of its own: a thread that the child does not have may have held the parent's."""
    for wheel in _wheels:
        wheel._lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SyncDrive(Registry):
    """Carries the steps of an operation to Redis, in the thread of the caller."""

    _connected: SyncStore | None = None
    _pid = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the settings: the same as those of the async client."""
        super().__init__(*args, **kwargs)
        self._known: set[str] = set()
        self._lock = threading.RLock()
        _wheels.add(self)

    def _connections(self) -> Iterator[tuple[str, str]]:
        if self._connected is not None and self._pid == os.getpid():
            yield self._connected.url, self._connected.session.namespace

    def _drive(self, steps: Callable[[Session], Steps[T]], *, give_up_s: float | None = None) -> T:
        with self._lock:
            if self._connected is None or self._pid != os.getpid():
                url, namespace = self.resolve()
                self._pid = os.getpid()
                self._connected = SyncStore(
                    url, self.session(namespace), timeout_s=self.timeout_s, give_up_s=self.give_up_s
                )
                self._connected.recorder = self.recorder(self._connected.session)
            store = self._connected
        return store.drive(steps(store.session), give_up_s=give_up_s)

    def _store(self, job: NewJob) -> Enqueued:
        durable = self.durable if job.durable is None else job.durable
        answers = self._drive(lambda session: ops.enqueue_batch(session, [job], self._known, None, durable))
        return answers[0] if not durable else ops.confirmed(answers, durable)[0]

    def learn(self, *tasks: str) -> None:
        """Read what workers publish of these tasks; see `Wheel.learn`. Raises: InvalidName, BrokerError."""
        names = [check_task(task) for task in tasks if task not in self.tasks]
        wanted, _ = self.catalogue.due(names, oldest_s=_OLDEST_S)
        if wanted:
            found, others = self._drive(lambda session: ops.learn(session, wanted))
            self.catalogue.learn(wanted, found, others)

    def enqueue_many(
        self,
        jobs: Iterable[NewJob],
        *,
        chunk: int = 250,
        progress: Progress | None = None,
        durable: str | None = None,
    ) -> list[Enqueued]:
        """Store many jobs, `chunk` at a time; see `Wheel.enqueue_many`."""
        bulk = ops.Bulk(jobs, chunk, self.durable if durable is None else Durability.of(durable))
        answers: list[Enqueued] = []
        for part in bulk.chunks():
            if names := part.unsettled:
                self.learn(*names)
                part = part.of(self._settled(part.jobs))
            answers += self._drive(lambda session, part=part: part.store(session, self._known))  # type: ignore[misc]
            if progress is not None:
                progress(len(answers))
        if bulk.remembered:
            self._drive(bulk.forget, give_up_s=0)
        return answers

    def close(self) -> None:
        """Close every connection."""
        with self._lock:
            store, self._connected = self._connected, None
            if store is not None and self._pid == os.getpid():
                store.close()
