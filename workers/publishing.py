"""Publishes what callers need to know of a worker's tasks: queue, policy and signature, by name.

All workers of an application publish the same. Where their versions differ, the worker that started last is right.
So a worker writes all of its tasks when it starts; later it writes again what nobody has written for a while.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable

from zwheel import operations as ops
from zwheel.broker.store import Store
from zwheel.client.registry import Registry
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.outside import Sayer, escaped
from zwheel.published.task import facts_of, read_row, seen_of, stamped

log = escaped("zwheel.worker")

#: More tasks than this of one worker are not published.
MOST = 5_000
#: How often a worker looks, seconds; and how old a row of the same content, and of another, must be to be written, ms.
EVERY_S = 60.0
_STALE_MS, _ABANDONED_MS = 45_000, 180_000
#: A task that no worker published for so long is forgotten, ms; looked for this often, seconds.
FORGOTTEN_MS, _FORGET_S = 30 * 86_400_000, 86_400.0
#: How long the start of a worker waits for this at the most, seconds.
_START_S = 2.0
#: The rows of so many tasks are looked at in one go: the event loop has jobs to start meanwhile.
_PAGE = 200


class Publishing:
    """What one worker process publishes."""

    def __init__(self, wheel: Registry, store: Store) -> None:
        self._store = store
        self._sayer = Sayer(log)
        self._facts = {name: facts_of(wheel.tasks[name], wheel.app) for name in sorted(wheel.tasks)[:MOST]}
        if len(wheel.tasks) > MOST:
            log.warning("too many tasks to publish them all: those after the first %d are left out", MOST)

    async def start(self) -> None:
        """Publish all of them, over what was published of their names before."""
        try:
            async with asyncio.timeout(_START_S):
                await self._publish(self._facts)
        except TimeoutError:
            log.info("the tasks are not published yet: Redis is slow")
        except BrokerError as error:
            self._say(error)

    async def _publish(self, names: Iterable[str]) -> None:
        now_ms = self._store.session.clock.now_ms()
        rows = {name: stamped(self._facts[name], now_ms) for name in names}
        await self._store.drive(ops.publish(self._store.session, rows))

    def _say(self, error: BrokerError) -> None:
        level = logging.WARNING if isinstance(error, BrokerRefused) else logging.INFO
        self._sayer.say(
            level, type(error).__name__, "the tasks are not published, so that callers by name do not know their queues: %s", error
        )  # fmt: skip

    async def run(self) -> None:
        """Keep them published."""
        waited_s = _FORGET_S
        while True:
            try:
                pause_s = EVERY_S * random.uniform(0.8, 1.2)
                await asyncio.sleep(pause_s)
                waited_s += pause_s
                await self._refresh()
                if waited_s >= _FORGET_S:
                    waited_s = 0.0
                    await self._forget()
            except BrokerError as error:
                self._say(error)

    async def _refresh(self) -> None:
        """Write again rows that are missing, that no worker wrote for a while, or that other versions wrote and left."""
        names, session = list(self._facts), self._store.session
        for start in range(0, len(names), _PAGE):
            part = names[start : start + _PAGE]
            stored = await self._store.drive(ops.published_rows(session, part))
            now_ms = session.clock.now_ms()
            pairs = zip(part, stored, strict=True)
            await self._publish([name for name, raw in pairs if _is_stale(name, raw, self._facts[name], now_ms)])

    async def _forget(self) -> None:
        session = self._store.session
        known = await self._store.drive(ops.tasks(session))
        now_ms = session.clock.now_ms()
        old = [task.name for task in known if now_ms - task.seen_ms > FORGOTTEN_MS]
        await self._store.drive(ops.unpublish(session, old))


def _is_stale(name: str, raw: bytes | None, facts: bytes, now_ms: int) -> bool:
    """Whether what is stored of a task is to be written over with what this worker has."""
    if raw is None:
        return True
    seen_ms = seen_of(facts, raw)
    if seen_ms is not None:
        return abs(now_ms - seen_ms) > _STALE_MS
    other = read_row(name, raw)
    return other is None or abs(now_ms - other.seen_ms) > _ABANDONED_MS
