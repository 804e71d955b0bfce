"""What a worker looks at goes out together: one command for many shards of a queue, and one read of the list of workers."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.servers import RedisServer
from zwheel import Wheel
from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.errors import BrokerRefused
from zwheel.keys import ShardKeys, shard_names
from zwheel.workers.lookout import BEAT_S, Lookout

pytestmark = pytest.mark.anyio
KEYS = [ShardKeys.of("zw", name) for name in shard_names("orders", 8)]


async def test_shards_are_looked_at_together_and_damage_in_one_hides_no_other(fresh: RedisServer) -> None:
    async with Wheel(fresh.url) as wheel:
        await wheel.create_queue("orders", shards=8)
        await wheel.enqueue_many([wheel.new_job("work", queue="orders", delay=60) for _ in range(80)])
    store = Store(fresh.url, Session("zw"))
    lookout = Lookout(store)
    with fresh.client() as client:
        client.delete(KEYS[3].processing)
        client.set(KEYS[3].processing, "another program's")
        client.hset(KEYS[0].workers, "one", json.dumps({"beat": store.session.clock.now_ms()}))
        await lookout.look(KEYS[0])
        client.config_resetstat()
        asked = [lookout.look(keys) for keys in (*KEYS, KEYS[0])]
        found = await asyncio.gather(*asked, return_exceptions=True)
        rows = await asyncio.gather(*(lookout.rows(keys) for keys in KEYS))
        stats = client.info("commandstats")
        assert (stats["cmdstat_evalsha"]["calls"], stats["cmdstat_hgetall"]["calls"]) == (1, 1)
    wrong = found.pop(3)
    assert isinstance(wrong, BrokerRefused)
    assert wrong.code == "WRONGTYPE"
    assert all(not isinstance(seen, BaseException) and seen.schema == b"1" and seen.day for seen in found)
    assert [list(one) for one in rows] == [[b"one"]] * 8
    assert 0 < lookout.until_beat(BEAT_S) <= BEAT_S
    assert lookout.until_beat(0.0) == 0.0
    await lookout.aclose()
    await store.aclose()
