"""A worker that has just come asks what was offered to others, also while Redis is away."""

from __future__ import annotations

import asyncio
import json
from typing import cast

import pytest

from tests.servers import RedisServer
from zwheel import Wheel
from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.errors import BrokerUnavailable
from zwheel.keys import ShardKeys
from zwheel.workers.newcomer import Newcomer
from zwheel.workers.peers import about_tasks

pytestmark = pytest.mark.anyio


class Away:
    """A store whose Redis is away."""

    def __init__(self) -> None:
        self.asked = 0
        self.often = asyncio.Event()

    async def send(self, commands: object) -> list[object]:
        self.asked += 1
        if self.asked == 5:
            self.often.set()
        raise BrokerUnavailable("away")


async def test_a_worker_that_cannot_ask_for_the_offers_of_others_says_so_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The pollers say every few seconds that Redis is away; this was a line at each try, several a second."""
    caplog.set_level("INFO", "zwheel.worker")
    store = Away()
    newcomer = Newcomer(cast(Store, store), ShardKeys.of("zw", "default"), "w", ["pay"], "g", lambda: None)
    trying = asyncio.create_task(newcomer.run())
    async with asyncio.timeout(20):
        await store.often.wait()
    trying.cancel()
    said = [record.getMessage() for record in caplog.records]
    assert said == ["queue default: cannot ask yet which jobs are offered to other workers: away"]


async def test_what_was_offered_to_workers_that_died_is_for_the_newcomer_too(fresh: RedisServer) -> None:
    """Their rows say that they beat two minutes ago: nobody of them takes it any more."""
    async with Wheel(fresh.url) as wheel:
        job = await wheel.enqueue("pay", delay=600)
    store = Store(fresh.url, Session("zw"))
    keys = ShardKeys.of("zw", "default")
    now_ms = store.session.clock.now_ms()
    dead, own = about_tasks(["pay", "ship"]), about_tasks(["pay"])
    with fresh.client() as client:
        client.hset(keys.workers, "dead", json.dumps({"beat": now_ms - 120_000, "lease": 30_000, **dead}))
        client.hset(keys.workers, "self", json.dumps({"beat": now_ms, "lease": 30_000, **own}))
        note = f"{job.job_id} 000 0"
        client.zadd(keys.offered(str(dead["group"])), {note: now_ms + 60_000})
        found: list[str] = []
        newcomer = Newcomer(store, keys, "self", ["pay"], str(own["group"]), lambda: found.append("claim"))
        await newcomer.take_offers()
        assert found == ["claim"]
        assert client.zrange(keys.offered(str(own["group"])), 0, -1) == [note.encode()]
    await store.aclose()
