"""The network is slow, lossy, deaf in one direction, half open, or leads elsewhere: N-03 to N-05, N-07, N-09."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections import Counter
from typing import Any

import pytest

from tests.conftest import MakeServer
from tests.proxy import Fault, Proxy
from tests.servers import RedisServer, free_port
from tests.workers.harness import Log, define_hold, eventually, one_kind, running
from zwheel import JobState, OutcomeUnknown, Wheel, current_job
from zwheel.broker.connect import connect_async, connect_blocking, connect_sync
from zwheel.broker.store import Store
from zwheel.calls import Session
from zwheel.calls.scripts import script

pytestmark = [pytest.mark.anyio, one_kind]
LEASE_MS = 600


async def test_a_slow_and_lossy_network_doubles_nothing(far: Wheel, wheel: Wheel, proxy: Proxy, log: Log) -> None:
    dice = random.Random(3)

    @far.task(keep=60)
    async def work() -> None:
        pass

    proxy.slow(lambda: dice.uniform(0, 0.02))
    for fault in Fault:
        proxy.arm(fault, lambda command: dice.random() < 0.01, times=10_000)
    async with running(far, log, lease_ms=5000, concurrency=20), running(far, log, lease_ms=5000, concurrency=20):
        answers = [
            answer
            for _ in range(10)
            for answer in await asyncio.gather(*(work.options(delay=0.05).enqueue() for _ in range(20)))
        ]
        await eventually(lambda: wheel.count("default", JobState.DONE), lambda count: count == len(answers), 20)
        proxy.slow(None)
    assert log.starts() == Counter(dict.fromkeys((answer.job_id for answer in answers), 1))
    assert log.of("lost") == []


async def test_a_batch_claimed_and_never_seen_comes_back(
    far: Wheel, wheel: Wheel, proxy: Proxy, fresh: RedisServer, log: Log
) -> None:
    runs: list[str] = []

    def define(where: Wheel) -> None:
        @where.task(name="work", keep=60)
        async def work() -> None:
            runs.append(current_job().id)

    define(far)
    define(wheel)
    near = Log()
    room = 5
    answers = await wheel.enqueue_many(wheel.new_job("work", keep=60) for _ in range(20))
    with fresh.client() as client:
        client.script_load(script("claim").source)
    proxy.arm(Fault.AFTER, "claim", times=10_000)
    async with running(far, log, lease_ms=LEASE_MS, concurrency=room, prefetch=0):
        await eventually(lambda: wheel.count("default", JobState.PROCESSING), lambda count: count > 0)
        async with running(wheel, near, lease_ms=LEASE_MS):
            jobs = [await wheel.wait(answer.job_id, timeout=15) for answer in answers]
    attempts = Counter(job.attempt for job in jobs)
    # One claim's worth of jobs was out of sight for a lease; the others were not.
    assert attempts == {1: 20 - room, 2: room}
    assert Counter(runs) == Counter(answer.job_id for answer in answers)
    assert log.starts() == Counter()


async def test_a_worker_that_hears_nothing_stops_and_claims_no_more(
    far: Wheel, wheel: Wheel, proxy: Proxy, log: Log
) -> None:
    order: list[str] = []
    gate = asyncio.Event()

    async def work() -> None:
        pass

    for where in (far, wheel):
        where.task(name="work", keep=60)(work)
    define_hold(far, "far", gate, order)
    define_hold(wheel, "near", gate, order)
    room = 3
    async with running(far, log, lease_ms=LEASE_MS, concurrency=room, prefetch=0) as deaf:
        held = await wheel.enqueue("hold", keep=60)
        await log.seen("start", held.job_id)
        near = Log()
        async with running(wheel, near, lease_ms=LEASE_MS):
            proxy.mute()
            answers = await wheel.enqueue_many(wheel.new_job("work", keep=60) for _ in range(20))
            await near.seen("start", held.job_id, within=15)
            gate.set()
            jobs = [await wheel.wait(answer.job_id, timeout=15) for answer in answers]
            assert (await wheel.wait(held.job_id, timeout=15)).attempt == 2
        proxy.unmute()
        proxy.cut()
        assert order == ["far starts", "far is stopped", "near starts"]
        assert sum(job.attempt == 2 for job in jobs) <= room
        assert {job.attempt for job in jobs} <= {1, 2}
        marker = await wheel.enqueue("work", keep=60)
        assert (await wheel.wait(marker.job_id, timeout=15)).state is JobState.DONE
        assert not deaf.task.done()


async def test_a_name_is_looked_up_again_after_redis_moved(
    own_server: MakeServer, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    where = {"redis.test": "127.0.0.1"}
    real = socket.getaddrinfo

    def resolve(host: Any, *rest: Any, **more: Any) -> Any:
        return real(where.get(host, host), *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    first = own_server(port=port)
    second = own_server(port=port, arguments=("--bind", "127.0.0.2"))
    async with Wheel(f"redis://redis.test:{port}/0", namespace="zw", give_up_s=15) as wheel:

        @wheel.task(keep=60)
        async def work() -> None:
            pass

        async with running(wheel, log):
            assert (await wheel.wait((await work.enqueue()).job_id, timeout=15)).attempt == 1
            where["redis.test"] = "127.0.0.2"
            first.kill()
            answer = await work.enqueue()
            assert (await wheel.wait(answer.job_id, "default", timeout=15)).attempt == 1
            with second.client() as client:
                assert client.exists(Session("zw").keys("default").meta) == 1


async def test_a_half_open_connection_is_noticed_in_time(proxy: Proxy) -> None:
    client = connect_sync(proxy.url)
    connection: Any = client.connection_pool.make_connection()
    connection.connect()
    sockets = [connection._sock]
    others = [
        (made, made.connection_pool.make_connection())
        for made in (connect_async(proxy.url), connect_blocking(proxy.url))
    ]
    for _, other in others:
        await other.connect()
        sockets.append(other._writer.get_extra_info("socket"))
    for each in sockets:
        assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle, every, times = (
            each.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert idle + every * times <= 15
    connection.disconnect()
    client.close()
    for made, other in others:
        await other.disconnect()
        await made.aclose()
    # A command on a connection that swallows everything ends by its own time limit, which is below that by default.
    assert Store(proxy.url, Session("zw")).timeout_s <= 15
    store = Store(proxy.url, Session("zw"), timeout_s=0.3)
    await store.send([("PING",)])
    proxy.freeze()
    async with asyncio.timeout(15):
        with pytest.raises(OutcomeUnknown):
            await store.send([("PING",)])
    proxy.thaw()
    await store.aclose()


async def test_large_bodies_on_a_slow_line_run_once_each_and_no_attempt_is_spent_unrun(
    proxy: Proxy, wheel: Wheel, log: Log
) -> None:
    """40 jobs of 250 KB at about 1.3 MB/s take longer than one answer may in all, six times the time-out."""
    async with Wheel(proxy.url, namespace="zw", timeout_s=1, give_up_s=5) as slow:

        @slow.task(name="t", retries=0)
        async def task(body: bytes) -> None:
            pass

        made = [(await wheel.enqueue("t", args=[os.urandom(250_000)], retries=0, keep=600)).job_id for _ in range(40)]
        proxy.slow(lambda: 0.05)
        async with running(slow, log, concurrency=100):
            await eventually(lambda: wheel.count("default", JobState.DONE), lambda count: count == 40, 60)
            proxy.slow(None)
    assert log.starts() == Counter(dict.fromkeys(made, 1))
    assert {(await wheel.get(job_id)).attempt for job_id in made} == {1}  # type: ignore[union-attr]
    assert log.of("lost") == []
