"""How long the scheduler of a worker sleeps, when it has nothing to do and others keep time, and when it has."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.servers import RedisServer
from tests.workers.harness import one_kind
from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.payload.codec import DEFAULT
from zwheel.workers.scheduler import BACKSTOP_S, EMPTY_BACKSTOP_S, Scheduler

pytestmark = [pytest.mark.anyio, one_kind]


@pytest.fixture
async def store(fresh: RedisServer, anyio_backend: str) -> AsyncIterator[Store]:
    made = Store(fresh.url, Session("zw", "w1"))
    yield made
    await made.aclose()


@pytest.mark.parametrize("idle", [False, True])
async def test_an_idle_worker_looks_for_new_schedules_less_often_and_is_in_time_for_those_it_knows(
    store: Store, fresh: RedisServer, idle: bool
) -> None:
    keys = store.session.keys("default")
    scheduler = Scheduler(store, keys, DEFAULT, lambda: idle)
    factor = 4 if idle else 1
    empty = [await scheduler._turn() for _ in range(50)]
    assert EMPTY_BACKSTOP_S[0] * factor <= min(empty) <= max(empty) <= EMPTY_BACKSTOP_S[1] * factor
    with fresh.client() as client:

        async def sleeps(due_in_s: float) -> float:
            seconds, micros = client.time()
            client.zadd(keys.schedules_due, {"s": (seconds + due_in_s) * 1000 + micros // 1000})
            return await scheduler._turn()

        assert BACKSTOP_S[0] * factor <= await sleeps(3600) <= BACKSTOP_S[1] * factor
        assert BACKSTOP_S[0] <= await sleeps(7) <= (7 if idle else BACKSTOP_S[1])
        soon = [await sleeps(2) for _ in range(10)]
        assert max(soon) <= 2
