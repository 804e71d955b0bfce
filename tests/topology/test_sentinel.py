"""Sentinel: the primary is found, and found again, by the sentinels; what is wrong with a URL is told in one sentence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.groups import MASTER, SentinelGroup, wait_until
from tests.servers import RedisServer, binary_of
from tests.topology.load import Load, command, kill
from tests.workers.harness import running
from zwheel import JobState, SyncWheel, Wheel
from zwheel.broker.listener import Listener
from zwheel.broker.store import Store, SyncStore
from zwheel.calls import Session
from zwheel.errors import BrokerRefused, BrokerUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(180)]
#: From the death of the primary to the first job after it, seconds. The sentinels take 1 s to call it dead.
FIRST_START_S = 15.0


@pytest.fixture(scope="module")
def lasting(server_kind: str) -> Iterator[SentinelGroup]:
    """A group that no test disturbs."""
    binary = binary_of(server_kind)
    assert binary is not None
    with SentinelGroup(binary, password="s3cr3t") as group:
        yield group


async def told(url: str, kind: type[Exception], words: str) -> None:
    """Expect the same answer of both clients."""
    with pytest.raises(kind, match=words):
        async with Wheel(url, give_up_s=0) as wheel:
            await wheel.enqueue("task")
    with pytest.raises(kind, match=words), SyncWheel(url, give_up_s=0) as sync:
        sync.enqueue("task")


def hosts(group: SentinelGroup) -> str:
    return ",".join(f"127.0.0.1:{one.port}" for one in group.sentinels)


async def test_clients_workers_and_commands_find_the_primary(lasting: SentinelGroup) -> None:
    url = lasting.url.replace("@", "@127.0.0.1:1,")  # The first sentinel is dead.
    with SyncWheel(url) as sync:
        ids = [sync.enqueue("work", keep=60).job_id]
    async with Wheel(url) as wheel:

        @wheel.task(name="work", keep=60)
        async def work() -> None: ...

        ids.append((await work.enqueue()).job_id)
        async with running(wheel):
            for job_id in ids:
                await wheel.wait(job_id, "default", timeout=20)
    done = await command(url, "doctor")
    assert "s3cr3t" not in done.stdout + done.stderr
    assert "replica" not in done.stdout.splitlines()[0]
    assert done.returncode in (0, 5), done.stderr


async def test_a_primary_that_the_sentinels_do_not_know_is_told(lasting: SentinelGroup) -> None:
    url = lasting.url.replace(MASTER, "other")
    await told(url, BrokerRefused, f"the sentinels know no primary called other, but {MASTER}")


async def test_a_url_of_sentinels_that_leads_to_a_server_is_told(lasting: SentinelGroup) -> None:
    port = lasting.servers[0].port
    await told(
        f"redis+sentinel://127.0.0.1:{port}/{MASTER}", BrokerRefused, "lets us not in|is a Redis and no sentinel"
    )


async def test_a_plain_url_that_leads_to_a_sentinel_is_told(lasting: SentinelGroup) -> None:
    port = lasting.sentinels[0].port
    await told(
        f"redis://127.0.0.1:{port}/0",
        BrokerRefused,
        rf"if it is a sentinel, write redis\+sentinel://127.0.0.1:{port}/mymaster/0",
    )


async def test_a_list_of_dead_sentinels_is_told() -> None:
    url = "redis+sentinel://127.0.0.1:1,127.0.0.1:2/mymaster/0"
    await told(url, BrokerUnavailable, "none of the sentinels answers, 127.0.0.1:1, 127.0.0.1:2: Connection refused")
    done = await command(url, "queue", "ls")
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)


def fail_over(group: SentinelGroup) -> None:
    """Let the sentinels promote a replica while the primary lives, and wait until it is a replica."""
    former = group.primary
    with group.sentinels[0].client() as sentinel:
        sentinel.execute_command("SENTINEL", "FAILOVER", MASTER)
    wait_until(lambda: group._role(former) == "slave", "the former primary is a replica")


async def test_a_demoted_primary_is_left_at_its_first_refusal(group: SentinelGroup) -> None:
    stores = Store(group.url, Session("zw"), give_up_s=20), SyncStore(group.url, Session("zw"), give_up_s=20)
    listener = Listener(group.url)
    try:
        await stores[0].send([("SET", "zw:a", "1", "EX", "60")])
        stores[1].send([("SET", "zw:a", "1", "EX", "60")])
        assert await listener.listen(["zw:l"], 0.01) is None
        # Nobody kills the clients of the former primary: it is told to follow another one behind the sentinels' back.
        former = group.primary
        other = next(server for server in group.servers if server is not former)
        with group.client(former) as client:
            client.execute_command("REPLICAOF", "127.0.0.1", str(other.port))
        with pytest.raises(BrokerUnavailable, match="it is no primary any more: the sentinels are asked again"):
            await stores[0].send([("SET", "zw:a", "2", "EX", "60")])
        with pytest.raises(BrokerUnavailable, match="which is a slave and no primary"):
            await stores[0].send([("SET", "zw:a", "2", "EX", "60")])
        with pytest.raises(BrokerUnavailable, match="it is no primary any more: the sentinels are asked again"):
            stores[1].send([("SET", "zw:a", "2", "EX", "60")])
        with pytest.raises(BrokerUnavailable, match="which is a slave and no primary"):
            stores[1].send([("SET", "zw:a", "2", "EX", "60")])
        with pytest.raises(BrokerUnavailable):
            await listener.listen(["zw:l"], 0.01)
    finally:
        await stores[0].aclose()
        stores[1].close()
        await listener.aclose()


async def test_a_primary_that_lost_its_replicas_takes_no_writes_and_is_asked_for_anew(group: SentinelGroup) -> None:
    """It may be cut off from a new primary: nothing that it would lose is confirmed, where the servers are told so."""
    replicas = [server for server in group.servers if server is not group.primary]
    with group.client(group.primary) as client:
        client.config_set("min-replicas-to-write", 1)
        client.config_set("min-replicas-max-lag", 1)
    async with Wheel(group.url, give_up_s=30) as wheel:
        with SyncWheel(group.url, give_up_s=0.3) as sync:
            await wheel.enqueue("work")
            sync.enqueue("work")
            for replica in replicas:
                replica.freeze()
            try:
                with group.client(group.primary) as client:
                    wait_until(lambda: client.info("replication")["min_slaves_good_slaves"] == 0, "they are missed")
                    came = client.info("stats")["total_connections_received"]
                with pytest.raises(BrokerUnavailable, match="fewer replicas than its min-replicas-to-write"):
                    sync.enqueue("work")
                waiting = asyncio.create_task(wheel.enqueue("work"))
                await asyncio.sleep(0.3)
                with group.client(group.primary) as client:
                    assert client.info("stats")["total_connections_received"] - came > 4
            finally:
                for replica in replicas:
                    replica.thaw()
            await waiting
        assert await wheel.count("default", JobState.SCHEDULED) == 3


async def test_work_goes_on_after_an_ordered_failover(group: SentinelGroup, tmp_path: Path) -> None:
    """Sentinels stop no writes for it: what the old primary took last may not have reached the new one."""
    load = Load(group.url, tmp_path)
    assert await load.run(lambda: fail_over(group), loses="failover") < FIRST_START_S
    load.lost()
    report = load.report()
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []


async def test_a_killed_primary_is_replaced_and_work_goes_on(group: SentinelGroup, tmp_path: Path) -> None:
    load = Load(group.url, tmp_path)
    assert await load.run(lambda: kill(group.primary), loses="failover") < FIRST_START_S
    load.lost()
    report = load.report()
    assert [(verdict.number, verdict.breaches) for verdict in report.broken] == []


async def test_work_goes_on_after_a_primary_fell_silent(group: SentinelGroup, tmp_path: Path) -> None:
    """Its connections stay open: the first to notice is a call that waits for 10 s, and then nobody waits there any more."""
    load = Load(group.url, tmp_path)
    await load.run(lambda: silence(group.primary), loses="failover")
    load.lost()
    assert [(verdict.number, verdict.breaches) for verdict in load.report().broken] == []


def silence(server: RedisServer) -> float:
    server.freeze()
    return time.monotonic()
