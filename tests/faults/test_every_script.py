"""Every script through a network that cuts: one effect, and the first answer again. N-01 and N-02."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lua.batches import prepare
from tests.lua.shard import Keyspace, Shard
from tests.proxy import Fault, Proxy
from tests.servers import RedisServer
from tests.workers.harness import one_kind
from zwheel.broker.connect import connect_async, connect_blocking, connect_sync
from zwheel.broker.store import Steps, Store, SyncStore
from zwheel.calls import Call, Reply, Session
from zwheel.calls.scripts import NAMES

pytestmark = [pytest.mark.anyio, one_kind]
#: They carry no request id: sent again they do what is left, which is nothing.
DO_WHAT_IS_LEFT = ("extend", "reap", "purge", "prune", "repair", "advance", "depart", "arrive", "reshard")
SIZE = 40


def told(name: str, reply: Reply) -> list[Any]:
    """What of an answer must come again. A claim's sleep and role are asked for anew."""
    return [reply[0], *(reply[8:] if name == "claim" else reply[2:])]


def carried(call: Call) -> Steps[Reply]:
    """The operation that carries one call."""
    (reply,) = yield [call]
    answer: Reply = reply
    return answer


def effect(keyspace: Keyspace) -> Keyspace:
    """The keyspace without the marks of the time."""
    meta = {field: text for field, text in keyspace["meta"].items() if field not in ("clock", "beat")}
    return keyspace | {"meta": meta}


@pytest.mark.parametrize("blocking", [False, True], ids=["async", "sync"])
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
@pytest.mark.parametrize("name", NAMES)
async def test_a_cut_call_has_one_effect_and_the_first_answer(
    fresh: RedisServer, proxy: Proxy, name: str, fault: Fault, blocking: bool
) -> None:
    with fresh.client() as client:
        shard = Shard(client, fresh.kind)
        first = shard.run(prepare(name, shard, SIZE))
        once = shard.keyspace()
        client.flushall()
        call = prepare(name, shard, SIZE)
        proxy.arm(fault, name)
        session = Session("zw", caller="caller")
        session.now = str(call.args[0])
        if blocking:
            sync = SyncStore(proxy.url, session)
            answer = sync.drive(carried(call), give_up_s=10)
            sync.close()
        else:
            store = Store(proxy.url, session)
            answer = await store.drive(carried(call), give_up_s=10)
            await store.aclose()
        # As often as the client had to send it, and no more: the Redis client repeats nothing by itself.
        assert proxy.asked[name] == 2
        assert proxy.passed[name] == (1 if fault is Fault.BEFORE else 2)
        assert effect(shard.keyspace()) == effect(once)
        if fault is Fault.BEFORE or name not in DO_WHAT_IS_LEFT:
            # A repeat may tell the clock of the first answer beside it.
            assert told(name, answer)[: len(told(name, first))] == told(name, first)


async def test_every_client_is_built_without_retries_of_its_own(fresh: RedisServer) -> None:
    clients: list[Any] = [connect_async(fresh.url), connect_blocking(fresh.url), connect_sync(fresh.url)]
    for client in clients:
        connection = client.connection_pool.make_connection()
        assert connection.retry._retries == 0
        assert not connection.retry_on_timeout
        assert list(connection.retry_on_error) == []
    await clients[0].aclose()
    await clients[1].aclose()
    clients[2].close()
