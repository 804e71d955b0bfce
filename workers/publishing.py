"""Publishes what callers need to know of a worker's tasks: queue, policy and signature, by name.

All workers of an application publish the same, and of those whose versions differ the one that started last is right.
So a worker writes all of its tasks when it starts; later it writes again what nobody has written for a while.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from typing import Any

from zwheel import operations as ops
from zwheel.errors import BrokerError, BrokerRefused
from zwheel.outside import Sayer, escaped
from zwheel.published import read_row, row_of
from zwheel.registry import Registry
from zwheel.store import Store

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


class Publishing:
    """What one worker process publishes."""

    def __init__(self, wheel: Registry, store: Store) -> None:
        self._wheel = wheel
        self._store = store
        self._sayer = Sayer(log)
        self._names = sorted(wheel.tasks)[:MOST]
        if len(wheel.tasks) > MOST:
            log.warning("too many tasks to publish them all: those after the first %d are left out", MOST)

    def _rows(self) -> dict[str, bytes]:
        now_ms = self._store.session.clock.now_ms()
        return {name: row_of(self._wheel.tasks[name], self._wheel.app, now_ms) for name in self._names}

    async def start(self) -> None:
        """Publish all of them, over what was published of their names before."""
        try:
            async with asyncio.timeout(_START_S):
                await self._store.drive(ops.publish(self._store.session, self._rows()))
        except TimeoutError:
            log.info("the tasks are not published yet: Redis is slow")
        except BrokerError as error:
            self._say(error)

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
        """Write again what is missing, what nobody wrote for a while, and what those left behind that are gone."""
        own, session = self._rows(), self._store.session
        stored = await self._store.drive(ops.published_rows(session, self._names))
        now_ms = session.clock.now_ms()
        pairs = zip(self._names, stored, strict=True)
        stale = {name: own[name] for name, raw in pairs if _is_stale(name, raw, own[name], now_ms)}
        await self._store.drive(ops.publish(session, stale))

    async def _forget(self) -> None:
        session = self._store.session
        known = await self._store.drive(ops.tasks(session))
        now_ms = session.clock.now_ms()
        old = [task.name for task in known if now_ms - task.seen_ms > FORGOTTEN_MS]
        await self._store.drive(ops.unpublish(session, old))


def _is_stale(name: str, raw: Any, own: bytes, now_ms: int) -> bool:
    """Whether what is stored of a task is to be written over with what this worker has."""
    known = None if raw is None else read_row(name, raw)
    if known is None:
        return True
    age_ms = abs(now_ms - known.seen_ms)
    return age_ms > (_STALE_MS if _facts(raw) == _facts(own) else _ABANDONED_MS)


def _facts(raw: bytes) -> dict[str, Any]:
    row: dict[str, Any] = json.loads(raw)
    row.pop("seen_ms", None)
    return row
