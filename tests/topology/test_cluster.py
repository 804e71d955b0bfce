"""A cluster: calls go to the node that has their keys, whatever becomes of nodes and slots meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from tests.groups import Cluster, wait_until
from tests.proxy import Proxy
from tests.servers import RedisServer, binary_of, free_port
from tests.topology.load import Load, command, kill
from tests.workers.harness import eventually, running
from zwheel import JobState, SyncWheel, Wheel
from zwheel.broker.cluster import slot_of
from zwheel.broker.listener import Listener
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session
from zwheel.errors import BrokerError, BrokerRefused, BrokerUnavailable
from zwheel.keys import ShardKeys, queues_key

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
#: From the death of a primary to the first job after it, seconds. The nodes take 1 s to call it dead.
FIRST_START_S = 15.0
#: Queues that lie on all three nodes.
QUEUES = ("a", "b", "c", "d", "g", "j")


def slot(queue: str) -> int:
    return slot_of(ShardKeys.of("zw", queue).tag)


async def told(url: str, kind: type[Exception], words: str) -> None:
    """Expect the same answer of both clients."""
    with pytest.raises(kind, match=words):
        async with Wheel(url, give_up_s=0) as wheel:
            await wheel.enqueue("task")
    with pytest.raises(kind, match=words), SyncWheel(url, give_up_s=0) as sync:
        sync.enqueue("task")


def refused(cluster: Cluster, word: str) -> int:
    """How often the nodes answered so."""
    total = 0
    for node in cluster.nodes:
        with node.client() as client:
            total += client.info("errorstats").get(f"errorstat_{word}", {}).get("count", 0)
    return total


@pytest.mark.parametrize(
    ("key", "number"),
    [("123456789", 12739), ("{user1000}.following", slot_of("user1000")), ("foo{}{bar}", slot_of(b"foo{}{bar}"))],
)
def test_a_key_has_the_slot_of_its_tag(key: str, number: int) -> None:
    assert slot_of(key) == number


def test_the_server_has_the_same_slots(cluster: Cluster) -> None:
    with cluster.nodes[0].client() as client:
        for key in ("a", "{zw:default:0}:meta", "zw:queues", "x{}y", "{", "}{a}", "{{a}}", "ü"):
            assert client.execute_command("CLUSTER", "KEYSLOT", key) == slot_of(key)


async def test_clients_workers_and_commands_work_on_all_nodes(cluster: Cluster) -> None:
    assert {cluster.owner(slot(queue)) for queue in QUEUES} == set(cluster.nodes[:3])
    port = cluster.nodes[4].port
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{port}"  # One host is dead, the other a replica.
    async with Wheel(url) as wheel:

        @wheel.task(name="work", keep=60)
        async def work() -> None: ...

        with SyncWheel(url) as sync:
            ids = [(queue, sync.enqueue("work", queue=queue, keep=60).job_id) for queue in QUEUES]
        ids += [(queue, (await wheel.enqueue("work", queue=queue)).job_id) for queue in QUEUES]
        async with running(wheel, queues=QUEUES):
            for queue, job_id in ids:
                await wheel.wait(job_id, queue, timeout=20)
        assert await wheel.queues() == list(QUEUES)
        assert [await wheel.count(queue, JobState.DONE) for queue in QUEUES] == [2] * 6
    for words in (("queue", "ls"), ("task", "ls"), ("job", "show", ids[0][1])):
        done = await command(url, *words)
        assert (done.returncode, done.stderr) == (0, ""), words
    done = await command(url, "doctor")
    assert done.returncode == 0, done.stderr + done.stdout
    assert "problem" not in done.stdout.replace("0 problems", "")


async def test_a_queue_with_shards_is_one_queue_on_several_nodes(cluster: Cluster) -> None:
    async with Wheel(cluster.url) as wheel:
        await wheel.create_queue("big", shards=6)

        @wheel.task(name="work", queue="big", keep=60)
        async def work(number: int) -> None: ...

        made = [*await wheel.enqueue_many([work.job(number) for number in range(100)])]
        made += [await work.enqueue(number) for number in range(20)]
        async with running(wheel, queues=["big"]):
            for one in made:
                await wheel.wait(one.job_id, "big", timeout=20)
        assert await wheel.count("big", JobState.DONE) == 120
    used = []
    for node in cluster.nodes[:3]:
        with node.client() as client:
            used.append(client.dbsize() > 0)
    assert used == [True] * 3


async def test_one_exchange_asks_several_nodes_and_keeps_its_order(cluster: Cluster) -> None:
    asks: list[tuple[Any, ...]] = []
    for number in range(60):
        asks += [("SET", f"zw:{number}", number, "EX", "60"), ("PING",), ("GET", f"zw:{number}")]
    wanted = [reply for number in range(60) for reply in (b"OK", b"PONG", str(number).encode())]
    store, sync = Store(cluster.url, Session("zw")), SyncStore(cluster.url, Session("zw"))
    try:
        assert await store.send(asks) == wanted
        assert sync.send(asks) == wanted
    finally:
        await store.aclose()
        sync.close()


async def test_scan_goes_over_all_primaries(cluster: Cluster) -> None:
    store = Store(cluster.url, Session("zw"))
    try:
        names = {f"zw:{number}" for number in range(300)}
        await store.send([("SET", name, "", "EX", "60") for name in names])
        found: set[str] = set()
        cursor = 0
        while True:
            ((cursor, keys),) = await store.send([("SCAN", cursor, "MATCH", "zw:*", "COUNT", 20)])
            found |= {key.decode() for key in keys}
            if not int(cursor):
                break
        assert found == names
    finally:
        await store.aclose()


async def test_a_script_is_loaded_on_each_node_that_lacks_it(cluster: Cluster) -> None:
    async with Wheel(cluster.url, give_up_s=0) as wheel:
        with SyncWheel(cluster.url, give_up_s=0) as sync:
            for client in (None, sync):
                for node in cluster.nodes:
                    with node.client() as raw:
                        raw.script_flush()
                for queue in QUEUES:
                    if client is None:
                        await wheel.enqueue("task", queue=queue)
                    else:
                        client.enqueue("task", queue=queue)
        assert [await wheel.count(queue, JobState.SCHEDULED) for queue in QUEUES] == [2] * 6


async def test_what_lies_on_a_dead_node_hides_nothing_else(own: Cluster) -> None:
    store, sync = Store(own.url, Session("zw")), SyncStore(own.url, Session("zw"))
    try:
        asks = [("HLEN", ShardKeys.of("zw", queue).jobs) for queue in QUEUES]
        assert await store.send(asks) == [0] * 6
        dead = own.owner(slot("a"))
        there = [own.owner(slot(queue)) is not dead for queue in QUEUES]
        for node in (dead, own.nodes[own.nodes.index(dead) + 3]):
            node.kill()
        for replies in (await store.send(asks, each=True), sync.send(asks, each=True)):
            assert [reply == 0 for reply in replies] == there
            assert all(isinstance(reply, (int, BrokerError)) for reply in replies)
    finally:
        await store.aclose()
        sync.close()


async def test_a_dead_shard_stops_nothing_of_the_others(own: Cluster) -> None:
    for node in own.nodes:
        with node.client() as client:
            client.config_set("cluster-require-full-coverage", "no")
    ran: set[int] = set()
    async with Wheel(own.url, give_up_s=1) as wheel:
        await wheel.create_queue("big", shards=6)

        @wheel.task(name="work", queue="big", keep=60)
        async def work(number: int) -> None:
            ran.add(number)

        async def enqueue(number: int) -> bool:
            try:
                await work.enqueue(number)
            except BrokerUnavailable:
                return False
            return True

        async def all_ran(numbers: set[int]) -> bool:
            return numbers <= ran

        async with running(wheel, queues=["big"]):
            assert all([await enqueue(-number) for number in range(1, 31)])
            await eventually(lambda: all_ran(set(range(-30, 0))), bool)
            # The list of queues lies on a node that lives.
            dead = next(node for node in own.nodes[:3] if node is not own.owner(slot_of(queues_key("zw"))))
            for node in (dead, own.nodes[own.nodes.index(dead) + 3]):
                node.kill()
            stored = await asyncio.gather(*(enqueue(number) for number in range(60)))
            assert 0 < sum(stored) < 60
            await eventually(lambda: all_ran({number for number in range(60) if stored[number]}), bool)


async def test_a_listener_hears_its_shard_wherever_it_is(own: Cluster) -> None:
    listener, store = Listener(own.url), Store(own.url, Session("zw"), give_up_s=20)
    wake = ShardKeys.of("zw", "a").wake
    try:
        for move in (False, True):
            if move:
                source = own.owner(slot("a"))
                await asyncio.to_thread(own.move, slot("a"), next(n for n in own.nodes[:3] if n is not source))
            assert await listener.listen([wake], 0.01) is None
            waiting = asyncio.create_task(listener.listen([wake], 30))
            await store.drive(push(wake))
            assert await waiting == (wake, "1")
    finally:
        await listener.aclose()
        await store.aclose()


def push(key: str) -> Any:
    yield [("RPUSH", key, "1"), ("EXPIRE", key, "60")]


async def test_a_slot_that_moves_under_load_loses_and_doubles_nothing(own: Cluster, tmp_path: Path) -> None:
    """Twice there and back, with jobs in it that wait, so that the move takes several steps."""
    load = Load(own.url, tmp_path, ["a", "g"])
    for number in range(20):
        await load.wheel.enqueue("later", queue="a", delay=600, id=f"later-{number}", keep=600)

    def there_and_back() -> None:
        home = own.owner(slot("a"))
        other = next(node for node in own.nodes[:3] if node is not home)
        for target in (other, home, other, home):
            own.move(slot("a"), target, pause_s=0.02)

    assert await load.run(there_and_back, waiting=20) < FIRST_START_S
    assert load.lost() == []
    assert set(load.starts.values()) == {1}
    # All three answers were met and followed.
    assert min(refused(own, "MOVED"), refused(own, "ASK"), refused(own, "TRYAGAIN")) > 0
    assert [(verdict.number, verdict.breaches) for verdict in load.report(drained=False).broken] == []


async def test_a_killed_primary_is_replaced_and_work_goes_on(own: Cluster, tmp_path: Path) -> None:
    load = Load(own.url, tmp_path, ["a", "c", "g"])
    assert await load.run(lambda: kill(own.owner(slot("a"))), loses="failover") < FIRST_START_S
    load.lost()
    assert [(verdict.number, verdict.breaches) for verdict in load.report().broken] == []


async def test_slots_that_nobody_serves_are_waited_for(own: Cluster) -> None:
    dead = own.owner(slot("a"))
    replica = own.nodes[own.nodes.index(dead) + 3]
    other = next(queue for queue in QUEUES if own.owner(slot(queue)) is not dead)
    async with Wheel(own.url, give_up_s=30) as wheel:
        await wheel.enqueue("task", queue="a")
        for node in (replica, dead):
            node.kill()
        left = own.owner(slot(other))
        wait_until(
            lambda: any("fail" in line[2] and "?" not in line[2] for line in own.known(left)), "it is found dead"
        )
        # Where not all slots are covered the others answer CLUSTERDOWN.
        with pytest.raises(BrokerUnavailable, match="not carried out"):
            async with Wheel(own.url, give_up_s=0.5) as hasty:
                await hasty.enqueue("task", queue=other)
        waiting = asyncio.create_task(wheel.enqueue("task", queue=other))
        await asyncio.sleep(0.2)
        dead.start()
        await waiting
        assert await wheel.count(other, JobState.SCHEDULED) == 1


async def test_all_addresses_of_the_nodes_change_at_once(own: Cluster) -> None:
    """Each node is reached by a proxy alone, and all proxies are replaced; the host of the URL stays."""
    with contextlib.ExitStack() as stack:
        front = stack.enter_context(Proxy(own.nodes[3].socket))

        def announce() -> list[Proxy]:
            proxies = [stack.enter_context(Proxy(node.socket)) for node in own.nodes]
            for node, proxy in zip(own.nodes, proxies, strict=True):
                with node.client() as client:
                    client.config_set("cluster-announce-port", proxy.port)
            ports = {proxy.port for proxy in proxies}
            wait_until(lambda: all(ports_of(own, node) == ports for node in own.nodes), "all know the new ports")
            return proxies

        former = await asyncio.to_thread(announce)
        url = f"redis+cluster://127.0.0.1:{front.port}"
        async with Wheel(url, give_up_s=20) as wheel:
            with SyncWheel(url, give_up_s=20) as sync:
                for queue in QUEUES:
                    await wheel.enqueue("task", queue=queue)
                    await asyncio.to_thread(sync.enqueue, "task", queue=queue)
                await asyncio.to_thread(announce)
                for proxy in former:
                    proxy.shut()
                for queue in QUEUES:
                    await wheel.enqueue("task", queue=queue)
                    await asyncio.to_thread(sync.enqueue, "task", queue=queue)
                assert [await wheel.count(queue, JobState.SCHEDULED) for queue in QUEUES] == [4] * 6


def ports_of(cluster: Cluster, node: RedisServer) -> set[int]:
    return {int(line[1].partition("@")[0].rpartition(":")[2]) for line in cluster.known(node)}


async def test_a_user_who_may_not_ask_for_the_slots_learns_them_one_by_one(own: Cluster) -> None:
    for node in own.nodes:
        with node.client() as client:
            client.execute_command("ACL", "SETUSER", "shop", "on", ">pw", "~*", "+@all", "-cluster")
    url = own.url.replace("//", "//shop:pw@")
    async with Wheel(url, give_up_s=20) as wheel:
        for queue in QUEUES:
            await wheel.enqueue("task", queue=queue)
        assert [await wheel.count(queue, JobState.SCHEDULED) for queue in QUEUES] == [1] * 6
        with SyncWheel(url, give_up_s=20) as sync:
            own.owner(slot("a")).kill()
            await asyncio.to_thread(sync.enqueue, "task", queue="a")


async def test_a_wrong_url_is_told(cluster: Cluster) -> None:
    dead = "redis+cluster://127.0.0.1:1,127.0.0.1:2"
    await told(dead, BrokerUnavailable, "none of the nodes answers, 127.0.0.1:1, 127.0.0.1:2: Connection refused")
    done = await command(dead, "queue", "ls")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    elsewhere = next(node for node in cluster.nodes[:3] if node is not cluster.owner(slot("default")))
    plain = f"redis://127.0.0.1:{elsewhere.port}/0"
    cure = rf"is a node of a Redis Cluster: write redis\+cluster://127.0.0.1:{elsewhere.port}"
    await told(plain, BrokerRefused, cure)
    for node in cluster.nodes[:3]:
        # The worker, and what looks at all keys, hear it also from the node that has the keys they ask for first.
        for words in (("doctor",), ("worker", "tests.workers.app:wheel")):
            done = await command(f"redis://127.0.0.1:{node.port}/0", *words)
            assert (done.returncode, done.stdout, done.stderr.count("\n")) == (6, "", 1), done.stderr
            assert f"is a node of a Redis Cluster: write redis+cluster://127.0.0.1:{node.port}" in done.stderr
    binary = binary_of("valkey")
    assert binary is not None
    port = free_port()
    with RedisServer(binary, port=port):
        single = f"redis+cluster://127.0.0.1:{port}"
        await told(single, BrokerRefused, f"127.0.0.1:{port} is no node of a cluster: write redis://127.0.0.1:{port}/0")
    await told(cluster.url.replace("//", "//nobody:pw@"), BrokerRefused, "check the user name and the password")
